"""Describe a trained model: a run folder, a checkpoint, an exported folder or a published name.

A checkpoint contains a record of its model, written in training; see `Description`. What a
checkpoint names is never imported or called here.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.wording import described
from hiera_video.errors import CheckpointError
from hiera_video.models.names import (
    CHECKPOINTS,
    IMAGE_MEAN,
    IMAGE_STD,
    MODELS,
    VIDEO_MEAN,
    VIDEO_STD,
)
from hiera_video.terminal import did_you_mean
from hiera_video.weights.description import (
    JSON,
    PUBLISHED_CLIP,
    PUBLISHED_PICTURE,
    RECORD,
    Description,
    from_record,
    read_description,
)
from hiera_video.weights.earlier_runs import describe_earlier_run
from hiera_video.weights.files import OF_RUN, find_weights, read_checkpoint
from hiera_video.weights.portable import EXPORTED, WEIGHTS, check_readable
from hiera_video.weights.saved_folder import describe_saved_folder
from hiera_video.weights.transformers_folder import hub_snapshot

NON_COMMERCIAL = "CC-BY-NC-4.0"  # licence of published weights and of models trained from them


class Trained(NamedTuple):
    """A trained model, whose weights are not loaded yet.

    Attributes:
        description: of the model, its input and its classes.
        weights: a file or published name for `load_weights`.
        home: folder of the run or of the export; None for published weights.
        checkpoint: content of a run's checkpoint, its ``config`` as plain values of JSON; empty for
            other sources.
    """

    description: Description
    weights: str | Path
    home: Path | None
    checkpoint: Mapping[str, Any]


class Classes(NamedTuple):
    """The classes of a network, in the order of its logits.

    Attributes:
        names: empty if unknown.
        ids: numbers of the classes in AVA's or COCO's files; empty for other data sets.
    """

    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()


def read_trained(source: str | Path) -> Trained:
    """Describe a trained model, without loading its weights.

    Args:
        source: a run folder (of which the best checkpoint is read, else the last), a checkpoint of
            a run, a folder that ``export --format safetensors``, transformers or hiera-transformer
            wrote, a name in the hub's local cache, or a published name such as
            ``hiera_base_16x224``.

    Raises:
        CheckpointError: the source is none of these, or it is damaged.
        TypeError: it is neither a path nor a name.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"expected a run, a file or a published name, not {described(source)}")
    path = Path(os.path.expanduser(source))
    if not path.exists():
        path = hub_snapshot(str(source)) or path
    if path.is_dir():
        if (path / JSON).exists():
            return _exported(path)
        if saved := describe_saved_folder(path):
            return Trained(saved, find_weights(path), path, {})
        if checkpoint := next((path / name for name in OF_RUN if (path / name).is_file()), None):
            return _of_run(checkpoint)
        raise CheckpointError(
            f"{path}: neither a run (there is no checkpoints/last.ckpt) nor {EXPORTED}"
        )
    if path.name in (JSON, WEIGHTS) and path.with_name(JSON).exists():
        return _exported(path.parent)
    if path.exists():
        return _published(path.stem, path) if path.stem in CHECKPOINTS else _of_run(path)
    if str(source) in CHECKPOINTS:
        return _published(str(source), str(source))
    hint = did_you_mean(str(source), CHECKPOINTS)
    raise CheckpointError(f"{source}: no such run, file or published model{hint}")


def read_classes(file: Path) -> Classes:
    """The classes of a file of weights; empty if it names none.

    Args:
        file: a checkpoint, or the ``model.safetensors`` of an export, whose classes are in
            ``model.json``.

    Raises:
        CheckpointError: the file is damaged.
    """
    beside = file.with_name(JSON)
    if file.name == WEIGHTS and beside.is_file():
        description = read_description(beside)
        return Classes(description.class_names, description.action_ids)
    return classes_of(read_checkpoint(file))


def classes_of(checkpoint: Mapping[str, Any]) -> Classes:
    """The classes that a checkpoint names; empty for a pretraining."""
    record = checkpoint.get(RECORD)
    # Version 0.1 had the classes at the top level of the checkpoint.
    holder = record if isinstance(record, dict) else checkpoint
    lists = (holder.get(key) for key in ("class_names", "action_ids"))
    return Classes(*(tuple(x) if isinstance(x, list | tuple) else () for x in lists))


def describe_checkpoint(checkpoint: Mapping[str, Any], file: Path) -> Description:
    """Describe the model of a checkpoint.

    Args:
        checkpoint: from `read_checkpoint`.
        file: the checkpoint's file, for messages.

    Raises:
        CheckpointError: the checkpoint has no valid description of its model.
    """
    if checkpoint.get(RECORD) is not None:
        return from_record(checkpoint[RECORD], file)
    return describe_earlier_run(checkpoint, file)


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
        clip=PUBLISHED_CLIP if video else PUBLISHED_PICTURE,
        mean=VIDEO_MEAN if video else IMAGE_MEAN,
        std=VIDEO_STD if video else IMAGE_STD,
        source=name,
        licence=NON_COMMERCIAL,
    )
    return Trained(description, weights, None, {})


def _of_run(path: Path) -> Trained:
    """Describe a checkpoint that a training of ours wrote."""
    checkpoint = read_checkpoint(path)
    description = describe_checkpoint(checkpoint, path)
    check_readable(description, path)
    # Objects become text, so that none is left where a plain value is expected.
    config = json.loads(json.dumps(checkpoint.get("config") or {}, default=str, skipkeys=True))
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return Trained(description, path, home, {**checkpoint, "config": config})
