"""Where weights come from: how they were trained, how good they are, and their licence.

Nothing is guessed: every fact comes from the checkpoint or from the folder of its run. A checkpoint
describes its model; the recipe and the weights that training started from are in the configuration
that it also holds.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from hiera_video.errors import CheckpointError
from hiera_video.metrics.headline import headline
from hiera_video.models.names import CHECKPOINTS
from hiera_video.results.prediction_files import stamped
from hiera_video.results.run_files import logged_rows, number_in, section, starts_of
from hiera_video.weights.description import JSON, UNKNOWN, read_description
from hiera_video.weights.files import read_checkpoint
from hiera_video.weights.trained import NON_COMMERCIAL, Trained
from hiera_video.weights.values import read_object

START = "task.init_from="


def training_record(trained: Trained) -> dict[str, Any]:
    """What is known about a training, as plain values for a reader.

    Args:
        trained: a run; in its folder, if there is one, ``run.json`` and ``metrics/`` are read.

    Returns:
        ``config`` (its name), ``epochs`` and ``steps`` done, ``data``, ``recipe``, ``validation``
        (metrics at this checkpoint) and ``started_from``, as far as they are known.
    """
    description, checkpoint, home = trained.description, trained.checkpoint, trained.home
    config = checkpoint["config"]
    epoch, steps = (_count(checkpoint.get(name)) for name in ("epoch", "global_step"))
    record = {
        "config": None if description.source == UNKNOWN else description.source,
        "epochs": None if epoch is None else epoch + 1,
        "steps": steps,
        "data": _data(section(config, "data"), description.clip or {}),
        "recipe": recipe(config),
        "validation": {} if epoch is None else _validation(home, epoch),
        "started_from": sorted(_origins(config, home)),
    }
    return _without_none({name: _without_none(value) for name, value in record.items()})


def training_versions(trained: Trained) -> dict[str, str]:
    """Versions of the packages that trained a run, and of its code (``revision``, a git commit).

    Checkpoints of version 0.1 do not record the packages; ``run.json`` beside them does.
    """
    last = (starts_of(trained.home) or [{}])[-1]
    versions: dict[str, Any] = {
        "lightning": trained.checkpoint.get("pytorch-lightning_version"),
        **(trained.description.versions or section(last, "versions")),
        "revision": last.get("git"),
    }
    return {str(name): v for name, v in versions.items() if isinstance(v, str)}


def licence(trained: Trained) -> str | None:
    """The licence that a run's weights inherit from the weights that its training started from.

    Returns:
        CC-BY-NC-4.0 if published weights are among them; ``unknown`` if the licence cannot be
        determined; None if the training started from random values, so whoever trained may choose.
    """
    home = trained.home
    origins = _origins(trained.checkpoint["config"], home)
    return _strictest(_licence_of(origin, home, set()) for origin in origins)


def _strictest(licences: Iterable[str | None]) -> str | None:
    distinct = set(licences)
    worst = (licence for licence in (NON_COMMERCIAL, UNKNOWN) if licence in distinct)
    return next(worst, next(iter(distinct), None))


def _origins(config: Mapping[str, Any], home: Path | None) -> set[str]:
    """Weights that a training started from.

    The configuration of a resumed run may no longer name them, so earlier commands are read, too.
    """
    sources = [section(config, "task").get("init_from")]
    lists = (argv for start in starts_of(home) if isinstance(argv := start.get("argv"), list))
    words = (str(word) for argv in lists for word in argv)
    sources += [word.removeprefix(START) for word in words if word.startswith(START)]
    return {str(source) for source in sources if source and source != "null"}


def _licence_of(source: str, home: Path | None, seen: set[Path]) -> str | None:
    """The licence of weights, by the chain of runs that led to them.

    Args:
        source: the weights, as a run names them.
        home: folder of that run.
        seen: resolved paths of the chain so far; the path of these weights is added.
    """
    # A relative path starts from the folder in which the run was started. Of a run that was moved
    # with its surroundings, it is one of those above the run's.
    started = [Path(cwd) for start in starts_of(home) if isinstance(cwd := start.get("cwd"), str)]
    above = [folder / source for folder in (*started, *(home.absolute().parents if home else ()))]
    as_named = Path(os.path.expanduser(source))
    path = next((p for p in (*above, as_named) if os.path.exists(p)), None)
    if Path(source).stem in CHECKPOINTS and (path is None or path.is_file()):
        return NON_COMMERCIAL
    if path is None or path.resolve() in seen:
        return UNKNOWN
    seen.add(path.resolve())
    if path.parent.name == "checkpoints" and (path.parents[1] / "config.yaml").is_file():
        path = path.parents[1]
    try:
        if (path / JSON).is_file():
            return read_description(path / JSON).licence
        if (path / "config.yaml").is_file():
            config: Any = OmegaConf.to_container(OmegaConf.load(path / "config.yaml"))
            run = path
        else:
            config, run = read_checkpoint(path).get("config"), None
    except (CheckpointError, OSError, ValueError):
        return UNKNOWN
    if not isinstance(config, dict) or not isinstance(config.get("task"), dict):
        return UNKNOWN
    return _strictest(_licence_of(o, run or home, seen) for o in _origins(config, run))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _data(data: Mapping[str, Any], clip: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(data.get("_target_", "")).rpartition(".")[2].removesuffix("DataModule")
    record = {name: data.get(name) for name in ("train", "val", "num_classes")}
    return {"kind": kind, **record, **{k: v for k, v in clip.items() if k != "test_views"}}


def recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers by which papers describe a training, by name; None where there is none.

    Args:
        config: the configuration of the run, as plain values.
    """
    task, data, trainer = (section(config, name) for name in ("task", "data", "trainer"))
    augment, batch, optimizer, epochs = (
        section(task, name) for name in ("augment", "batch", "optimizer", "epochs")
    )
    effective = epochs.get("unit") == "effective"
    size = batch.get("global") or data.get("batch_size")
    return {
        "passes over the videos": trainer.get("max_epochs"),
        "effective epochs": epochs.get("count") if effective else None,
        "batch": size and f"{size} {batch.get('unit', 'videos')}",
        "clips of each video": data.get("repeats"),
        "optimizer": str(optimizer.get("_target_", "")).rpartition(".")[2],
        **_arguments(optimizer),
        **{name.replace("_", " "): task.get(name) for name in _OF_TASK},
        "gradient clipping": trainer.get("gradient_clip_val"),
        "precision": trainer.get("precision"),
        "crop scale": data.get("crop_scale"),
        "horizontal flip": augment.get("horizontal_flip"),
        "RandAugment": _arguments(augment.get("rand_augment")),
        "random erasing": _arguments(augment.get("erasing")),
        "mixing": _arguments(task.get("mixing")),
        "average of weights": section(section(config, "callbacks"), "ema").get("decay"),
        "seed": config.get("seed"),
    }


