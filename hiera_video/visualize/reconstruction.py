"""Pictures of the input of a masked autoencoder and of its reconstruction."""

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hiera_video.augment.basic import Normalize
from hiera_video.models.mae import MAEOutput, MaskedAutoencoderHiera, predicted_places
from hiera_video.models.network_input import network_input
from hiera_video.models.targets import HOGTarget
from hiera_video.visualize.gradients import histogram_pictures

HIDDEN = 96  # grey level of masked pixels
GAP = 4  # pixels between pictures
CAPTION, FONT = 100, 11  # pixels: width of the column of captions, height of its letters
LARGEST_MOVING = 128  # pixels: side of a clip in an animation


def reconstruction_pictures(
    mae: MaskedAutoencoderHiera, video: Tensor, out: MAEOutput, normalize: Normalize
) -> Tensor:
    """The video, the masked video, its reconstruction and the prediction alone.

    Only the frames that the model predicts are shown, every ``patch_stride[0]``-th. The visible
    parts of the reconstruction are the pixels of the video itself. If the target is normalised
    patch by patch, its hidden patches have their true mean and deviation, which the model does not
    know. In the prediction alone, visible parts are grey and nothing is taken from the video.

    If the target is histograms of gradients, these are drawn in place of pixels, and those of the
    whole video are a further picture, the third.

    Args:
        mae: the model.
        video: its input, normalised float ``(B, 3, T, H, W)``.
        out: its output for that input.
        normalize: the normalisation of the input, which is undone.

    Returns:
        uint8 ``(B, 4 pictures, T', H, W, 3)`` with T' shown frames; 5 pictures of histograms.
    """
    step = mae.patch_stride[0] if mae.is_video else 1

    def shown(video: Tensor) -> Tensor:
        return normalize.invert(video)[:, :, ::step]  # (B, 3, T', H, W)

    pixels, original = network_input(mae, video), shown(video)
    visible = visible_pixels(mae, out.mask, video.shape[2:])[:, :, ::step]
    masked = torch.where(visible, original, HIDDEN)
    if isinstance(mae.target, HOGTarget):
        where = predicted_places(out)
        of_video, painted = (
            _drawn(mae.target.with_predictions(pixels, where, histograms))
            for histograms in (out.target, out.prediction)
        )
        pictures = [original, masked, of_video, painted, torch.where(visible, HIDDEN, painted)]
    else:
        painted, predicted = (
            shown(mae.reconstruct(pixels, out, true_statistics).view_as(video))
            for true_statistics in (True, False)
        )
        pictures = [original, masked, painted, torch.where(visible, HIDDEN, predicted)]
    rows = torch.stack(pictures, dim=1)  # (B, R, 3, T', H, W)
    return rows.permute(0, 1, 3, 4, 5, 2)  # (B, R pictures, T', H, W, 3)


def _drawn(histograms: Tensor) -> Tensor:
    """Pictures uint8 ``(B, 3, T', H, W)`` of histograms ``(B, 3, T', 9, H/8, W/8)``."""
    return histogram_pictures(histograms.transpose(1, 2)).transpose(1, 2)


def patch_errors(mae: MaskedAutoencoderHiera, out: MAEOutput) -> Tensor:
    """The loss of each patch: mean squared error of its numbers, as the model predicts them.

    Args:
        mae: the model.
        out: its output.

    Returns:
        float32 ``(B, T', patches high, patches wide)``, NaN where nothing is predicted; the mean of
        the others is the loss. T' is 1 for images.
    """
    errors = (out.prediction.float() - out.target).square().mean(2)  # (B, M)
    everywhere = errors.new_full((len(errors), mae.num_predictions), float("nan"))
    grid = mae.prediction_grid[-2:]
    return everywhere.scatter(1, predicted_places(out), errors).view(len(errors), -1, *grid)


