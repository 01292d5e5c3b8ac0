"""Sizes of pictures with masks: large-scale jitter in training, the longer side in evaluation."""

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Mask

GREY = 128  # of the padding, as in detectron2's FixedSizeCrop


def large_scale_jitter(
    image: Tensor,
    masks: Tensor,
    size: tuple[int, int],
    scale: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Mirror half of the pictures, scale them at random, and crop what is too large.

    Ghiasi et al., "Simple Copy-Paste", 2021; the steps are those of detectron2's ViTDet.

    Args:
        image: a `torchvision.tv_tensors.Image`, uint8 ``(3, h, w)``.
        masks: a `torchvision.tv_tensors.Mask`, uint8 ``(n, h, w)``, 0 or 1.
        size: the greatest height and width of the result.
        scale: least and greatest factor; with 1 the picture just fits into `size`.
        rng: all randomness.

    Returns:
        Both with a height and width of at most `size`.
    """
    mirrored, factor, *place = rng.random(4)
    if mirrored < 0.5:
        image, masks = F.horizontal_flip(image), F.horizontal_flip(masks)
    image, masks = _resize(image, masks, size, scale[0] + factor * (scale[1] - scale[0]))
    rest = [max(0, n - m) for n, m in zip(image.shape[-2:], size, strict=True)]
    top, left = (round(share * n) for share, n in zip(place, rest, strict=True))
    height, width = (min(n, m) for n, m in zip(image.shape[-2:], size, strict=True))
    return F.crop(image, top, left, height, width), F.crop(masks, top, left, height, width)


def fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale a picture, uint8 ``(3, h, w)``, so that it just fits into `size`."""
    return F.resize(image, _scaled(image, size, 1.0))


def pad(image: Tensor, size: tuple[int, int], value: int) -> Tensor:
    """Pad ``(n, h, w)`` at the right and at the bottom to `size`."""
    height, width = image.shape[-2:]
    return F.pad(image, [0, 0, size[1] - width, size[0] - height], fill=value)


def boxes_of(masks: Tensor) -> Tensor:
    """The boxes around the pixels of masks.

    Args:
        masks: uint8 ``(n, h, w)``, none of them empty.

    Returns:
        float32 ``(n, 4)``: x1, y1, x2, y2 in pixels. They include the last pixel's own width.
    """
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += 1
    return boxes


def _resize(
    image: Tensor, masks: Tensor, size: tuple[int, int], factor: float
) -> tuple[Tensor, Tensor]:
    scaled = _scaled(image, size, factor)
    if not len(masks):  # torch would refuse to resize none
        return F.resize(image, scaled), Mask(torch.zeros(0, *scaled, dtype=torch.uint8))
    return F.resize(image, scaled), F.resize(masks, scaled)


def _scaled(image: Tensor, size: tuple[int, int], factor: float) -> list[int]:
    """Height and width of a picture, of which `factor` 1 just fits into `size`."""
    height, width = image.shape[-2:]
    factor *= min(size[0] / height, size[1] / width)
    return [max(1, math.floor(n * factor + 0.5)) for n in (height, width)]
