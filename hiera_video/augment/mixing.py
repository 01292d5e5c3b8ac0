"""Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019) of the clips of a batch."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hiera_video.augment.basic import MIXING_STREAM


class MixDraw(NamedTuple):
    """How a batch is mixed.

    Attributes:
        lam: share of its own pixels and target that a clip keeps, in [0, 1]; 1: not mixed.
        box: for CutMix, the part that a clip does not keep: top, bottom, left, right in pixels.
    """

    lam: float
    box: tuple[int, int, int, int] | None


class Mixing:
    """Mix clip i of a batch with clip B - 1 - i, and their targets; all clips in the same way.

    As in PySlowFast (``mixup.py``) and in timm's mode "batch", CutMix's box is the same in all
    frames and is cut off at their edge, and targets are mixed in proportion to the pixels. Unlike
    all other augmentation, the result for a clip depends on its batch.

    Args:
        mixup_alpha: parameter of the Beta distribution of mixup's share; 0: no mixup.
        cutmix_alpha: the same for CutMix; 0: no CutMix.
        probability: share of batches that are mixed.
        switch_probability: share of the mixed batches that get CutMix, if both are on.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        probability: float = 1.0,
        switch_probability: float = 0.5,
    ) -> None:
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if not 0 <= alpha < math.inf:
                raise ValueError(f"{name} must be at least 0, not {alpha}")
        for name, share in (
            ("probability", probability),
            ("switch_probability", switch_probability),
        ):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {share}")
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.probability, self.switch_probability = probability, switch_probability

    def draw(self, seed: Tensor, size: tuple[int, int]) -> MixDraw:
        """Draw how to mix a batch, from the seed of its first clip.

        Args:
            seed: int64 ``(B,)`` on the CPU.
            size: height and width of the clips, pixels.

        Raises:
            ValueError: there is only one clip.
        """
        if len(seed) < 2:
            raise ValueError(
                "mixup and CutMix need batches of at least 2 clips on each device; use larger "
                "ones or switch mixing off"
            )
        random = np.random.default_rng([MIXING_STREAM, int(seed[0]) % 2**64])
        mixed, switched = random.random(2)
        cutmix = self.cutmix_alpha > 0 and (
            self.mixup_alpha == 0 or switched < self.switch_probability
        )
        alpha = self.cutmix_alpha if cutmix else self.mixup_alpha
        if alpha == 0 or mixed >= self.probability:
            return MixDraw(1.0, None)
        lam = float(random.beta(alpha, alpha))
        if not cutmix:
            return MixDraw(lam, None)
        top, bottom = _interval(random, size[0], lam)
        left, right = _interval(random, size[1], lam)
        lam = 1 - (bottom - top) * (right - left) / (size[0] * size[1])
        return MixDraw(lam, (top, bottom, left, right))

    def __call__(self, video: Tensor, target: Tensor, draw: MixDraw) -> tuple[Tensor, Tensor]:
        """Mix clips and targets.

        Args:
            video: float ``(B, 3, T, H, W)``.
            target: float ``(B, classes)``, each row a distribution; see `soft_targets`.
            draw: from `draw`.

        Returns:
            Mixed clips and targets of the same shapes; the arguments are not changed.
        """
        if draw.lam == 1:
            return video, target
        if draw.box is None:
            mixed = video.flip(0).lerp_(video, draw.lam)
        else:
            top, bottom, left, right = draw.box
            mixed = video.clone()
            mixed[..., top:bottom, left:right] = video[..., top:bottom, left:right].flip(0)
        return mixed, target.flip(0).lerp(target, draw.lam)


def soft_targets(label: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Smoothed target distributions for cross entropy (Szegedy et al., CVPR 2016).

    Args:
        label: int64 ``(B,)`` in ``[0, num_classes)``.
        num_classes: number of classes, C.
        smoothing: s in [0, 1]: the label's class gets 1 - s + s / C, every other class s / C.

    Returns:
        float32 ``(B, num_classes)``.
    """
    other = smoothing / num_classes
    target = torch.full((len(label), num_classes), other, device=label.device)
    return target.scatter_(1, label[:, None], 1 - smoothing + other)


def _interval(random: np.random.Generator, size: int, lam: float) -> tuple[int, int]:
    """Start and end of a cut around a uniformly drawn middle, within [0, size]."""
    cut = int(size * math.sqrt(1 - lam))
    middle = int(random.integers(size))
    return max(middle - cut // 2, 0), min(middle + (cut + 1) // 2, size)
