"""Checkpoints of version 0.1: they have no record of what they are, and their configuration tells.

What is found is checked like any other record, since a checkpoint may come from anywhere.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiera_video.errors import CheckpointError
from hiera_video.models.names import VIDEO_MEAN, VIDEO_STD
from hiera_video.weights.description import CLIP, UNKNOWN, Description, from_record, to_record

# What made the models of a configuration, and still does.
KINDS = {
    "create_model": "classifier",
    "create_mae": "masked_autoencoder",
    "create_detector": "action_detector",
}
PLACES = ("hiera_video", "hiera_video.models.zoo")
NORMALIZE = "hiera_video.augment.basic.Normalize"


def kind_made_by(target: Any) -> str | None:
    """The kind of model that a ``_target_`` makes; None if it is not one of ours."""
    place, _, function = str(target).rpartition(".")
    return KINDS.get(function) if place in PLACES else None


def describe_earlier_run(checkpoint: Mapping[str, Any], file: Path) -> Description:
    """What the model of a checkpoint is, by the configuration that it holds.

    Args:
        checkpoint: as `read_checkpoint` gives it.
        file: where it was read, for messages.

    Raises:
        CheckpointError: there is no configuration, or none of a training of ours.
    """
    config = checkpoint.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise CheckpointError(
            f"{file}: holds weights, and no configuration that says of which model; make it with "
            "create_model and read them with load_weights"
        )
    try:
        # What is no plain value becomes text, which no number is taken for.
        config = json.loads(json.dumps(config, default=str, skipkeys=True))
        record = to_record(_description(config, checkpoint))
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: its configuration is not that of a training ({error})"
        ) from error
    return from_record(record, file)


def _description(config: dict[str, Any], checkpoint: Mapping[str, Any]) -> Description:
    """Of a model that is known here; its fields are not checked yet."""
    model, data = config["model"], dict(config["data"])
    arguments = {k: v for k, v in model.items() if k not in ("_target_", "_partial_")}
    kind = kind_made_by(model.get("_target_"))
    if kind is None:
        raise CheckpointError(f"its model is {model.get('_target_')!r}, which is not made here")
    names = tuple(map(str, checkpoint.get("class_names") or ()))
    if kind != "masked_autoencoder":
        if not names:
            raise CheckpointError("without class names, so of an unfinished training")
        arguments["num_classes"] = len(names)
    mean, std = _normalisation(config["task"].get("augment") or {})
    return Description(
        kind=kind,
        name=arguments.pop("name"),
        arguments=arguments,
        class_names=names,
        clip={"sampling": "clip", "test_views": [1, 1]} | {k: data[k] for k in CLIP if k in data},
        mean=mean,
        std=std,
        source=str(config.get("name") or UNKNOWN),
        action_ids=tuple(checkpoint.get("action_ids") or ()),
        evaluation=_evaluation(kind, data, config["task"]),
    )


def _evaluation(kind: str, data: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "action_detector":
        return {
            "short_side": data.get("eval_short_side"),
            "pad": data.get("eval_pad"),
            "person_score": task.get("person_score", False),
        }
    if kind == "masked_autoencoder":
        return {"mask_ratio": task.get("mask_ratio"), "mask": task.get("mask", "random")}
    return {}


def _normalisation(augment: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean and standard deviation."""
    normalize = augment.get("normalize") or {}
    if normalize.get("_target_", NORMALIZE) != NORMALIZE:
        raise CheckpointError(f"its normalisation is {normalize['_target_']!r}; known is ours")
    return normalize.get("mean", VIDEO_MEAN), normalize.get("std", VIDEO_STD)
