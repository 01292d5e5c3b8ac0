import torch

from hiera_video import create_mae
from hiera_video.augment.basic import Normalize
from hiera_video.visualize.reconstruction import GAP, HIDDEN, reconstruction_sheet


def test_sheet_shows_video_mask_and_reconstruction():
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
    sheet = reconstruction_sheet(mae, video, perfect, normalize)
    side = 64 + GAP
    assert sheet.shape == (3, 2 * 3 * side, 2 * side)
    assert sheet.dtype == torch.uint8
    # clip 1, frame 1 of the shown ones is frame 2 of the video
    tile = [
        sheet[:, (3 + row) * side : (3 + row) * side + 64, side : side + 64].int()
        for row in range(3)
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
