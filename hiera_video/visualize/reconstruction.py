"""Pictures of the input of a masked autoencoder and of its reconstruction."""

import io

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hiera_video.augment.basic import Normalize
from hiera_video.models.mae import MAEOutput, MaskedAutoencoderHiera

HIDDEN = 96  # grey level of masked pixels
GAP = 4  # pixels between pictures


def reconstruction_sheet(
    mae: MaskedAutoencoderHiera, video: Tensor, out: MAEOutput, normalize: Normalize
) -> Tensor:
    """Show video, masked video and reconstruction in three rows per clip, one column per frame.

    Only the frames that the model predicts are shown, every ``patch_stride[0]``-th. The visible
    parts of the reconstruction are the pixels of the video itself.

    Args:
        mae: the model.
        video: its input, normalised float ``(B, 3, T, H, W)``.
        out: its output for that input.
        normalize: the normalisation of the input, which is undone.

    Returns:
        uint8 ``(3, B * 3 * (H + 4), T' * (W + 4))`` with T' shown frames; 4 is the gap.
    """
    step = mae.patch_stride[0]
    original = normalize.invert(video)[:, :, ::step]  # (B, 3, T', H, W)
    painted = normalize.invert(mae.reconstruct(video, out))[:, :, ::step]
    visible = visible_pixels(mae, out.mask, video.shape[2:])[:, :, ::step]
    masked = torch.where(visible, original, HIDDEN)
    rows = torch.stack([original, masked, painted], dim=1)  # (B, 3 rows, 3, T', H, W)
    rows = F.pad(rows, (0, GAP, 0, GAP), value=255)
    b, r, c, t, h, w = rows.shape
    return rows.permute(2, 0, 1, 4, 3, 5).reshape(c, b * r * h, t * w)  # (3, B*rows*H, T'*W)


def visible_pixels(mae: MaskedAutoencoderHiera, mask: Tensor, size: torch.Size) -> Tensor:
    """The pixels that the model saw.

    Args:
        mae: the model.
        mask: bool ``(B, U)``, True for each mask unit that it saw.
        size: T, H and W of the input.

    Returns:
        bool ``(B, 1, T, H, W)``.
    """
    grid = mask.view(len(mask), 1, *mae.unit_grid).float()  # (B, 1, T/2, H/32, W/32)
    return F.interpolate(grid, size=size, mode="nearest") > 0


def to_image(picture: Tensor) -> Image.Image:
    """uint8 ``(3, H, W)`` as a PIL image."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())


def clip_gif(sheet: Tensor, frames: int, milliseconds: int = 66) -> bytes:
    """Turn the columns of a `reconstruction_sheet` into an animated GIF.

    Args:
        sheet: uint8 ``(3, height, frames * width)``.
        frames: columns of the sheet.
        milliseconds: duration of a frame.

    Returns:
        The bytes of the file, which loops for ever.
    """
    images = [to_image(column) for column in sheet.chunk(frames, dim=2)]
    file = io.BytesIO()
    images[0].save(
        file, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0
    )
    return file.getvalue()
