"""Where weights come from: how they were trained, what that reached, and their licence.

Nothing is claimed that is not written somewhere: in the checkpoint, or in the folder of its run.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hiera_video.models.checkpoints import CheckpointError, read_checkpoint
from hiera_video.models.portable import JSON, read_description
from hiera_video.models.zoo import CHECKPOINTS
from hiera_video.trained import NON_COMMERCIAL

UNKNOWN = "unknown"
START = "task.init_from="


def training_record(checkpoint: Mapping[str, Any], home: Path | None) -> dict[str, Any]:
    """What is known of a training, as plain values for people.

    Args:
        checkpoint: of a run.
        home: its folder, in which ``run.json`` and ``metrics/`` are looked for.

    Returns:
        ``config`` (its name), ``epochs`` and ``steps`` done, ``data``, ``recipe``, ``validation``
        (metrics at this checkpoint), ``started_from``, ``versions``; those that are known.
    """
    config = checkpoint["config"]
    last = (_starts(home) or [{}])[-1]
    versions = dict(last.get("versions") or {})
    versions.setdefault("lightning", checkpoint.get("pytorch-lightning_version"))
    if last.get("git"):
        versions["revision"] = last["git"]
    epochs, steps = checkpoint["epoch"] + 1, checkpoint["global_step"]
    record = {
        "config": config["name"],
        "epochs": epochs,
        "steps": steps,
        "data": _data(config["data"]),
        "recipe": _recipe(config),
        "validation": _validation(home, epochs - 1),
        "started_from": sorted(_origins(config, home)),
        "versions": versions,
    }
    return {name: _without_none(value) for name, value in record.items()}


def licence(checkpoint: Mapping[str, Any], home: Path | None) -> str | None:
    """Licence that the weights inherit from those that their training started from.

    Returns:
        CC-BY-NC-4.0 if published weights are among them; ``unknown`` if it cannot be found out;
        None if there are none, so that the one who trained them may choose.
    """
    return _strictest(_licence_of(o, home, set()) for o in _origins(checkpoint["config"], home))


def _strictest(licences: Iterable[str | None]) -> str | None:
    found = set(licences)
    worst = (licence for licence in (NON_COMMERCIAL, UNKNOWN) if licence in found)
    return next(worst, next(iter(found), None))


def _origins(config: Mapping[str, Any], home: Path | None) -> set[str]:
    """Weights that a training started from: a resumed run may no longer say it itself."""
    given = {(config.get("task") or {}).get("init_from")}
    words = (str(word) for start in _starts(home) for word in start.get("argv") or ())
    given |= {word.removeprefix(START) for word in words if word.startswith(START)}
    return {str(source) for source in given if source and source != "null"}


def _licence_of(source: str, home: Path | None, seen: set[Path]) -> str | None:
    """Follow a chain of runs, each found as the one before it named it."""
    # The name of a folder that runs were started in is not kept: it is one of those above.
    above = [folder / source for folder in (home.absolute().parents if home else ())]
    path = next((p for p in (*above, Path(source).expanduser()) if p.exists()), None)
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


def _starts(home: Path | None) -> list[dict[str, Any]]:
    """``run.json``: a record of each time that the run was started."""
    try:
        starts = json.loads((home / "run.json").read_text()) if home else []
    except (OSError, ValueError):
        return []
    return [start for start in starts if isinstance(start, dict)]


def _data(data: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(data.get("_target_", "")).rpartition(".")[2].removesuffix("DataModule")
    names = ("train", "val", "num_classes", "num_frames", "stride", "fps", "sampling", "size")
    return {"kind": kind, **{name: data.get(name) for name in names}}


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers by which a training is named in papers."""
    task, data, trainer = config["task"], config["data"], config["trainer"]
    augment, batch = task.get("augment") or {}, task.get("batch") or {}
    optimizer = dict(task.get("optimizer") or {})
    epochs, callbacks = task.get("epochs") or {}, config.get("callbacks") or {}
    effective = epochs.get("unit") == "effective"
    return {
        "passes over the videos": trainer.get("max_epochs"),
        "effective epochs": epochs.get("count") if effective else None,
        "batch": f"{batch.get('global') or data.get('batch_size')} {batch.get('unit', 'videos')}",
        "clips of each video": data.get("repeats"),
        "optimizer": str(optimizer.pop("_target_", "")).rpartition(".")[2],
        **{name: value for name, value in optimizer.items() if not name.startswith("_")},
        **{name.replace("_", " "): task.get(name) for name in _OF_TASK},
        "gradient clipping": trainer.get("gradient_clip_val"),
        "precision": trainer.get("precision"),
        "crop scale": data.get("crop_scale"),
        "horizontal flip": augment.get("horizontal_flip"),
        "RandAugment": _arguments(augment.get("rand_augment")),
        "random erasing": _arguments(augment.get("erasing")),
        "mixing": _arguments(task.get("mixing")),
        "average of weights": (callbacks.get("ema") or {}).get("decay"),
        "seed": config.get("seed"),
    }


_OF_TASK = (
    "lr",
    "weight_decay",
    "layer_decay",
    "warmup_epochs",
    "min_lr",
    "label_smoothing",
    "mask",
    "mask_ratio",
)


def _arguments(section: Any) -> Any:
    """A section of a configuration without what it makes of them."""
    if not isinstance(section, dict):
        return section
    return {name: value for name, value in section.items() if not name.startswith("_")}


def _validation(home: Path | None, epoch: int) -> dict[str, float]:
    """The last validation of an epoch, counted from 0, in the run's CSV files."""
    found: dict[str, float] = {}
    for file in sorted(home.glob("metrics/version_*/metrics.csv")) if home else ():
        with open(file, newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                values = {k: v for k, v in row.items() if k and k.startswith("val/") and v}
                if values and row.get("epoch") == str(epoch):
                    found |= {name: float(value) for name, value in values.items()}
    return found


def read_results(path: Path) -> dict[str, float]:
    """Metrics of a test run, from its folder or its ``results.json``.

    Raises:
        CheckpointError: there are none.
    """
    file = path / "results.json" if path.is_dir() else path
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not JSON"
        raise CheckpointError(f"{file}: {reason}") from error
    numbers = {k: v for k, v in record.items() if _is_metric(v)} if isinstance(record, dict) else {}
    if not numbers:
        raise CheckpointError(f"{file}: holds no metrics of a test")
    return numbers


def _is_metric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _without_none(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: v for name, v in value.items() if v is not None and v != ""}