_OF_TASK = (
    "lr",
    "weight_decay",
    "layer_decay",
    "position_lr",
    "warmup_epochs",
    "min_lr",
    "label_smoothing",
    "mask",
    "mask_ratio",
)


def _arguments(section: Any) -> Any:
    """The arguments in a section: all but keys such as ``_target_``; other values unchanged."""
    if not isinstance(section, dict):
        return section
    return {name: value for name, value in section.items() if not name.startswith("_")}


def _validation(home: Path | None, epoch: int) -> dict[str, float]:
    """The last validation of an epoch, counted from 0, in the run's CSV files."""
    rows = (row for row in logged_rows(home) if row.get("epoch") == str(epoch))
    texts = ((name, text) for row in rows for name, text in row.items() if name.startswith("val/"))
    return {name: number for name, text in texts if (number := number_in(text)) is not None}


class Measured(NamedTuple):
    """The results of a test.

    Attributes:
        metrics: finite numbers, by the names of `headline`.
        weights_known: whether the results name the weights that were tested.
    """

    metrics: dict[str, float]
    weights_known: bool


def read_results(path: Path, weights: str | Path) -> Measured:
    """Read the metrics of a test.

    Args:
        path: the folder of the test, or its ``results.json``.
        weights: what should have been tested, a file or a published name.

    Raises:
        CheckpointError: the file cannot be read or has no metrics, or other weights were tested.
    """
    file = path / "results.json" if path.is_dir() else path
    record = read_object(file)
    known = {name: value for name, value in headline(record).items() if value is not None}
    metrics = {name: v for name, v in known.items() if abs(v) <= sys.float_info.max}
    if not metrics:
        raise CheckpointError(f"{file}: holds no metrics of a test")
    tested = record.get("weights")
    if tested is not None and not _is_of(str(tested), weights):
        raise CheckpointError(
            f"{file}: a test of {str(tested).rsplit(' ', 2)[0]}, not of {weights} as it is now"
        )
    return Measured(metrics, tested is not None)


def _is_of(stamp: str, weights: str | Path) -> bool:
    """Whether a stamp is that of the weights; the file may have been moved since."""
    now = stamped(weights)
    if not Path(weights).is_file():
        return stamp == now
    return stamp.rsplit(" ", 2)[1:] == now.rsplit(" ", 2)[1:]


def _without_none(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: v for name, v in value.items() if v is not None and v != ""}
