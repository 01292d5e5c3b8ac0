"""What the benchmark of persons measures with, and the pictures that it writes."""

import json

import numpy as np

from benchmarks.persons import boxes_of, found_and_right, write_persons
from datamodules import CocoDataModule
from datamodules.synthetic_ava import OFFSET, SyntheticAVADataModule


def test_each_person_is_found_once():
    person = [0.1, 0.1, 0.5, 0.5]
    truth = {("a", 1): np.array([person, [0.6, 0.6, 0.9, 0.9]]), ("b", 2): np.array([person])}
    twice_and_elsewhere = np.array([person, [0.1, 0.1, 0.5, 0.48], [0.0, 0.7, 0.1, 0.8]])
    assert found_and_right(truth, {("a", 1): twice_and_elsewhere}) == (1 / 3, 1 / 3)
    assert found_and_right(truth, truth) == (1, 1)


def test_keyframes_become_pictures_in_cocos_form(tmp_path):
    data = SyntheticAVADataModule(tmp_path / "videos", (2, 1, 1), 2, 64)
    data.prepare_data()
    write_persons(data, tmp_path / "coco")
    words = {"size": (64, 64), "scale": (1.0, 1.0), "batch_size": 2}  # nothing is cropped
    pictures = CocoDataModule(tmp_path / "coco", "train", "val", **words)
    pictures.setup("fit")
    (batch,) = pictures.train_dataloader()
    truth = boxes_of(data.root / "annotations/ava_train_v2.2.csv", OFFSET)
    assert batch["video"].shape == (2, 3, 1, 64, 64)
    written = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    boxes = np.array([a["bbox"] for a in written["annotations"]]) / 64
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(boxes, np.concatenate([*truth.values()]), atol=6e-4)
    assert len(batch["boxes"]) == len(boxes)
    assert set(batch["box_labels"].tolist()) == {1}
