import numpy as np
import pytest
import torch
from torch import nn

from datamodules.errors import DatasetError
from datamodules.synthetic import write_h264
from datamodules.video.decoding import VideoFile
from hiera_video import create_mask_rcnn
from hiera_video.errors import CheckpointError
from hiera_video.models.names import IMAGE_MEAN, IMAGE_STD
from hiera_video.predicting import torchvision_detectors
from hiera_video.predicting.persons import (
    BoxFile,
    InstancePersons,
    PersonDetector,
    WholeFrame,
    person_source,
)
from hiera_video.predicting.torchvision_detectors import load_detector
from hiera_video.weights.description import Description
from hiera_video.weights.portable import write_model
from tests import hall
from tests.trained_models import write_run
from tests.white_squares import picture, predictor, write_video

SMALL = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds and a half, each half second of another brightness."""
    path = tmp_path_factory.mktemp("persons") / "hall.mp4"
    frames = np.empty((75, 32, 64, 3), np.uint8)
    frames[:] = np.arange(75)[:, None, None, None] // 15 * 50
    write_h264(path, frames)
    return path


def test_one_box_around_everything_at_each_whole_second(video):
    source = WholeFrame()
    with VideoFile(video) as file:
        assert source.seconds(str(video), file.duration) == [0, 1, 2]
        (persons,) = source.at(file, [1])
    assert persons.boxes.tolist() == [[0, 0, 1, 1]]
    assert persons.scores.tolist() == [1]
    assert source.seconds("", 3.0) == [0, 1, 2]
    assert source.seconds("", 0.2) == [0]


@pytest.mark.parametrize("name", ["hall", "hall.mp4"])
def test_a_file_of_boxes(tmp_path, video, name):
    rows = [
        f"{name},0002,0.5,0.1,0.9,0.8,,0.95",
        "another,0001,0.1,0.1,0.9,0.8,,0.99",
        f"{name},0000,0.1,0.2,0.3,0.4,12,0.85",
        f"{name},0000,0.1,0.2,0.3,0.4,80,0.85",  # the same person, another action
        f"{name},0000,0.101,0.2,0.3,0.4,,0.9",
        f"{name},0000,0.2,0.2,0.3,0.4,,0.5",
    ]
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("\n".join(rows) + "\n")
    source = BoxFile(boxes, min_score=0.8)
    with VideoFile(video) as file:
        assert source.seconds(str(video), file.duration) == [0, 1, 2]
        zero, one, two = source.at(file, [0, 1, 2])
    assert zero.boxes.tolist() == [[0.1, 0.2, 0.3, 0.4], [0.101, 0.2, 0.3, 0.4]]
    assert zero.scores.tolist() == [0.85, 0.9]
    assert one.boxes.shape == (0, 4)
    assert two.boxes.tolist() == [[0.5, 0.1, 0.9, 0.8]]


def test_seconds_after_the_end_are_said(tmp_path, video, caplog):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("hall,2,0.1,0.1,0.9,0.8,,0.9\nhall,902,0.1,0.1,0.9,0.8,,0.9\n")
    assert BoxFile(boxes).seconds("hall.mp4", 2.5) == [0, 1, 2]
    assert "1 seconds lie after the end of hall.mp4" in caplog.text


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("hall,902,0.1,0.1,0.9,0.8,,0.9", "has seconds 902 to 902 in hall.mp4, which lasts 2.5 s"),
        (
            "hell,1,0.1,0.1,0.9,0.8,,0.9\nhull,1,0.1,0.1,0.9,0.8,,0.2\nhall,1",
            "has nobody in hall.mp4; it has persons in hell, hull$",
        ),
        ("hall,1", "has nobody in hall.mp4; it has no persons at all"),
        (
            "hall,1,0.1,0.1,0.9,0.8,,0.2\nhall,1,0.1,0.1,0.9,0.8,,0.25",
            "nobody in hall.mp4 has persons.min_score=0.8; the highest score is 0.25",
        ),
    ],
)
def test_a_file_without_anybody_in_this_video(tmp_path, rows, words):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(rows)
    with pytest.raises(DatasetError, match=rf"boxes\.csv: {words}"):
        BoxFile(boxes, 0.8).seconds("hall.mp4", 2.5)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("hall,1,0.9,0.1,0.1,0.8,,0.9", "row 1: the box .* is empty"),
        ("hall,1,0.1,0.1,0.2,0.8,,0.9\nhall,1,0.1,0.1,0.2,1.8,,0.9", r"row 2: .* not within"),
        ("hall,1,0.1,0.1,0.2,0.8,12,3.5", "row 1: expected a person score"),
        ("hall,1,0.1,0.1,0.2,0.8,,3", "row 1: expected a person score"),
        ("hall,1,0.1,0.1,0.2,0.8,12", "row 1: expected a person score"),
        ("hall,1.5,0.1,0.1,0.2,0.8,,0.9", "row 1: expected a whole second, not 1.5"),
    ],
)
def test_wrong_rows(tmp_path, rows, words):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(rows)
    with pytest.raises(DatasetError, match=words):
        person_source(str(boxes))


@pytest.mark.parametrize("people", [(0, 1), (1, 2), (0, 0), (3, 117)])
def test_numbers_of_persons_are_no_scores(tmp_path, people):
    boxes = tmp_path / "ava_val_v2.2.csv"
    boxes.write_text("".join(f"hall,1,0.1,0.1,0.2,0.8,12,{person}\n" for person in people))
    with pytest.raises(DatasetError, match=r"v2\.2\.csv: its eighth column looks like .*write 1"):
        person_source(str(boxes))


@pytest.mark.parametrize(("action", "scores"), [("12", (1, 1)), ("", (0, 1)), ("12", (1, 0.5))])
def test_whole_numbers_that_are_scores(tmp_path, action, scores):
    boxes = tmp_path / "boxes.csv"
    rows = [f"hall,{i},0.1,0.1,0.2,0.8,{action},{score}\n" for i, score in enumerate(scores)]
    boxes.write_text("".join(rows))
    person_source(str(boxes))


def test_what_boxes_may_be():
    assert isinstance(person_source("full_frame"), WholeFrame)
    with pytest.raises(DatasetError, match=r"nowhere\.csv: no such file; boxes= is detector, full"):
        person_source("nowhere.csv")
    with pytest.raises(DatasetError, match="did you mean full_frame"):
        person_source("fullframe")
    with pytest.raises(ValueError, match="min_score must be in"):
        person_source("full_frame", min_score=2)
    with pytest.raises(ValueError, match="no detector 'fasterrcnn'; did you mean fasterrcnn_"):
        person_source("detector", "fasterrcnn")


class Brightness(nn.Module):
    """Finds four things in a frame; the score of the first is the frame's brightness."""

    def forward(self, images):
        (image,) = images
        height, width = image.shape[1:]
        boxes = [[0, 0, width / 2, height], [-5, 4, 8, height + 9], [3, 3, 3, 9], [1, 1, 9, 9]]
        scores = [float(image.mean()), 0.9, 0.9, 0.9]
        labels = [1, 1, 1, 3]
        return [
            {
                "boxes": torch.tensor(boxes),
                "scores": torch.tensor(scores),
                "labels": torch.tensor(labels),
            }
        ]


