"""Normalisation, and the streams of random numbers that augmentation draws from."""

import torch
from torch import Tensor, nn

from hiera_video.models.names import VIDEO_MEAN, VIDEO_STD

# Each use of a sample's seed has its own stream of random numbers.
FLIP_STREAM = 1
MASK_STREAM = 2
RAND_AUGMENT_STREAM = 3
RAND_AUGMENT_LEVEL_STREAM = 4
ERASING_STREAM = 5
ERASING_NOISE_STREAM = 6
MIXING_STREAM = 7
DECODER_MASK_STREAM = 8


class Normalize(nn.Module):
    """Normalise uint8 clips as the model was trained: ``(x / 255 - mean) / std``.

    Args:
        mean: mean of the red, green and blue channel, in [0, 1].
        std: standard deviation of the same, positive.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        mean: tuple[float, float, float] = VIDEO_MEAN,
        std: tuple[float, float, float] = VIDEO_STD,
    ) -> None:
        super().__init__()
        if not all(value > 0 for value in std):
            raise ValueError(f"std must be positive, not {list(std)}")
        self.mean, self.std = tuple(mean), tuple(std)
        mean_, std_ = torch.tensor(mean), torch.tensor(std)
        # As x * scale + shift, which is one pass over the pixels.
        self.register_buffer("scale", 1 / (255 * std_), persistent=False)
        self.register_buffer("shift", -mean_ / std_, persistent=False)

    def forward(self, video: Tensor) -> Tensor:
        """Normalise uint8 ``(B, 3, T, H, W)`` in [0, 255]: float32 of the same shape."""
        shape = (3, *[1] * (video.ndim - 2))
        # Batches come with channels last in memory. With three channels, the convolution of the
        # patch embedding is then several times slower on a CPU.
        return video.contiguous().float() * self.scale.view(shape) + self.shift.view(shape)

    def invert(self, video: Tensor) -> Tensor:
        """Turn float ``(B, 3, T, H, W)`` back into uint8 of the same shape, rounded and clipped."""
        shape = (3, *[1] * (video.ndim - 2))
        pixels = (video.float() - self.shift.view(shape)) / self.scale.view(shape)
        return pixels.round().clamp(0, 255).to(torch.uint8)
