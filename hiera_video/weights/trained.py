"""A trained model, wherever it lies: run folder, checkpoint, exported folder, published name.

Nothing in a checkpoint is instantiated by its name: its configuration may say one of our two
models, and plain arguments.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hiera_video.augment.basic import VIDEO_MEAN, VIDEO_STD
from hiera_video.models.names import CHECKPOINTS, MODELS
from hiera_video.spelling import did_you_mean
from hiera_video.weights.description import (
    JSON,
    Description,
    from_record,
    read_description,
    to_record,
)
from hiera_video.weights.load import CheckpointError, read_checkpoint
from hiera_video.weights.portable import WEIGHTS, check_readable

KINDS = {
    "hiera_video.models.zoo.create_model": "classifier",
    "hiera_video.models.zoo.create_mae": "masked_autoencoder",
}
DETECTOR = "hiera_video.models.zoo.create_detector"
NON_COMMERCIAL = "CC-BY-NC-4.0"  # licence of published weights, and of what is trained from them
UNKNOWN = "unknown"  # what is written where something is not known
NORMALIZE = "hiera_video.augment.basic.Normalize"
# Of the images that published models were trained on.
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# As the published video models were trained and tested (paper, tables 4 and 11).
PUBLISHED_CLIP = {
    "num_frames": 16,
    "stride": 4,
    "fps": 30,
    "size": [224, 224],
    "sampling": "clip",
    "test_views": [5, 3],
}


class Trained(NamedTuple):
    """What a source holds.

    Attributes:
        description: of the model, its input and its classes.
        weights: what `load_weights` reads.
        home: folder of the run, or of the export; None for a published name.
        checkpoint: all that the checkpoint of a run holds, its ``config`` as plain values of JSON;
            empty for other sources.
    """

    description: Description
    weights: str | Path
    home: Path | None
    checkpoint: Mapping[str, Any]


def read_trained(source: str | Path) -> Trained:
    """Find out what a source holds; its weights are not loaded yet.

    Args:
        source: a run folder (its best checkpoint, else its last), a checkpoint of a run, a folder
            that ``export --format safetensors`` wrote, or a published name such as
            ``hiera_base_16x224``.

    Raises:
        CheckpointError: it is none of these, or it is damaged.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        if (path / JSON).exists():
            return _exported(path)
        for name in ("best.ckpt", "last.ckpt"):
            if (path / "checkpoints" / name).is_file():
                return _of_run(path / "checkpoints" / name)
        raise CheckpointError(
            f"{path}: neither a run (there is no checkpoints/last.ckpt) nor an exported model "
            f"(there is no {JSON})"
        )
    if path.name in (JSON, WEIGHTS) and path.with_name(JSON).exists():
        return _exported(path.parent)
    if path.exists():
        return _published(path.stem, path) if path.stem in CHECKPOINTS else _of_run(path)
    if str(source) in CHECKPOINTS:
        return _published(str(source), str(source))
    hint = did_you_mean(str(source), CHECKPOINTS)
    raise CheckpointError(f"{source}: no such run, file or published model{hint}")


def read_classes(file: Path) -> Mapping[str, Any]:
    """What a file of weights says of its classes, under ``class_names`` and ``action_ids``.

    Args:
        file: a checkpoint; or the ``model.safetensors`` of an export, for which ``model.json``
            speaks.

    Raises:
        CheckpointError: it is damaged.
    """
    beside = file.with_name(JSON)
    if file.name == WEIGHTS and beside.is_file():
        return {"class_names": read_description(beside).class_names}
    return read_checkpoint(file)


def _exported(folder: Path) -> Trained:
    description = read_description(folder / JSON)
    check_readable(description, folder / JSON)
    return Trained(description, folder / WEIGHTS, folder, {})


def _published(name: str, weights: str | Path) -> Trained:
    model = name.removeprefix("mae_")
    video = len(MODELS[model]["input_size"]) == 3
    description = Description(
        kind="masked_autoencoder" if name.startswith("mae_") else "classifier",
        name=model,
        arguments={},
        class_names=(),
        clip=PUBLISHED_CLIP if video else None,
        mean=VIDEO_MEAN if video else IMAGE_MEAN,
        std=VIDEO_STD if video else IMAGE_STD,
        source=name,
        licence=NON_COMMERCIAL,
    )
    return Trained(description, weights, None, {})


def _of_run(path: Path) -> Trained:
    """Of a checkpoint that a training of ours wrote."""
    checkpoint = read_checkpoint(path)
    config = checkpoint.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise CheckpointError(
            f"{path}: holds weights, and no configuration that says of which model; make it with "
            "create_model and read them with load_weights"
        )
    try:
        # What is no plain value becomes text, which no number is taken for.
        config = json.loads(json.dumps(config, default=str, skipkeys=True))
        record = to_record(_description(config, checkpoint.get("class_names")))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its configuration is not that of a training ({error})"
        ) from error
    description = from_record(record, path)
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return Trained(description, path, home, {**checkpoint, "config": config})


def _description(config: dict[str, Any], class_names: Any) -> Description:
    """Of a model that is known here; its fields are not checked yet."""
    arguments = {k: v for k, v in config["model"].items() if k not in ("_target_", "_partial_")}
    target, data = config["model"].get("_target_"), config["data"]
    if target == DETECTOR:
        raise CheckpointError("of an action detector; use the command predict, or load_weights")
    if target not in KINDS:
        raise CheckpointError(f"its model is {target!r}, which is not made here; known are ours")
    kind, names = KINDS[target], tuple(map(str, class_names or ()))
    if kind == "classifier":
        if not names:
            raise CheckpointError("a classifier without class names, so of an unfinished training")
        arguments["num_classes"] = len(names)
    mean, std = _normalisation(config["task"].get("augment") or {})
    return Description(
        kind=kind,
        name=arguments.pop("name"),
        arguments=arguments,
        class_names=names,
        clip={key: data[key] for key in PUBLISHED_CLIP},
        mean=mean,
        std=std,
        source=str(config.get("name") or UNKNOWN),
    )


def _normalisation(augment: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean and deviation."""
    normalize = augment.get("normalize") or {}
    if normalize.get("_target_", NORMALIZE) != NORMALIZE:
        raise CheckpointError(f"its normalisation is {normalize['_target_']!r}; known is ours")
    return normalize.get("mean", VIDEO_MEAN), normalize.get("std", VIDEO_STD)
