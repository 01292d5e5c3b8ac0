"""The command ``export``: a trained model in a form that others read."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiera_video.errors import UsageError

FORMATS = ("safetensors", "pt2", "onnx", "timm", "transformers")
GRAPHS = ("pt2", "onnx")
LIMIT = 1e-3  # of the difference to PyTorch, as a share of the largest logit

# How to load each, for the model card. {folder} is the export's name.
LOADING = {
    "safetensors": 'from hiera_video import load\n\nload("{folder}").predict("video.mp4")',
    "safetensors of images": (
        'from hiera_video import create_model\n\nmodel = create_model("{folder}")'
    ),
    "safetensors of a masked autoencoder": (
        'from hiera_video import create_mae\n\nmae = create_mae("{folder}")'
    ),
    "pt2": (
        "import torch\n\n"
        'model = torch.export.load("{folder}/model.pt2").module()\n'
        "logits = model(video)  # {input} (batch, {shape})"
    ),
    "onnx": (
        "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("{folder}/model.onnx")\n'
        '(logits,) = session.run(None, {{"video": video}})  # {input} (batch, {shape})'
    ),
    "timm": 'import timm\n\nmodel = timm.create_model("local-dir:{folder}", pretrained=True)',
    "transformers": (
        "from transformers import HieraForImageClassification\n\n"
        'model = HieraForImageClassification.from_pretrained("{folder}")'
    ),
}


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: wrong usage or input (2), or an export that does not compute the same (1).
    """
    parser = argparse.ArgumentParser(
        "hiera-video export",
        description="Write a trained model, with a model card, into a new folder. What runs "
        "without this package (pt2, onnx) is run again and compared with PyTorch.",
    )
    add = parser.add_argument
    add("source", metavar="RUN_OR_FILE", help="run folder, checkpoint, exported folder, or "
        "published name")  # fmt: skip
    add("--format", choices=FORMATS, required=True, help="timm, transformers: models of images")
    add("--out", type=Path, metavar="DIR", help="new folder; default: RUN/export-FORMAT, and "
        "NAME/export-FORMAT of published weights")  # fmt: skip
    add("--uint8", action="store_true", help="pt2, onnx: the input is pixels, normalised inside")
    add("--results", type=Path, metavar="RUN", help="test run whose metrics the card is to name")
    arguments = parser.parse_args(words)
    if arguments.uint8 and arguments.format not in GRAPHS:
        raise UsageError(f"--uint8 is for pt2 and onnx; {arguments.format} holds weights alone")
    _export(arguments)


def _export(arguments: argparse.Namespace) -> None:
    from hiera_video.export.model_card import model_card
    from hiera_video.export.provenance import licence, read_results, training_record
    from hiera_video.weights.portable import build
    from hiera_video.weights.trained import read_trained

    kind = arguments.format
    if kind == "onnx":
        _check_onnx()
    trained = read_trained(arguments.source)
    results = arguments.results and read_results(arguments.results, trained.weights)
    description = trained.description
    if kind != "safetensors" and description.kind != "classifier":
        raise UsageError(f"a masked autoencoder has no {kind} form; use --format safetensors")
    home = trained.home or Path(arguments.source).stem
    out = arguments.out or Path(home, f"export-{kind}")
    if trained.checkpoint:
        description = description._replace(
            training=training_record(trained.checkpoint, trained.home),
            licence=licence(trained.checkpoint, trained.home),
        )
    description = description._replace(input="uint8" if arguments.uint8 else "float32")
    with _new_folder(out) as folder:
        model = build(description, trained.weights).eval()
        checked = _write(kind, folder, model, description)
        loading = _loading(kind, out.name, model, description)
        card = model_card(description, loading, results, checked)
        (folder / "README.md").write_text(card, encoding="utf-8")
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    print(f"{arguments.source} -> {out}")
    for name, size in sizes.items():
        print(f"  {name}  {size / 2**20:.2f} MiB")
    if checked:
        print(checked)


def _write(kind: str, folder: Path, model: Any, description: Any) -> str | None:
    """Write all but the card; returns what comparing said, where something was compared."""
    from hiera_video.export import layouts
    from hiera_video.weights.description import write_description
    from hiera_video.weights.portable import write_model

    if kind == "safetensors":
        write_model(folder, model, description)
    elif kind in GRAPHS:
        write_description(folder, description._replace(weights=kind))
        return _write_graph(kind, folder / f"model.{kind}", model, description)
    else:
        write = {"timm": layouts.write_timm, "transformers": layouts.write_transformers}
        write[kind](folder, model, description)
    return None


def _write_graph(kind: str, file: Path, model: Any, description: Any) -> str:
    """Write a graph and run it again.

    Raises:
        UsageError: it does not compute the same.
    """
    from hiera_video.augment.basic import Normalize
    from hiera_video.export import graph

    shape, uint8 = (model.in_chans, *model.input_size), description.input == "uint8"
    if uint8:
        model = graph.WithNormalisation(model, Normalize(description.mean, description.std))
    program = graph.trace(model, shape, uint8)
    save, load = {
        "pt2": (graph.save_pt2, graph.run_pt2),
        "onnx": (graph.save_onnx, graph.run_onnx),
    }[kind]
    save(program, file)
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


def _loading(kind: str, folder: str, model: Any, description: Any) -> str:
    if kind == "safetensors" and description.kind != "classifier":
        kind = "safetensors of a masked autoencoder"
    elif kind == "safetensors" and description.clip is None:
        kind = "safetensors of images"
    shape = ", ".join(map(str, (model.in_chans, *model.input_size)))
    return LOADING[kind].format(folder=folder, input=description.input, shape=shape)


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--format onnx needs more packages ({error.name}): pip install hiera-video[export]"
        ) from error


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes ``out`` when all went well, and else is removed."""
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
