"""Adapt weights to the model that they go into.

From a masked autoencoder to a classifier, from images to videos, and to another input size.
"""

from collections.abc import Collection

import torch

from hiera_video.models.architecture import Geometry
from hiera_video.weights.files import StateDict
from hiera_video.weights.foreign import Translation
from hiera_video.weights.positions import resized_positions

DECODER = ("decoder_", "mask_token", "multi_scale_fusion_heads.")  # how its names begin
KERNEL = "patch_embed.proj.weight"
TIME = "pos_embed_temporal"
SPACE = ("pos_embed", "pos_embed_spatial", "decoder_pos_embed")


def for_model(
    translation: Translation, own: StateDict, geometry: Geometry, strict: bool, inflate: bool
) -> tuple[Translation, list[str]]:
    """Adapt weights to the kind of the model.

    Args:
        translation: weights of the file.
        own: tensors of the model.
        geometry: of the model.
        strict: refuse to mix images and videos.
        inflate: make weights of videos from those of images.

    Returns:
        The weights, and the names of those that were inflated.

    Raises:
        ValueError: weights of images for a model of videos, or the other way around.
    """
    if "norm.weight" in own and "norm.weight" not in translation.weights:
        new_names = {f"encoder_norm.{part}": f"norm.{part}" for part in ("weight", "bias")}
        translation = _renamed(translation, new_names)
    # Axes of an image or a video: 2 or 3, and 0 where there is no patch embedding.
    file_axes, model_axes = (
        weights[KERNEL].ndim - 2 if KERNEL in weights else 0
        for weights in (translation.weights, own)
    )
    if (file_axes, model_axes) == (2, 3):
        if inflate:
            return _inflated(translation, own, geometry)
        if strict:
            raise ValueError(
                "weights of an image model, and this one takes videos; inflate=True "
                "(task.inflate=true) makes them weights of videos"
            )
    if strict and (file_axes, model_axes) == (3, 2):
        raise ValueError("weights of a video model, and this one takes images")
    return translation, []


def _inflated(
    translation: Translation, own: StateDict, geometry: Geometry
) -> tuple[Translation, list[str]]:
    """Weights of an image model for videos, and the names of those that were made.

    The slice of the kernel over the first frame of a token gets the image's kernel, the other
    slices are zero. The decoder is dropped, as it predicts pixels in another order; the model's own
    keeps its initial values.
    """
    if not geometry.sep_pos_embed:
        raise ValueError("only models with sep_pos_embed take inflated weights")
    translation = _renamed(translation, {"pos_embed": "pos_embed_spatial"})
    decoder = tuple(name for name in translation.weights if name.startswith(DECODER))
    translation = without(translation, decoder)
    weights, first = translation.weights, geometry.patch_padding[0]
    image, shape = weights[KERNEL], own[KERNEL].shape  # (C, 3, h, w), (C, 3, t, h, w)
    if image.shape == (*shape[:2], *shape[3:]):
        weights[KERNEL] = image.new_zeros(shape)
        weights[KERNEL][:, :, first] = image
    weights[TIME] = torch.zeros(own[TIME].shape)
    new = [name for name in own if decoder and name.startswith(DECODER)]
    translation = translation._replace(
        left_out=(*decoder, *translation.left_out), lacks=(*new, *translation.lacks)
    )
    return translation, [KERNEL, TIME]


def fit_positions(
    weights: StateDict,
    own: StateDict,
    geometry: Geometry,
    input_size: tuple[int, ...] | None,
    strict: bool,
) -> list[str]:
    """Resize the position embeddings of `weights` that are of another grid, in place.

    If the grid of the file is ambiguous and `strict` is False, all embeddings of space are dropped:
    even with as many tokens as the model's, they may be in another order.

    Args:
        weights: of the file, under published names.
        own: tensors of the model.
        geometry: of the model.
        input_size: ``(H, W)`` or ``(T, H, W)`` in pixels that the file's network takes, if known.
        strict: raise if the grid is ambiguous.

    Returns:
        Names of the embeddings that were resized.

    Raises:
        ValueError: as `resized_positions`, if `strict`.
    """
    try:
        positions = resized_positions(weights, own, geometry, input_size)
    except ValueError:
        if strict:
            raise
        for name in own.keys() & SPACE:
            weights.pop(name, None)
        return []
    weights.update(positions)
    return list(positions)


def without(translation: Translation, names: Collection[str]) -> Translation:
    """A translation without the weights of these published names."""
    weights = {name: translation.weights[name] for name in translation.weights if name not in names}
    return translation._replace(weights=weights)


def _renamed(translation: Translation, new: dict[str, str]) -> Translation:
    return translation._replace(
        weights={new.get(name, name): value for name, value in translation.weights.items()},
        names={old: new.get(name, name) for old, name in translation.names.items()},
    )
