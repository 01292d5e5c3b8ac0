"""The fifteen "increasing" operations of timm's RandAugment, on all frames of a clip at once.

timm applies them to PIL images; this is the same arithmetic on uint8 tensors. All but the geometric
ones (`affine.py`) give exactly the pixels that PIL gives for each frame alone: they use PIL's
integer luminance, its truncating float32 blending, and statistics of single frames.
Sources: timm ``auto_augment.py``, PySlowFast ``rand_augment.py``, PIL ``ImageOps``,
``ImageEnhance`` and libImaging's ``Blend.c``, ``Convert.c``, ``Filter.c``.

Every function returns uint8 of the shape that it takes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hiera_video.augment.affine import FILL, rotate, shear_x, shear_y, translate_x, translate_y


def auto_contrast(clip: Tensor) -> Tensor:
    """Stretch the levels of each channel and frame of uint8 ``(3, T, H, W)`` to [0, 255]."""
    low, high = (clip.flatten(2).aminmax(dim=2)[i].double()[..., None] for i in (0, 1))
    level = torch.arange(256, device=clip.device)
    # In double precision and in PIL's order, as some products lie just below an integer.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    stretched = (level * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return _look_up(clip, torch.where(high > low, stretched, level.to(torch.uint8)))


def equalize(clip: Tensor) -> Tensor:
    """Flatten the histogram of each channel and frame of uint8 ``(3, T, H, W)`` by a table."""
    index = clip.flatten(2).long()  # (3, T, H * W)
    count = torch.zeros(*index.shape[:2], 256, dtype=torch.int32, device=clip.device)
    one = torch.ones((), dtype=torch.int32, device=clip.device)
    count.scatter_add_(2, index, one.expand_as(index))
    # PIL does not count the pixels of the brightest level that occurs.
    brightest = count.gather(2, index.amax(2, keepdim=True))
    step = (index.shape[2] - brightest) // 255
    before = count.cumsum(2) - count + step // 2  # (3, T, 256)
    equal = (before // step.clamp(min=1)).clamp(max=255)
    level = torch.arange(256, device=clip.device)
    return _look_up(clip, torch.where(step > 0, equal, level).to(torch.uint8))


def invert(clip: Tensor) -> Tensor:
    """Turn every level v of uint8 ``(3, T, H, W)`` into 255 - v."""
    return ~clip


def posterize(clip: Tensor, bits: int) -> Tensor:
    """Keep the upper ``bits`` (0 to 8) of every level of uint8 ``(3, T, H, W)``."""
    return clip & (256 - 2 ** (8 - bits))


def solarize(clip: Tensor, threshold: int) -> Tensor:
    """Invert the levels of uint8 ``(3, T, H, W)`` from ``threshold`` (0 to 256) on."""
    return torch.where(clip.short() < threshold, clip, ~clip)


def solarize_add(clip: Tensor, amount: int) -> Tensor:
    """Add ``amount`` (0 to 128) to the levels below 128 of uint8 ``(3, T, H, W)``."""
    return torch.where(clip < 128, clip + amount, clip)


def color(clip: Tensor, factor: float) -> Tensor:
    """Change the saturation of uint8 ``(3, T, H, W)``: 0 gives grey, 1 changes nothing."""
    return _blend(_luminance(clip), clip, factor)


def contrast(clip: Tensor, factor: float) -> Tensor:
    """Change the contrast of uint8 ``(3, T, H, W)``.

    A factor of 0 gives each frame's mean luminance, 1 changes nothing.
    """
    total = _luminance(clip).flatten(1).sum(1, dtype=torch.int64)  # (T,)
    pixels = clip[0, 0].numel()
    mean = (2 * total + pixels) // (2 * pixels)  # rounded half up
    return _blend(mean[:, None, None].float(), clip, factor)


def brightness(clip: Tensor, factor: float) -> Tensor:
    """Change the brightness of uint8 ``(3, T, H, W)``: 0 gives black, 1 changes nothing."""
    return (clip.float() * factor).clamp_(0, 255).to(torch.uint8)


def sharpness(clip: Tensor, factor: float) -> Tensor:
    """Change the sharpness of uint8 ``(3, T, H, W)``.

    A factor of 0 smooths, 1 changes nothing, more than 1 sharpens.
    """
    level = clip.short()
    rows = level[..., :-2, :] + level[..., 1:-1, :] + level[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * level[..., 1:-1, 1:-1]
    smooth = clip.float()  # the outermost pixels stay as they are
    # The weights are 5 in the middle and 1 around it; no multiple of 1 / 13 lies halfway between
    # two levels.
    smooth[..., 1:-1, 1:-1] = (total / 13).round_()
    return _blend(smooth, clip, factor)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "PosterizeIncreasing": posterize,
    "SolarizeIncreasing": solarize,
    "SolarizeAdd": solarize_add,
    "ColorIncreasing": color,
    "ContrastIncreasing": contrast,
    "BrightnessIncreasing": brightness,
    "SharpnessIncreasing": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateXRel": translate_x,
    "TranslateYRel": translate_y,
}

GEOMETRIC = frozenset({"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"})


def apply(
    clip: Tensor, operations: Sequence[tuple[str, float | None]], fill: Sequence[int] = FILL
) -> Tensor:
    """Apply operations in order.

    Args:
        clip: uint8 ``(3, T, H, W)``.
        operations: a name in `OPERATIONS` and its argument, or None for one without an argument.
        fill: RGB levels that `GEOMETRIC` operations give to what comes from outside the frame.

    Returns:
        uint8 ``(3, T, H, W)``.
    """
    for name, argument in operations:
        arguments = [] if argument is None else [argument]
        clip = OPERATIONS[name](clip, *arguments, *([fill] if name in GEOMETRIC else []))
    return clip


def _look_up(clip: Tensor, table: Tensor) -> Tensor:
    """Replace each level by its entry in the table ``(3, T, 256)`` of its channel and frame."""
    return table.gather(2, clip.flatten(2).long()).view(clip.shape)


def _luminance(clip: Tensor) -> Tensor:
    """ITU-R 601 luminance in 16-bit fractions, rounded: float32 ``(T, H, W)`` of integers."""
    red, green, blue = clip.float()
    # All sums are integers below 2**24, which float32 holds exactly.
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) * 2.0**-16).floor_()


def _blend(degenerate: Tensor, clip: Tensor, factor: float) -> Tensor:
    """Go from ``degenerate`` (factor 0) to the clip (1) and beyond, in float32, truncated."""
    change = clip.float() - degenerate
    return change.mul_(factor).add_(degenerate).clamp_(0, 255).to(torch.uint8)
