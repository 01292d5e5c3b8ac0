"""What a masked autoencoder reconstructs.

A `Target` says how many numbers a patch has (`dim`). When called, it computes them for some patches
of a video. If they are pixels, it can paint predictions into a video (`paint`). To add a target,
write a class and name it in `make_target` and `TARGETS`, and draw it in
`visualize.reconstruction.reconstruction_pictures`.

Legend: B batch, P patches of a video, M of them predicted, D numbers in a patch, h w a patch.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hiera_video.models.token_order import take

TARGETS = ("pixels_normalized", "pixels", "hog")
EPS = 1e-6  # added to the variance of a patch


class Target(Protocol):
    """What a masked autoencoder needs of a target.

    Attributes:
        dim: D.
    """

    dim: int

    def __call__(self, video: Tensor, where: Tensor) -> Tensor:
        """Compute the targets of some patches.

        Args:
            video: normalised float ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            where: indices of patches in raster order, int64 ``(B, M)``.

        Returns:
            float32 ``(B, M, D)``.
        """
        ...

    def paint(
        self, video: Tensor, where: Tensor, prediction: Tensor, true_statistics: bool = True
    ) -> Tensor:
        """Paint predictions into a copy of the video.

        Args:
            video: ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            where: indices of the predicted patches, int64 ``(B, M)``.
            prediction: ``(B, M, D)``.
            true_statistics: give normalised predictions the mean and variance of the patches that
                they replace.

        Returns:
            A tensor with the shape and type of `video`.

        Raises:
            ValueError: the predictions are not pixels.
        """
        ...


class PixelTarget:
    """The pixels of a patch, in the first of the frames that a token covers.

    Args:
        patch_size: height and width of a patch in pixels.
        frame_stride: frames that a token covers; None for images.
        in_chans: channels of a pixel.
        normalized: normalise each patch to mean 0 and variance 1 (He et al., arXiv:2111.06377).

    Attributes:
        dim: D. The numbers have the order of the published weights: (h, w, c) for videos, (c, h, w)
            for images.
    """

    def __init__(
        self, patch_size: tuple[int, int], frame_stride: int | None, in_chans: int, normalized: bool
    ) -> None:
        self.patch_size, self.frame_stride = patch_size, frame_stride
        self.in_chans, self.normalized = in_chans, normalized
        self.dim = patch_size[0] * patch_size[1] * in_chans

    def __call__(self, video: Tensor, where: Tensor) -> Tensor:
        """Compute the pixels of some patches, as in `Target`: float32 ``(B, M, D)``."""
        patches = take(self.patches(video), where)
        if not self.normalized:
            return patches
        # One kernel; its variance is biased, that of the published code is not.
        unbiased = (self.dim - 1) / self.dim
        return F.layer_norm(patches, (self.dim,), eps=EPS * unbiased) * math.sqrt(unbiased)

    def paint(
        self, video: Tensor, where: Tensor, prediction: Tensor, true_statistics: bool = True
    ) -> Tensor:
        """Paint predictions into a copy of the video.

        Only the first frame of each token changes.

        Args:
            video: ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            where: indices of the predicted patches, int64 ``(B, M)``.
            prediction: ``(B, M, D)``.
            true_statistics: give normalised predictions the mean and variance of the patches that
                they replace.

        Returns:
            A tensor with the shape and type of `video`.
        """
        patches, prediction = self.patches(video), prediction.float()
        if self.normalized and true_statistics:
            mean, std = _statistics(take(patches, where))
            prediction = prediction * std + mean
        index = where[:, :, None].expand_as(prediction)  # (B, M, D)
        frames = self._join(patches.scatter(1, index, prediction), video)
        if self.frame_stride is None:
            return frames.to(video.dtype)
        painted = video.clone()
        painted[:, :, :: self.frame_stride] = frames.to(video.dtype)
        return painted

    def patches(self, video: Tensor) -> Tensor:
        """Cut a video ``(B, 3, T, H, W)`` into all its patches: float32 ``(B, P, D)``."""
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


class HOGTarget:
    """Histograms of oriented gradients, the target of MaskFeat (Wei et al., arXiv:2112.09133).

    Hiera compares them with pixels (table 3c). Only the first frame of each token counts, and each
    channel by itself. Gradients are those of Sobel kernels, on a frame mirrored at its border. A
    cell of 8x8 pixels has 9 bins of 20 degrees; opposite directions share a bin. Each pixel adds
    the magnitude of its gradient to one bin, and a cell's histogram is divided by its L2 norm. The
    values, their order and the direction at which bins begin are those of MaskFeat's code
    (``HOGLayerC`` in PySlowFast, 9 bins, pooled by 8, without a Gaussian window).

    Args:
        patch_size: height and width of a patch in pixels, multiples of 8.
        frame_stride: frames that a token covers; None for images.
        in_chans: channels of a pixel.

    Raises:
        ValueError: a patch does not consist of whole cells.

    Attributes:
        dim: D, 108 for 16x16 pixels. The order is (channel, bin, row of cells, column of cells).
    """

    CELL, BINS = 8, 9

    def __init__(
        self, patch_size: tuple[int, int], frame_stride: int | None, in_chans: int
    ) -> None:
        if any(side % self.CELL for side in patch_size):
            raise ValueError(
                f"target hog needs patches of whole cells of {self.CELL}x{self.CELL} pixels, not "
                f"of {patch_size[0]}x{patch_size[1]}; the model's strides and q_pool make a patch"
            )
        self.cells = tuple(side // self.CELL for side in patch_size)
        self.frame_stride = frame_stride
        self.dim = math.prod(self.cells) * in_chans * self.BINS

    def __call__(self, video: Tensor, where: Tensor) -> Tensor:
        """Compute the histograms of some patches, as in `Target`: float32 ``(B, M, D)``."""
        return take(self.patches(video), where)

    def paint(
        self, video: Tensor, where: Tensor, prediction: Tensor, true_statistics: bool = True
    ) -> Tensor:
        """Refuse to paint: a histogram has no picture.

        Args:
            video: ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            where: indices of the predicted patches, int64 ``(B, M)``.
            prediction: ``(B, M, D)``.
            true_statistics: give normalised predictions the mean and variance of the patches that
                they replace.

        Raises:
            ValueError: always.
        """
        raise ValueError("histograms of gradients (target hog) cannot be painted as a picture")

    def patches(self, video: Tensor) -> Tensor:
        """Compute the histograms of all patches of ``(B, 3, T, H, W)``: float32 ``(B, P, D)``."""
        images = self.frame_stride is None
        video = video[:, :, None] if images else video[:, :, :: self.frame_stride]
        x = self.histograms(video.float())  # (B, 3, T', 9, rows, columns)
        rows, columns = self.cells
        x = x.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))  # (B, 3, T', 9, H', r, W', c)
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7)  # (B, T', H', W', 3, 9, r, c)
        return x.flatten(4).flatten(1, 3)  # (B, P, D)

    def with_predictions(self, video: Tensor, where: Tensor, prediction: Tensor) -> Tensor:
        """The histograms of a video, those of some patches as predicted.

        Args:
            video: ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            where: indices of the predicted patches, int64 ``(B, M)``.
            prediction: ``(B, M, D)``.

        Returns:
            float32 ``(B, 3, T', 9, H/8, W/8)``; T' is 1 for images.
        """
        index = where[:, :, None].expand_as(prediction)  # (B, M, D)
        patches = self.patches(video).scatter(1, index, prediction.float())  # (B, P, D)
        (rows, columns), (height, width) = self.cells, video.shape[-2:]
        grid = height // (rows * self.CELL), width // (columns * self.CELL)
        x = patches.reshape(len(video), -1, *grid, video.shape[1], self.BINS, rows, columns)
        x = x.permute(0, 4, 1, 5, 2, 6, 3, 7)  # (B, 3, T', 9, H', r, W', c)
        return x.flatten(-2).flatten(-3, -2)  # (B, 3, T', 9, H/8, W/8)

    def histograms(self, frames: Tensor) -> Tensor:
        """Compute the histograms of all cells.

        Args:
            frames: float32 ``(..., H, W)``, each channel by itself.

        Returns:
            float32 ``(..., 9, H/8, W/8)``, of L2 norm 1 over the bins, or 0 where a cell has no
            gradient.
        """
        x = F.pad(frames.reshape(-1, *frames.shape[-2:]), (1, 1, 1, 1), mode="reflect")
        left = _smooth(x[:, :, :-2] - x[:, :, 2:], dim=1)  # (N, H, W): Sobel, left minus right
        up = _smooth(x[:, :-2] - x[:, 2:], dim=2)
        magnitude = torch.hypot(left, up)
        angle = torch.atan2(left, up) / math.pi * self.BINS  # in bins, from -9 to 9
        bins = angle.floor().remainder(self.BINS)  # opposite directions share a bin
        # Bin by bin, because a scattered sum is not deterministic on a GPU.
        votes = [torch.where(bins == k, magnitude, 0.0) for k in range(self.BINS)]
        x = torch.stack([self._sum_of_cells(vote) for vote in votes], dim=1)
        x = F.normalize(x, dim=1)  # (N, 9, rows, columns)
        return x.reshape(*frames.shape[:-2], *x.shape[1:])  # (..., 9, rows, columns)

    def _sum_of_cells(self, x: Tensor) -> Tensor:
        cells = x.unflatten(-1, (-1, self.CELL))  # (N, H, columns, 8)
        cells = cells.unflatten(-3, (-1, self.CELL))  # (N, rows, 8, columns, 8)
        return cells.sum(dim=(-3, -1))  # (N, rows, columns)


def make_target(
    name: str, patch_size: tuple[int, int], frame_stride: int | None, in_chans: int
) -> Target:
    """Create the target with a name in `TARGETS`.

    Args:
        name: ``pixels_normalized``, ``pixels`` or ``hog``.
        patch_size: height and width of a patch in pixels.
        frame_stride: frames that a token covers; None for images.
        in_chans: channels of a pixel.

    Raises:
        ValueError: the name is unknown, or the target cannot have such patches.
    """
    if name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {name!r}")
    if name == "hog":
        return HOGTarget(patch_size, frame_stride, in_chans)
    return PixelTarget(patch_size, frame_stride, in_chans, name == "pixels_normalized")


def _statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch, ``(B, P, 1)``; the variance is unbiased, as published."""
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (var + EPS).sqrt()


def _smooth(x: Tensor, dim: int) -> Tensor:
    """The weights 1, 2, 1 along an axis, which becomes two shorter."""
    size = x.shape[dim] - 2
    return x.narrow(dim, 0, size) + 2 * x.narrow(dim, 1, size) + x.narrow(dim, 2, size)
