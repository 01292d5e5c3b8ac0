"""Detection models of torchvision, trained on COCO, with their weights."""

from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiera_video.errors import CheckpointError
from hiera_video.terminal import did_you_mean, progress_line
from hiera_video.weights.contents import network_weights
from hiera_video.weights.download import digest_in_name, download
from hiera_video.weights.files import read_checkpoint

WITHOUT_WEIGHTS = "or set boxes=FILE.csv or boxes=full_frame, which need no detector"
COCO_CLASSES = 91  # as torchvision counts them, 0 being the background


def load_detector(name: str, weights: str | Path | None = None) -> nn.Module:
    """A detection model of torchvision, trained on COCO.

    Args:
        name: such as ``fasterrcnn_resnet50_fpn_v2`` or ``ssdlite320_mobilenet_v3_large``.
        weights: a local file; None: torchvision's, downloaded once into torch's cache
            (``TORCH_HOME``).

    Raises:
        ValueError: torchvision has no such model.
        CheckpointError: the weights cannot be downloaded or read, or are another model's.
    """
    from torchvision.models import detection, get_model, get_model_weights, list_models

    names = list_models(module=detection)
    if name not in names:
        raise ValueError(
            f"no detector {name!r}{did_you_mean(name, names) or '; there are ' + ', '.join(names)}"
        )
    if weights is None:
        # Each of torchvision's enums of weights has a default.
        best: Any = get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
        weights = _downloaded(name, best.url)
    tensors = network_weights(read_checkpoint(weights), weights).weights
    model = get_model(name, weights=None, weights_backbone=None, num_classes=COCO_CLASSES)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{weights}: not the weights of {name} for COCO") from error
    return model


def _downloaded(name: str, url: str) -> Path:
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with progress_line(name, "MB") as show:
            download(url, path, show, digest_in_name(url))
    except (OSError, HTTPException, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"weights of the person detector {name} cannot be downloaded ({reason}); put {url} at "
            f"{path} yourself, {WITHOUT_WEIGHTS}"
        ) from error
    return path
