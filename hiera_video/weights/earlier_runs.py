"""Describe checkpoints of version 0.1, which have no record of their model, by their configuration.

The description is checked like any other record, since a checkpoint may come from anywhere.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiera_video.errors import CheckpointError
from hiera_video.models.names import VIDEO_MEAN, VIDEO_STD
from hiera_video.weights.description import CLIP, UNKNOWN, Description, from_record, to_record
from hiera_video.weights.portable import CREATE

# Functions that make the models of configurations, in version 0.1 (without Mask R-CNN) and today.
KINDS = {create.__name__: kind for kind, create in CREATE.items()}
PLACES = ("hiera_video", "hiera_video.models.zoo")
NORMALIZE = "hiera_video.augment.basic.Normalize"


def kind_made_by(target: Any) -> str | None:
    """The kind of model that a ``_target_`` makes; None for a model that is not ours."""
    place, _, function = str(target).rpartition(".")
    return KINDS.get(function) if place in PLACES else None


def describe_earlier_run(checkpoint: Mapping[str, Any], file: Path) -> Description:
    """Describe the model of a checkpoint by the configuration in it.

    Args:
        checkpoint: from `read_checkpoint`.
        file: the checkpoint's file, for messages.

    Raises:
        CheckpointError: there is no configuration, or not that of a training of ours.
    """
    config = checkpoint.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise CheckpointError(
            f"{file}: holds weights, but no configuration of their model; create the model with "
            "create_model and load the weights with load_weights"
        )
    try:
        # Objects become text, so that none is left where a plain value is expected.
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
    """The description, whose fields are not checked yet."""
    model, data = config["model"], dict(config["data"])
    arguments = {k: v for k, v in model.items() if k not in ("_target_", "_partial_")}
    kind = kind_made_by(model.get("_target_"))
    if kind is None:
        raise CheckpointError(f"its model, {model.get('_target_')!r}, is not part of this package")
    names = tuple(map(str, checkpoint.get("class_names") or ()))
    if kind != "masked_autoencoder":
        if not names:
            raise CheckpointError("it has no class names: its training was not finished")
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
    """Mean and standard deviation of red, green and blue."""
    normalize = augment.get("normalize") or {}
    if normalize.get("_target_", NORMALIZE) != NORMALIZE:
        raise CheckpointError(f"its normalisation, {normalize['_target_']!r}, is not ours")
    return normalize.get("mean", VIDEO_MEAN), normalize.get("std", VIDEO_STD)