def test_detector_sees_the_frame_of_the_second(video):
    source = PersonDetector(Brightness(), min_score=0.3)
    with VideoFile(video) as file:
        dark, bright = source.at(file, [0, 2])
    # Another label, and a box without width, are no persons; what leaves the frame is cut.
    assert dark.boxes.tolist() == [[0, 0.125, 0.125, 1]]
    assert bright.boxes.tolist() == [[0, 0, 0.5, 1], [0, 0.125, 0.125, 1]]
    assert bright.scores[0] == pytest.approx(200 / 255, abs=0.02)


@pytest.fixture(scope="module")
def detector_weights(tmp_path_factory):
    from torchvision.models import get_model

    path = tmp_path_factory.mktemp("weights") / "detector.pth"
    torch.manual_seed(0)
    torch.save(get_model(SMALL, weights=None, weights_backbone=None).state_dict(), path)
    return path


def test_a_detector_of_torchvision_from_a_local_file(detector_weights, video):
    source = person_source("detector", SMALL, detector_weights, min_score=0.0)
    with VideoFile(video) as file:
        (persons,) = source.at(file, [1])
    saved = torch.load(detector_weights, weights_only=True)
    loaded = source.model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in saved.items())
    assert ((persons.boxes >= 0) & (persons.boxes <= 1)).all()


