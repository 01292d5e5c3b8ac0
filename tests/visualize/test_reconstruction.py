import io

import torch
from PIL import Image

from hiera_video import create_mae
from hiera_video.augment.basic import Normalize
from hiera_video.visualize.reconstruction import (
    CAPTION,
    GAP,
    HIDDEN,
    moving_pictures,
    picture_sheet,
    reconstruction_pictures,
    row_captions,
)
from tests.models.small import tiny_mae


def test_sheet_shows_video_mask_reconstruction_and_prediction():
    torch.manual_seed(0)
    mae = create_mae(
        "hiera_tiny_16x224",
        input_size=(4, 64, 64),
        embed_dim=8,
        decoder_depth=1,
        stages=(1, 1, 1, 1),
    )
    normalize = Normalize()
    pixels = torch.randint(100, 256, (2, 3, 4, 64, 64), dtype=torch.uint8)
    video = normalize(pixels)
    out = mae(video, mask_ratio=0.5)
    perfect = out._replace(prediction=out.target)
    pictures = reconstruction_pictures(mae, video, perfect, normalize)
    sheet = picture_sheet(pictures, row_captions(mae))
    side = 64 + GAP
    assert sheet.shape == (3, 2 * 4 * side, CAPTION + 2 * side)
    assert sheet.dtype == torch.uint8
    # clip 1, frame 1 of the shown ones is frame 2 of the video
    tile = [
        sheet[:, (4 + row) * side :][:, :64, CAPTION + side :][:, :, :64].int() for row in range(4)
    ]
    frame = pixels[1, :, 2].int()
    assert torch.equal(tile[0], frame)
    assert (tile[2] - frame).abs().max() <= 1  # perfect predictions give the video back
    units = out.mask[1].view(2, 2, 2)[1]  # (h, w) of the second two frames
    for i in range(2):
        for j in range(2):
            cell = (slice(None), slice(32 * i, 32 * i + 32), slice(32 * j, 32 * j + 32))
            assert torch.equal(
                tile[1][cell], frame[cell] if units[i, j] else torch.full_like(frame[cell], HIDDEN)
            )
            assert (tile[3][cell] == HIDDEN).all() == bool(units[i, j])
    for row in range(8):  # something is written beside each
        assert (sheet[:, row * side : (row + 1) * side, :CAPTION] < 128).any()


def test_the_prediction_alone_takes_nothing_from_hidden_patches():
    mae = tiny_mae()
    pixels = torch.randint(0, 256, (1, 3, 4, 64, 64), dtype=torch.uint8)
    normalize = Normalize()
    out = mae(normalize(pixels), mask_ratio=0.5)
    pictures = reconstruction_pictures(mae, normalize(pixels), out, normalize)
    others = reconstruction_pictures(mae, normalize(pixels // 4), out, normalize)
    assert not torch.equal(pictures[:, 2], others[:, 2])
    assert torch.equal(pictures[:, 3], others[:, 3])


def test_moving_pictures_play_clips_side_by_side():
    rows = torch.zeros(2, 4, 3, 300, 224, 3, dtype=torch.uint8)  # frames of 100 x 74 when shrunk
    rows[1, 2, 1] = 255
    with Image.open(io.BytesIO(moving_pictures(rows, ["a", "b", "c", "d"], 250))) as picture:
        assert picture.size == (CAPTION + 2 * (74 + GAP), 4 * (100 + GAP))
        assert (getattr(picture, "n_frames", 1), picture.info["loop"]) == (3, 0)
        middles = []
        for frame in range(3):
            picture.seek(frame)
            pixels = picture.convert("L")
            middles.append(pixels.getpixel((CAPTION + 74 + GAP + 37, 2 * (100 + GAP) + 50)))
    assert middles == [0, 255, 0]
