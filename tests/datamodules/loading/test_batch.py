import torch

from datamodules.loading.batch import gather, join_items


def test_joining_moves_channels_without_copying():
    video = torch.arange(2 * 4 * 5 * 6 * 3).to(torch.uint8).view(2, 4, 5, 6, 3)
    items = [
        {"video": video[:1], "label": torch.tensor([0]), "failed": []},
        {"video": video[1:], "label": torch.tensor([1]), "failed": [(7, 1, "bad")]},
    ]
    batch = join_items(*gather(items, (3, 4, 5, 6, 3)))
    assert batch["video"].shape == (2, 3, 4, 5, 6)
    assert torch.equal(batch["video"], video.movedim(-1, 1))
    assert batch["video"].is_contiguous(memory_format=torch.channels_last_3d)
    assert batch["failed"] == [(7, 1, "bad")]
