"""The command ``export``: a trained model in a form that other programs read."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line
from hiera_video.weights.description import KINDS, words_for

FORMATS = ("safetensors", "pt2", "onnx", "timm", "transformers")
GRAPHS = ("pt2", "onnx")
# The kinds of models that a format takes, if not classifiers alone.
TAKES = {
    "safetensors": KINDS,
    "transformers": ("classifier", "masked_autoencoder"),
}
LIMIT = 1e-3  # of a graph's difference from PyTorch, as a share of the largest logit


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: wrong usage or input (exit code 2), or a graph that computes other numbers than
            PyTorch (1).
    """
    parser = argparse.ArgumentParser(
        "hiera-video export",
        description="Write a trained model, with a model card, into a new folder. Action detectors "
        "take --format safetensors; masked autoencoders of images take transformers, too. Graphs "
        "that run without this package (pt2, onnx) are read back and compared with PyTorch.",
    )
    add = parser.add_argument
    add("source", metavar="RUN_OR_FILE", help="run folder, checkpoint, exported folder, or "
        "published name")  # fmt: skip
    add("--format", choices=FORMATS, required=True, help="timm, transformers: models of images")
    add("--out", type=Path, metavar="DIR", help="new folder; default: RUN/export-FORMAT, and "
        "NAME/export-FORMAT of published weights")  # fmt: skip
    add("--uint8", action="store_true", help="pt2, onnx: the input is pixels, normalised inside")
    add("--results", type=Path, metavar="RUN", help="test run whose metrics the card shows")
    arguments = parser.parse_args(words)
    if arguments.uint8 and arguments.format not in GRAPHS:
        raise UsageError(f"--uint8 is for pt2 and onnx; {arguments.format} holds weights alone")
    _export(arguments)


def _export(arguments: argparse.Namespace) -> None:
    from hiera_video.export.provenance import read_results
    from hiera_video.weights.trained import read_trained

    kind = arguments.format
    if kind == "onnx":
        _check_onnx()
    is_here = Path(arguments.source).exists()  # a download shows its own progress
    with progress_line(f"read {arguments.source}", None) if is_here else nullcontext():
        trained = read_trained(arguments.source)
    results = arguments.results and read_results(arguments.results, trained.weights)
    home = trained.home or Path(arguments.source).stem
    out = arguments.out or Path(home, f"export-{kind}")
    if trained.description.kind not in TAKES.get(kind, ("classifier",)):
        words = words_for(trained.description.kind)
        raise UsageError(f"{words} has no {kind} form; use --format safetensors")
    with new_folder(out) as folder:
        checked = write_export(folder, trained, kind, out.name, results, arguments.uint8)
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    print(f"{arguments.source} -> {out}")
    for name, size in sizes.items():
        print(f"  {name}  {size / 2**20:.2f} MiB")
    if checked:
        print(checked)


def write_export(
    folder: Path,
    trained: Any,
    kind: str,
    name: str,
    results: Any = None,
    uint8: bool = False,
    fetch: str = "",
) -> str | None:
    """Write a trained model and its card.

    Args:
        folder: an empty folder.
        trained: from `read_trained`.
        kind: one of `FORMATS`, which takes this kind of model.
        name: of the folder in the card.
        results: from `read_results`, for the card; None: no test.
        uint8: whether a graph takes pixels.
        fetch: how to get the folder, a line of the card before the code that loads it.

    Returns:
        How a graph compares with PyTorch, in words; None for other formats.

    Raises:
        UserError: the format has no such model.
    """
    from hiera_video.export.model_card import loading_code, model_card
    from hiera_video.weights.portable import build

    description = _complete(trained)._replace(input="uint8" if uint8 else "float32")
    with progress_line("build the model", None):
        model = build(description, trained.weights).eval()
    checked = _write(kind, folder, model, description)
    code = fetch + loading_code(kind, name, description, (model.in_chans, *model.input_size))
    card = model_card(description, code, results, checked)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return checked


def _complete(trained: Any) -> Any:
    """The description of a model with what its run says about the training.

    Exports and published names have no more than their description.
    """
    from hiera_video.export.provenance import licence, training_record, training_versions

    if not trained.checkpoint:
        return trained.description
    return trained.description._replace(
        training=training_record(trained),
        licence=licence(trained),
        versions=training_versions(trained),
    )


def _write(kind: str, folder: Path, model: Any, description: Any) -> str | None:
    """Write all files but the card; returns how a graph compares with PyTorch, else None."""
    from hiera_video.export.layouts import write_timm
    from hiera_video.export.transformers_layout import write_transformers
    from hiera_video.weights.description import write_description
    from hiera_video.weights.portable import write_model

    if kind in GRAPHS:
        write_description(folder, description._replace(weights=kind))
        return _write_graph(kind, folder / f"model.{kind}", model, description)
    write = {
        "safetensors": write_model,
        "timm": write_timm,
        "transformers": write_transformers,
    }
    with progress_line(f"write {kind}", None):
        write[kind](folder, model, description)
    return None


def _write_graph(kind: str, file: Path, model: Any, description: Any) -> str:
    """Write a graph, read it back and compare it with PyTorch; returns the result in words.

    Raises:
        UsageError: they compute different numbers.
    """
    from hiera_video.augment.basic import Normalize
    from hiera_video.export import graph

    shape, uint8 = (model.in_chans, *model.input_size), description.input == "uint8"
    if uint8:
        model = graph.WithNormalisation(model, Normalize(description.mean, description.std))
    with progress_line("trace the graph", None):
        program = graph.trace(model, shape, uint8)
    save, load = {
        "pt2": (graph.save_pt2, graph.run_pt2),
        "onnx": (graph.save_onnx, graph.run_onnx),
    }[kind]
    with progress_line(f"write {kind}", None):
        save(program, file)
    with progress_line("compare with PyTorch", None):
        difference = graph.compare(load(file), model, shape, uint8)
    opset = f" of opset {graph.OPSET}" if kind == "onnx" else ""
    batches = " and ".join(map(str, graph.BATCHES))
    text = (
        f"The graph{opset} takes any batch and gives logits. On random inputs in batches of "
        f"{batches} they differ from PyTorch's by up to {difference.absolute:.2g}, which is "
        f"{difference.relative:.2g} of the largest logit."
    )
    if not difference.relative <= LIMIT:  # NaN, too
        raise UsageError(f"{text} More than {LIMIT:g} is a fault: nothing was written", 1)
    return text


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--format onnx needs more packages: in the checkout, pip install '.[export]'"
        ) from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write into, which becomes ``out`` if all goes well and else is removed.

    Raises:
        UsageError: ``out`` is a link, a file, or a folder that is not empty.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        what = "is a link" if out.is_symlink() else "exists"
        raise UsageError(f"{out} {what}; name another folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".unfinished", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())  # that of mkdtemp is for its owner alone
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
