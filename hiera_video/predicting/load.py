"""Trained models, ready for videos: ``load("run_or_file")``."""

from pathlib import Path
from typing import Any

import torch

from datamodules.clips.format import ClipFormat
from hiera_video.augment.basic import Normalize
from hiera_video.errors import CheckpointError
from hiera_video.models.network_input import takes_images
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.autoencoder import Reconstructor
from hiera_video.predicting.classifier import Predictor
from hiera_video.predicting.instances import instance_predictor
from hiera_video.weights.portable import CREATE, build
from hiera_video.weights.trained import read_trained


def load(source: str | Path, device: str | torch.device | None = None) -> Any:
    """A trained model, ready for videos or, if it was trained on pictures, for pictures.

    Args:
        source: a run folder (its best checkpoint, else its last), a checkpoint of a run, a folder
            that ``export --format safetensors`` wrote or transformers saved, a name in the hub's
            local cache, or a published name such as ``hiera_base_16x224``, which is downloaded once
            (CC-BY-NC 4.0).
        device: None: a GPU if there is one.

    Returns:
        Depending on the kind of model, a

        - `Predictor` of a classifier: ``predict(video)`` names the classes;
        - `ActionPredictor` of an action detector: ``predict(video, boxes)`` gives the actions of
          each person, second by second;
        - `InstancePredictor` of an instance segmentation: ``predict(picture)`` gives objects with
          boxes and masks;
        - `Reconstructor` of a masked autoencoder: ``reconstruct(video)`` gives pictures.

    Raises:
        CheckpointError: a ValueError: the source is none of these, is damaged, or does not say what
            the model's input is.
    """
    trained = read_trained(source)
    description = trained.description
    if description.kind == "mask_rcnn":
        return instance_predictor(description, trained.weights, device)
    if description.clip is None:
        create = CREATE[description.kind].__name__
        raise CheckpointError(f"{source}: does not say what its input is; use {create}")
    evaluation = description.evaluation
    clip = ClipFormat.of(description.clip)
    height, width = evaluation.get("pad") or (clip.height, clip.width)
    model = build(description, trained.weights)
    seen = (clip.num_frames, height, width)
    if tuple(model.input_size) != (seen[1:] if seen[0] == 1 and takes_images(model) else seen):
        raise CheckpointError(
            f"{source}: clips of {seen} for a model that takes {model.input_size}"
        )
    normalize = Normalize(description.mean, description.std)  # pyright: ignore[reportArgumentType]
    if description.kind == "masked_autoencoder":
        ratio, mask = evaluation.get("mask_ratio"), evaluation.get("mask") or "random"
        try:
            return Reconstructor(model, clip, ratio, mask, normalize, device)
        except ValueError as error:
            raise CheckpointError(f"{source}: {error}") from error
    names = description.class_names or _numbers(model)
    if description.kind == "classifier":
        views = description.clip["test_views"]
        return Predictor(model, names, clip, views, normalize, device)
    return ActionPredictor(
        model,
        names,
        clip,
        description.action_ids,
        normalize,
        times_person_score=bool(evaluation.get("person_score")),
        short_side=evaluation.get("short_side"),
        pad=(height, width) if evaluation.get("pad") else None,
        device=device,
    )


def _numbers(model: Any) -> list[str]:
    """Labels of a model without class names, such as a published one: 0, 1, 2, ..."""
    return [str(i) for i in range(model.head.projection.out_features)]
