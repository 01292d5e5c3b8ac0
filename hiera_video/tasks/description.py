"""Describe the model of a task, for the record in its checkpoints."""

from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from typing import Any

from torch import nn

from hiera_video.augment.basic import Normalize
from hiera_video.models import zoo
from hiera_video.models.action_detector import HieraActionDetector
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.mask_rcnn import MaskRCNNHiera
from hiera_video.models.names import MODELS
from hiera_video.weights import create
from hiera_video.weights.description import CUSTOM, UNKNOWN, Description
from hiera_video.weights.trained import Classes

KIND_OF: dict[type[nn.Module], str] = {
    Hiera: "classifier",
    MaskedAutoencoderHiera: "masked_autoencoder",
    HieraActionDetector: "action_detector",
    MaskRCNNHiera: "mask_rcnn",
}
FACTORIES = {
    getattr(module, f"create_{kind}")
    for module in (zoo, create)
    for kind in ("model", "mae", "detector", "mask_rcnn")
}
PACKAGES = ("hiera-video", "torch", "torchvision", "lightning", "av", "numpy", "hydra-core")


def describe(
    model: Any,
    factory: Any,
    data: Any,
    classes: Classes = Classes(),  # noqa: B008  (a tuple)
    normalize: Normalize | None = None,
    recipe: str | None = None,
    evaluation: Mapping[str, Any] = {},
) -> Description:
    """Describe a model that a task trains.

    Args:
        model: the network.
        factory: what made the network: a ``functools.partial`` of `create_model`, `create_mae`,
            `create_detector` or `create_mask_rcnn`. With anything else, the kind is ``custom``.
        data: the data module, whose ``clip`` and ``test_views`` tell how a video becomes an input.
        classes: of the network.
        normalize: from uint8 to the network's input; None: that of the published video models.
        recipe: name of the configuration; None: unknown.
        evaluation: as in `Description`.
    """
    ours = isinstance(factory, partial) and factory.func in FACTORIES
    arguments = {}
    if ours:
        positional = zip(signature(factory.func).parameters, factory.args, strict=False)
        arguments = {**dict(positional), **factory.keywords}
    name, kind = arguments.pop("name", None), KIND_OF.get(type(model), CUSTOM)
    if name not in MODELS:  # also an exported folder, which another machine may not have
        name, kind, arguments = type(model).__qualname__, CUSTOM, {}
    if kind in ("classifier", "action_detector"):
        # A task of the user's own may have outputs that are no classes.
        arguments["num_classes"] = len(classes.names) or model.head.projection.out_features
    if kind == "mask_rcnn":
        arguments["num_classes"] = model.num_classes
    normalize = normalize or Normalize()
    return Description(
        kind=kind,
        name=name,
        arguments=arguments,
        class_names=classes.names,
        clip=None if kind == "mask_rcnn" else _clip(data),
        mean=normalize.mean,
        std=normalize.std,
        source=recipe or UNKNOWN,
        action_ids=classes.ids,
        versions=package_versions(),
        evaluation=evaluation,
    )


def _clip(data: Any) -> dict[str, Any] | None:
    clip = getattr(data, "clip", None)
    if clip is None:
        return None
    return {
        "num_frames": clip.num_frames,
        "stride": clip.stride,
        "fps": clip.fps,
        "size": [clip.height, clip.width],
        "sampling": clip.sampling,
        "test_views": list(getattr(data, "test_views", (1, 1))),
        "interpolation": clip.interpolation,
        "eval_crop": clip.eval_crop,
    }


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that determine what a training computes, by name."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
