import functools
import json

import numpy as np
import pytest
from PIL import Image

from datamodules import SyntheticCocoDataModule
from datamodules.coco.segmentation import draw
from datamodules.errors import VideoDecodeError
from hiera_video import cli, create_mask_rcnn, load
from hiera_video.augment import Augmentation
from hiera_video.callbacks import InstanceFile
from hiera_video.errors import CheckpointError, ChoiceError
from hiera_video.predicting.instances import InstancePredictor, load_instances
from hiera_video.tasks import InstanceSegmentationTask
from tests.quick_trainer import quick_trainer, without_advice
from tests.trained_models import write_run
from tests.white_squares import FindsWhite, picture, predictor, write_video


def test_an_object_of_a_picture(tmp_path):
    pixels = picture(40, size=(64, 128))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    objects = predictor().predict(tmp_path / "a.png")
    assert objects.labels == ["square"]
    assert objects.scores.tolist() == pytest.approx([0.9])
    assert objects.boxes.tolist() == [[40, 20, 56, 36]]
    assert objects.masks.dtype == bool
    assert np.array_equal(objects.masks[0], pixels[..., 0] == 255)
    assert predictor().predict(tmp_path / "a.png", min_score=0.2).labels == ["square", "blob"]


def test_boxes_and_masks_are_in_pixels_of_the_file(tmp_path):
    pixels = picture(80, 40, size=(160, 240)).repeat(2, axis=0).repeat(2, axis=1)  # 320 x 480
    objects = predictor().in_picture(pixels)
    np.testing.assert_allclose(objects.boxes, [[160, 80, 192, 112]], atol=5)  # a fifth of the size
    assert objects.masks.shape == (1, 320, 480)
    x1, y1, x2, y2 = objects.boxes[0].round().astype(int)
    assert objects.masks[0, y1:y2, x1:x2].all()
    assert objects.masks.sum() == (x2 - x1) * (y2 - y1)
    upright = predictor().in_picture(np.rot90(pixels))  # memory in another order
    assert upright.masks.shape == (1, 480, 320)


def test_a_picture_without_objects():
    objects = predictor().in_picture(picture(None))
    assert objects.labels == []
    assert objects.boxes.shape == (0, 4)
    assert objects.masks.shape == (0, 64, 128)


def test_a_video(tmp_path):
    video = write_video(tmp_path / "a.mp4", [10] * 15 + [None] * 15 + [60] * 30)
    model = predictor()
    assert model.predict(video).boxes[0, 0] == pytest.approx(60, abs=1)
    assert model.predict(video, second=0.1).boxes[0, 0] == pytest.approx(10, abs=1)
    assert model.predict(video, second=0.6).labels == []
    with pytest.raises(ChoiceError, match="there is no second 3"):
        model.predict(video, second=3)
    frames = list(model.along(video))
    assert [len(frame.objects.labels) for frame in frames] == [1] * 15 + [0] * 15 + [1] * 30
    assert [frame.start for frame in frames] == pytest.approx(np.arange(60) / 30, abs=1e-4)
    assert [frame.end for frame in frames[:-1]] == [frame.start for frame in frames[1:]]


def test_a_stride(tmp_path):
    video = write_video(tmp_path / "a.mp4", [10] * 15 + [None] * 15 + [60] * 30)
    parts = list(predictor().along(video, stride=0.5))
    assert [len(part.objects.labels) for part in parts] == [1, 0, 1, 1]
    assert [part.start for part in parts] == pytest.approx([0, 0.5, 1, 1.5], abs=1e-4)
    assert [part.end for part in parts] == pytest.approx([0.5, 1, 1.5, 2], abs=1e-4)
    assert len(list(predictor().along(video, stride=0.01))) == 60


def test_what_is_wrong(tmp_path):
    video = write_video(tmp_path / "a.mp4", [10] * 3)
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(VideoDecodeError, match="not one of the pictures"):
        predictor().predict(tmp_path / "b.jpg")
    for stride in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="stride must be a number of seconds above 0"):
            next(predictor().along(video, stride))
    with pytest.raises(ValueError, match=r"min_score must be in \[0, 1\], not 80"):
        predictor().predict(video, min_score=80)
    with pytest.raises(ValueError, match=r"size must be multiples of \(32, 32\), not \(64, 100\)"):
        InstancePredictor(FindsWhite(), ["square"], (64, 100))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data of shapes, a checkpoint, and the results of its test."""
    folder = tmp_path_factory.mktemp("shapes")
    data = SyntheticCocoDataModule(
        folder, (4, 2, 4), 80, size=(64, 64), scale=(1.0, 1.0), batch_size=4
    )
    data.prepare_data()
    small = {"embed_dim": 16, "stages": (1, 1, 1, 1), "width": 24, "box_features": 48}
    model = functools.partial(create_mask_rcnn, name="hiera_tiny_224", **small)
    task = InstanceSegmentationTask(model, augment=Augmentation(horizontal_flip=False))
    with without_advice():
        trainer = quick_trainer(max_epochs=1, callbacks=[InstanceFile(folder / "found.json")])
        trainer.fit(task, datamodule=data)
        trainer.test(task, datamodule=data, verbose=False)
    trainer.save_checkpoint(folder / "a.ckpt")
    return data, folder / "a.ckpt", json.loads((folder / "found.json").read_text())


def test_there_are_no_maps_of_objects(trained, tmp_path, monkeypatch, capsys):
    words = ["explain", trained[1], trained[1], "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["hiera-video", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "an instance segmentation; `explain` takes classifiers" in capsys.readouterr().err


def test_load_gives_the_objects_of_the_test(trained):
    data, checkpoint, rows = trained
    model = load(checkpoint, "cpu")
    assert isinstance(model, InstancePredictor)
    assert (model.class_names, model.category_ids) == (("disc", "square", "triangle"), (3, 7, 12))
    number_of = dict(zip(model.class_names, model.category_ids, strict=True))
    count = 0
    for image in data.ground_truth("test")["images"]:
        objects = model.predict(data.image_folder("test") / image["file_name"], min_score=0)
        expected = [row for row in rows if row["image_id"] == image["id"]]
        assert [number_of[label] for label in objects.labels] == [
            row["category_id"] for row in expected
        ]
        for i, row in enumerate(expected):
            x, y, w, h = row["bbox"]
            np.testing.assert_allclose(objects.boxes[i], [x, y, x + w, y + h], atol=1e-3)
            assert objects.scores[i] == pytest.approx(row["score"], abs=1e-5)
            mask = draw(row["segmentation"], image["height"], image["width"])
            assert (objects.masks[i] != mask).mean() < 1e-3
        count += len(expected)
    assert count > 10


def test_a_run_of_another_kind(tmp_path):
    write_run(tmp_path)
    with pytest.raises(CheckpointError, match="holds a classifier; give a run of instance"):
        load_instances(tmp_path)
