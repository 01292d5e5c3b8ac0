"""Random erasing (Zhong et al., AAAI 2020) of clips, with one box for all frames."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hiera_video.augment.basic import ERASING_NOISE_STREAM, ERASING_STREAM
from hiera_video.augment.random import normal, uniform

TRIES = 10


class Box(NamedTuple):
    """The part of a clip that is erased, in pixels, and the seed of the noise in its place."""

    top: int
    left: int
    height: int
    width: int
    seed: int


class RandomErasing:
    """Fill a box with normal noise, drawn anew for each pixel, channel and frame.

    As in PySlowFast (``random_erasing.py`` with ``cube=True``, mode "pixel", one box), it comes
    after normalisation, and a box that does not fit is drawn again, here up to ten times.

    Args:
        probability: share of clips in which a box is erased.
        area: smallest and greatest share of the frame's area; uniform between them.
        aspect: smallest ratio of height to width, in (0, 1]; log-uniform from it to its inverse.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        probability: float = 0.25,
        area: tuple[float, float] = (0.02, 1 / 3),
        aspect: float = 0.3,
    ) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in [0, 1], not {probability}")
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area must be two shares in (0, 1] in order, not {tuple(area)}")
        if not 0 < aspect <= 1:
            raise ValueError(f"aspect must be in (0, 1], not {aspect}")
        self.probability, self.area, self.aspect = probability, area, aspect

    def draw(self, seed: Tensor, size: tuple[int, int]) -> list[Box | None]:
        """Draw the box to erase in each clip.

        Args:
            seed: int64 ``(B,)`` on the CPU.
            size: height and width of the clips, pixels.

        Returns:
            ``B`` boxes; None where nothing is erased.
        """
        numbers = uniform(seed, 1 + 4 * TRIES, stream=ERASING_STREAM).double()
        rows = zip(seed.tolist(), numbers.tolist(), strict=True)
        return [
            self._box(value, row[1:], size) if row[0] < self.probability else None
            for value, row in rows
        ]

    def _box(self, seed: int, numbers: list[float], size: tuple[int, int]) -> Box | None:
        smallest, greatest = self.area
        for i in range(0, 4 * TRIES, 4):
            share, shape, down, right = numbers[i : i + 4]
            area = (smallest + share * (greatest - smallest)) * size[0] * size[1]
            aspect = self.aspect ** (1 - 2 * shape)
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < size[0] and width < size[1]:
                top = int(down * (size[0] - height + 1))
                left = int(right * (size[1] - width + 1))
                return Box(top, left, height, width, seed)
        return None

    def __call__(self, clip: Tensor, box: Box) -> None:
        """Erase a box of a clip in place.

        Args:
            clip: normalised float ``(3, T, H, W)``.
            box: from `draw`.
        """
        inside = clip[..., box.top : box.top + box.height, box.left : box.left + box.width]
        seed = torch.full((1,), box.seed, device=clip.device)
        noise = normal(seed, inside.numel(), stream=ERASING_NOISE_STREAM)
        inside.copy_(noise.view(inside.shape))
