"""What a masked autoencoder reconstructs.

A target says how many numbers a patch has (`dim`), computes them for all patches of a video
(calling it), and paints predictions of them into a video (`paint`). To add one, write a class with
these three and name it in `make_target`.

Legend: B batch, P patches of a video, M of them predicted, D numbers of a patch, h w a patch.
"""

import torch
from torch import Tensor

TARGETS = ("pixels_normalized", "pixels")
EPS = 1e-6


class PixelTarget:
    """The pixels of each patch, of the first of the frames that a token covers.

    Args:
        patch_size: height and width of a patch.
        frame_stride: frames that a token covers; None for images.
        in_chans: channels of a pixel.
        normalized: to mean 0 and variance 1 within each patch (He et al., arXiv:2111.06377).

    Attributes:
        dim: numbers of a patch. Their order is that of the published weights: (h, w, c) for
            videos, (c, h, w) for images.
    """

    def __init__(
        self, patch_size: tuple[int, int], frame_stride: int | None, in_chans: int, normalized: bool
    ) -> None:
        self.patch_size, self.frame_stride = patch_size, frame_stride
        self.in_chans, self.normalized = in_chans, normalized
        self.dim = patch_size[0] * patch_size[1] * in_chans

    def __call__(self, video: Tensor, where: Tensor) -> Tensor:
        """Targets of some patches.

        Args:
            video: ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            where: int64 ``(B, M)`` of patches in raster order.

        Returns:
            float32 ``(B, M, D)``.
        """
        patches = _take(self.patches(video), where)
        if not self.normalized:
            return patches
        mean, std = _statistics(patches)
        return (patches - mean) / std

    def paint(self, video: Tensor, where: Tensor, prediction: Tensor) -> Tensor:
        """A copy of the video with predictions in place of some patches.

        Normalised predictions get mean and variance of the patch that they replace.

        Args:
            video: ``(B, 3, T, H, W)``.
            where: int64 ``(B, M)``.
            prediction: ``(B, M, D)``.

        Returns:
            As `video`.
        """
        patches, prediction = self.patches(video), prediction.float()
        if self.normalized:
            mean, std = _statistics(_take(patches, where))
            prediction = prediction * std + mean
        index = where[:, :, None].expand_as(prediction)  # (B, M, D)
        frames = self._join(patches.scatter(1, index, prediction), video)
        if self.frame_stride is None:
            return frames.to(video.dtype)
        painted = video.clone()
        painted[:, :, :: self.frame_stride] = frames.to(video.dtype)
        return painted

    def patches(self, video: Tensor) -> Tensor:
        """All patches in raster order, float32 ``(B, P, D)``."""
        h, w = self.patch_size
        if self.frame_stride is not None:
            video = video[:, :, :: self.frame_stride]  # (B, 3, T', H, W)
        x = video.float().unflatten(-1, (-1, w)).unflatten(-3, (-1, h))  # (B, 3, T', H', h, W', w)
        if self.frame_stride is None:
            return x.permute(0, 2, 4, 1, 3, 5).reshape(len(x), -1, self.dim)  # (c, h, w) each
        return x.permute(0, 2, 3, 5, 4, 6, 1).reshape(len(x), -1, self.dim)  # (h, w, c) each

    def _join(self, patches: Tensor, video: Tensor) -> Tensor:
        """The inverse of `patches`: ``(B, P, D)`` to frames ``(B, 3, T', H, W)``."""
        (h, w), c = self.patch_size, self.in_chans
        rows, columns = video.shape[-2] // h, video.shape[-1] // w
        if self.frame_stride is None:
            x = patches.reshape(len(patches), rows, columns, c, h, w)
            x = x.permute(0, 3, 1, 4, 2, 5)  # (B, 3, H', h, W', w)
        else:
            x = patches.reshape(len(patches), -1, rows, columns, h, w, c)
            x = x.permute(0, 6, 1, 2, 4, 3, 5)  # (B, 3, T', H', h, W', w)
        return x.flatten(-4, -3).flatten(-2, -1)  # (B, 3, T', H, W)


def make_target(
    name: str, patch_size: tuple[int, int], frame_stride: int | None, in_chans: int
) -> PixelTarget:
    """The target of a name in `TARGETS`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {name!r}")
    return PixelTarget(patch_size, frame_stride, in_chans, name == "pixels_normalized")


def _take(patches: Tensor, where: Tensor) -> Tensor:
    return patches.gather(1, where[:, :, None].expand(-1, -1, patches.shape[-1]))  # (B, M, D)


def _statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch; the variance is the unbiased one, as published."""
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (var + EPS).sqrt()
