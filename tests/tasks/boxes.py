"""Batches of boxes for a detector, and the data module that a trainer takes them from."""

from pathlib import Path

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.ava.box_table import BoxTable

NAMES, IDS = ("sit", "stand", "talk"), (1, 5, 80)

# In the first video someone sits, in the second stands and talks; a third keyframe has nobody.
TRUTH = BoxTable(
    file=Path("truth.csv"),
    names=("a", "b"),
    video=np.array([0, 1, 1, 1]),
    second=np.array([902.0, 903, 903, 904]),
    boxes=np.array([[0.1, 0.2, 0.5, 0.9]] * 3 + [[np.nan] * 4]),
    action=np.array([1, 5, 80, -1]),
    score=np.array([1, np.nan, 3, np.nan]),
    row=np.arange(1, 5),
)


def make_batch(boxes=3):
    """Two clips, the first with the second of the boxes and the other with all others."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(boxes, 2, 2, generator=generator).sort(1).values
    return {
        "video": torch.randint(256, (2, 3, 4, 64, 64), dtype=torch.uint8, generator=generator),
        "seed": torch.tensor([3, 4]),
        "video_id": torch.tensor([0, 1]),
        "second": torch.tensor([902.0, 903.0], dtype=torch.float64),
        "boxes": corners.flatten(1),
        "box_clip": torch.tensor([1, 0, 1, 1])[:boxes],
        "box_labels": torch.randint(2, (boxes, 3), generator=generator).float(),
        "box_score": torch.linspace(0.5, 1, boxes),
        "boxes_original": torch.tensor([[0.1, 0.2, 0.5, 0.9]]).repeat(boxes, 1),
        "skipped": torch.tensor([0, 2]),
        "failed": [],
    }


def first_keyframe(failed=()):
    """The batch with one box alone, that of the first video."""
    batch = make_batch()
    return batch | {k: v[1:2] for k, v in batch.items() if "box" in k} | {"failed": list(failed)}


class BoxData(LightningDataModule):
    """One batch for each split, and the ground truth of the same three keyframes."""

    batch_size, repeats = 2, 1
    eval_short_side = eval_pad = None

    def __init__(self, batch=None, names=NAMES, ids=IDS, evaluated=IDS):
        super().__init__()
        self.batch = batch or make_batch()
        self.class_names, self.action_ids, self.evaluated_action_ids = names, ids, evaluated
        self.manifests = {"train": None, "val": None, "test": None}

    def ground_truth(self, split):
        return TRUTH

    def train_dataloader(self):
        return DataLoader([self.batch], batch_size=None, collate_fn=dict)

    val_dataloader = test_dataloader = train_dataloader