def row_captions(mae: MaskedAutoencoderHiera) -> list[str]:
    """What each of the `reconstruction_pictures` shows."""
    if isinstance(mae.target, HOGTarget):
        kinds = ["histograms of gradients of the clip", "those hidden as predicted"]
    elif getattr(mae.target, "normalized", False):
        kinds = ["prediction, with true mean and deviation of each patch"]
    else:
        kinds = ["reconstruction"]
    return ["clip", "seen by the model", *kinds, "prediction alone"]


def picture_sheet(rows: Tensor, captions: Sequence[str] = ()) -> Tensor:
    """Lay clips out in rows, one column per frame.

    Args:
        rows: uint8 ``(B, R, T', H, W, 3)``: B times R clips, such as `reconstruction_pictures`.
        captions: for each of the R clips, written at the left; none: there is no such column.

    Returns:
        uint8 ``(3, B * R * (H + 4), T' * (W + 4))``, and 100 pixels wider with captions; 4 is the
        gap.
    """
    rows = F.pad(rows, (0, 0, 0, GAP, 0, GAP), value=255)  # right of W, below H
    b, r, t, h, w, c = rows.shape
    sheet = rows.permute(5, 0, 1, 3, 2, 4).reshape(c, b * r * h, t * w)  # (3, B*R*H, T'*W)
    if not captions:
        return sheet
    column = torch.cat([_written(text, h) for text in captions], dim=1)  # (3, R*H, 100)
    return torch.cat([column.repeat(1, b, 1).to(sheet.device), sheet], dim=2)


def _written(text: str, height: int) -> Tensor:
    """Text in lines that fit the column of captions, uint8 ``(3, height, 100)``."""
    font = ImageFont.load_default(FONT)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= CAPTION - GAP:
            lines[-1] = longer
        else:
            lines.append(word)
    picture = Image.new("RGB", (CAPTION, height), "white")
    ImageDraw.Draw(picture).multiline_text((0, 0), "\n".join(lines), "black", font, spacing=1)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # (3, height, 100)


def visible_pixels(mae: MaskedAutoencoderHiera, mask: Tensor, size: torch.Size) -> Tensor:
    """The pixels that the model saw.

    Args:
        mae: the model.
        mask: bool ``(B, U)``, True for each mask unit that it saw.
        size: T, H and W of the input.

    Returns:
        bool ``(B, 1, T, H, W)``.
    """
    units = (1,) * (3 - len(mae.unit_grid)) + tuple(mae.unit_grid)
    grid = mask.view(len(mask), 1, *units).float()  # (B, 1, T/2, H/32, W/32)
    return F.interpolate(grid, size=size, mode="nearest") > 0


def to_image(picture: Tensor) -> Image.Image:
    """uint8 ``(3, H, W)`` as a PIL image."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())


def moving_pictures(rows: Tensor, captions: Sequence[str] = (), milliseconds: int = 250) -> bytes:
    """Animate clips: one below the other as in a `picture_sheet`, the B of them side by side.

    Clips with more than 128 pixels a side are shrunk by the next whole number.

    Args:
        rows: uint8 ``(B, R, T', H, W, 3)``, such as `reconstruction_pictures`.
        captions: for each of the R clips, written at the left; none: there is no such column.
        milliseconds: duration of a frame.

    Returns:
        The bytes of a GIF with T' frames, which loops for ever.
    """
    frames = _shrunk(rows).permute(2, 1, 0, 3, 4, 5)  # (T', R, B, H, W, 3)
    first, *others = [to_image(picture_sheet(frame[None], captions)) for frame in frames]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return file.getvalue()


def _shrunk(rows: Tensor) -> Tensor:
    """uint8 ``(B, R, T', H, W, 3)``, with H and W of at most 128."""
    factor = math.ceil(max(rows.shape[3:5]) / LARGEST_MOVING)
    if factor == 1:
        return rows
    flat = rows.flatten(0, 2).permute(0, 3, 1, 2)  # (B*R*T', 3, H, W)
    smaller = F.avg_pool2d(flat.float(), factor).round().byte()
    return smaller.permute(0, 2, 3, 1).unflatten(0, rows.shape[:3])
