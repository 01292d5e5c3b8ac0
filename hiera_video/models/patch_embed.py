"""The patch embedding of a Hiera: pixels to tokens, of all mask units or of some.

Legend: B batch, K mask units that are kept, C channels, T H W pixels, T' H' W' a grid of tokens,
t h w the tokens of a unit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.models.on_cpu import is_emulated, linear

CONVOLVE = {2: F.conv2d, 3: F.conv3d}


class PatchEmbed(nn.Module):
    """Overlapping convolution from pixels to tokens.

    Args:
        in_chans: channels of a pixel.
        dim: channels of a token.
        kernel: in pixels along each axis: two axes for images, three for videos.
        stride: likewise.
        padding: likewise.
    """

    def __init__(
        self,
        in_chans: int,
        dim: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
        self.proj = conv(in_chans, dim, kernel, stride, padding)

    def forward(self, video: Tensor) -> Tensor:
        """Convolve ``(B, 3, T, H, W)`` to tokens ``(B, T'*H'*W', C)`` in raster order."""
        if is_emulated(video, self.proj.weight):
            return self._convolve_in_float32(video).flatten(2).transpose(1, 2)
        wide = any(k > 2 * s for k, s in zip(self.proj.kernel_size, self.proj.stride, strict=True))
        # A CPU in float32 is quicker with the three channels of the pixels; meta counts as one.
        if wide or (video.device.type in ("cpu", "meta") and video.dtype == torch.float32):
            return self.proj(video).flatten(2).transpose(1, 2)
        return self._convolve_cells(video).flatten(2).transpose(1, 2)

    def _convolve_in_float32(self, video: Tensor) -> Tensor:
        """The same convolution, to ``(B, C, T', H', W')`` of the type of the video."""
        proj = self.proj
        bias = None if proj.bias is None else proj.bias.float()
        arguments = video.float(), proj.weight.float(), bias, proj.stride, proj.padding
        return CONVOLVE[len(proj.stride)](*arguments).to(video.dtype)

    def _convolve_cells(self, video: Tensor) -> Tensor:
        """The same convolution, to ``(B, C, T', H', W')``, without its slow three channels.

        Pixels are grouped into cells of the size of the stride, and each number of a cell becomes
        a channel. A kernel of up to two strides is then one of two cells.
        """
        kernel, stride, padding = self.proj.kernel_size, self.proj.stride, self.proj.padding
        axes = len(stride)
        margins = [
            m for s, p in zip(stride, padding, strict=True) for m in (s - int(p), int(p))
        ]  # of each axis the end, then the start: reversed below, as `pad` wants it
        video = F.pad(video, margins[::-1])
        shape = [n for size, s in zip(video.shape[2:], stride, strict=True) for n in (size // s, s)]
        cells = _numbers_last(video.reshape(*video.shape[:2], *shape), axes)
        margins = [2 * s - k for s, k in zip(stride, kernel, strict=True)]
        weight = F.pad(self.proj.weight, [m for margin in margins[::-1] for m in (0, margin)])
        shape = [n for s in stride for n in (2, s)]
        weight = _numbers_last(weight.reshape(*weight.shape[:2], *shape), axes)
        convolve = CONVOLVE[axes]
        # Numbers are last in memory and second in shape: what torch calls channels last.
        return convolve(cells.movedim(-1, 1), weight.movedim(-1, 1), self.proj.bias)

    def units(self, video: Tensor, kept: Tensor, unit_grid: tuple[int, ...]) -> Tensor:
        """Compute the tokens of the mask units that are kept, at the cost of these alone.

        The others count as zeros, even where a kernel reaches into them from a kept unit. The
        pixels that the kernel sees of each unit are gathered, and one matrix product does the rest.

        Args:
            video: float ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            kept: distinct indices of units in raster order, int64 ``(B, K)``.
            unit_grid: number of mask units along each axis.

        Returns:
            ``(B, K, t, h, w, C)``, images ``(B, K, h, w, C)``: each unit in raster order.
        """
        axes = len(unit_grid)
        pixels = self._pixels_seen(video, kept, unit_grid)  # (B, 3, K, T, H, W)
        for a, (k, s) in enumerate(zip(self.proj.kernel_size, self.proj.stride, strict=True)):
            pixels = pixels.unfold(3 + a, k, s)  # (B, 3, K, t, h, w, kt, kh, kw) at last
        pixels = pixels.movedim(1, axes + 2).flatten(axes + 2)  # (B, K, t, h, w, 3*kt*kh*kw)
        return linear(pixels, self.proj.weight.flatten(1), self.proj.bias)

    def _pixels_seen(self, video: Tensor, kept: Tensor, unit_grid: tuple[int, ...]) -> Tensor:
        """The pixels that the kernel sees of each kept unit, ``(B, 3, K, T, H, W)``.

        Those of hidden units and beyond the border are zero.
        """
        (batch, num_kept), axes = kept.shape, len(unit_grid)
        # Index of each pixel in the video, and of its unit in the grid with a border around it.
        pixel = unit = torch.zeros([1] * (2 + axes), dtype=torch.int64, device=kept.device)
        geometry = (self.proj.kernel_size, self.proj.stride, self.proj.padding, unit_grid)
        for a, (place, k, s, p, units) in enumerate(
            zip(places(kept, unit_grid), *geometry, strict=True)
        ):
            length = video.shape[2 + a]
            size = length // units
            margin = torch.arange(-int(p), size + k - s - int(p), device=kept.device)
            shape = [-1 if i == a else 1 for i in range(axes)]
            along = (place[..., None] * size + margin).view(batch, num_kept, *shape)
            pixel = pixel * length + along.clamp(0, length - 1)
            unit = unit * (units + 2) + (along // size).clamp(-1, units) + 1
        seen = torch.zeros(batch, *unit_grid, dtype=torch.bool, device=kept.device)
        seen = F.pad(seen.flatten(1).scatter(1, kept, True).view_as(seen), [1, 1] * axes)
        seen = seen.flatten(1).gather(1, unit.flatten(1))  # (B, K*T*H*W)
        index = pixel.flatten(1)[:, None].expand(-1, video.shape[1], -1)
        pixels = video.flatten(2).gather(2, index)  # (B, 3, K*T*H*W)
        return pixels.masked_fill(~seen[:, None], 0).unflatten(2, pixel.shape[1:])


def _numbers_last(cells: Tensor, axes: int) -> Tensor:
    """``(B, 3, T, t, H, h, W, w)``, cells of t*h*w pixels, to ``(B, T, H, W, 3*t*h*w)``."""
    grid, cell = [2 + 2 * a for a in range(axes)], [3 + 2 * a for a in range(axes)]
    return cells.permute(0, *grid, 1, *cell).flatten(axes + 1)


def places(index: Tensor, grid: tuple[int, ...]) -> list[Tensor]:
    """Coordinates along each axis of a grid, of indices in raster order, all int64 ``(B, K)``."""
    coordinates = []
    for size in reversed(grid):
        coordinates.insert(0, index % size)
        index = index // size
    return coordinates