def test_weights_of_another_detector(detector_weights, tmp_path):
    with pytest.raises(CheckpointError, match="not the weights of retinanet_resnet50_fpn"):
        load_detector("retinanet_resnet50_fpn", detector_weights)
    with pytest.raises(CheckpointError, match="no such file"):
        load_detector(SMALL, tmp_path / "none.pth")


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    asked = []

    def offline(url, path, show, sha256):
        asked.append(sha256)
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision_detectors, "download", offline)
    with pytest.raises(CheckpointError) as error:
        person_source("detector", SMALL)
    assert asked == ["a79551df"]  # as the name of torchvision's file has it
    text = str(error.value)
    assert "\n" not in text
    assert "no route to host" in text
    assert "boxes=FILE.csv" in text
    assert "boxes=full_frame" in text
    assert str(tmp_path / "hub/checkpoints") in text


def test_persons_of_an_instance_segmentation(tmp_path):
    source = InstancePersons(predictor(("person", "dog")), 0.5, "RUN")
    persons = source.in_picture(picture(40))
    np.testing.assert_allclose(persons.boxes, [[40 / 128, 20 / 64, 56 / 128, 36 / 64]])
    assert persons.scores == pytest.approx([0.9])
    another = InstancePersons(predictor(("dog", "person")), 0.5, "RUN")
    assert len(another.in_picture(picture(40)).boxes) == 0
    video = write_video(tmp_path / "a.mp4", [10] * 30 + [60] * 30)
    with VideoFile(video) as file:
        one, two = source.at(file, source.seconds(str(video), file.duration))
    assert [part.boxes[0, 0] * 128 for part in (one, two)] == pytest.approx([10, 60], abs=1)


def test_an_instance_segmentation_without_persons():
    with pytest.raises(CheckpointError, match=r"RUN: no class is called 'person', .* square, b"):
        InstancePersons(predictor(), 0.5, "RUN")


def test_a_run_as_boxes(tmp_path):
    model = create_mask_rcnn("hiera_tiny_224", 2, embed_dim=16, stages=(1, 1, 1, 1), width=8)
    arguments = {"embed_dim": 16, "stages": [1, 1, 1, 1], "width": 8, "num_classes": 2}
    description = Description(
        *("mask_rcnn", "hiera_tiny_224", arguments, ("dog", "person"), None),
        *(IMAGE_MEAN, IMAGE_STD, "any"),
    )
    write_model(tmp_path, model, description._replace(evaluation={"pad": [64, 64]}))
    for boxes in (tmp_path, tmp_path / "model.json"):
        source = person_source(str(boxes), min_score=0)
        assert isinstance(source, InstancePersons)
        assert source.person == 2
    actions = hall.predictor()
    assert actions.persons(tmp_path) is actions.persons(str(tmp_path))  # which is loaded once
    write_model(tmp_path, model, description)
    with pytest.raises(CheckpointError, match="does not say what its input is"):
        person_source(str(tmp_path))
    write_run(tmp_path / "run")
    for boxes in (tmp_path / "run", tmp_path / "run/checkpoints/last.ckpt"):
        with pytest.raises(CheckpointError, match="holds a classifier; give a run of instance"):
            person_source(str(boxes))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty: neither a run"):
        person_source(str(tmp_path / "empty"))
