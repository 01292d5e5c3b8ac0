"""Actions of persons before a camera, for which a file stands in."""

import numpy as np
import pytest
import torch

from datamodules.clips.sampling import keyframe_times
from datamodules.video.decoding import VideoFile
from datamodules.video.live_source import Opening
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.live_actions import KEPT_SHORT_SIDE, live_actions
from hiera_video.predicting.persons import WHOLE, BoxFile, PersonBoxes, PersonDetector, WholeFrame
from tests.hall import CLIP, Network, predictor, write_hall
from tests.lamp import write_lamp

THREE = PersonBoxes(
    np.array([[i / 3 + 0.06, 0.2, i / 3 + 0.27, 0.8] for i in range(3)]), np.array([1.0, 0.5, 0.9])
)


class Three:
    """Sees the three persons of the hall."""

    def seconds(self, video, duration):
        raise NotImplementedError

    at = seconds

    def in_picture(self, picture):
        assert picture.shape == (72, 216, 3)
        return THREE


@pytest.fixture(scope="module")
def hall(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hall")
    write_hall(folder)
    return folder


def test_each_answer_is_that_of_the_clip_around_its_time(hall):
    path, model = hall / "hall.mp4", predictor(times_person_score=True)
    answers = list(live_actions(model, Opening(str(path), None, {}), Three(), stride=0.05))
    assert len(answers) > 1
    times = [answer.time for answer in answers]
    assert times == sorted(set(times))
    with VideoFile(path) as file:
        # The keyframe is the third of four frames.
        assert times[-1] == pytest.approx(file.duration - 1 / 30 - CLIP.stride / CLIP.fps, abs=1e-3)
        for answer in answers:
            clip = file.frames_at(keyframe_times(answer.time + 1e-3, 4, CLIP.stride, CLIP.fps))
            expected = model.scorer.scores_of_clip(clip, THREE)
            assert [person.box for person in answer.persons] == list(map(tuple, THREE.boxes))
            for person, row in zip(answer.persons, expected, strict=True):
                scores = dict(person.actions)
                assert [scores[name] for name in model.class_names] == pytest.approx(row, abs=1e-5)
            assert 0 < answer.latency < 5
    dropped = [answer.dropped for answer in answers]
    assert dropped == sorted(dropped)


def test_pictures_are_scaled_as_those_of_files(hall):
    seen = []

    def keep(video, boxes, box_clip):
        seen.append(video)
        return torch.zeros(len(boxes), 2)

    clip = CLIP._replace(interpolation="bicubic")
    model = ActionPredictor(Network(keep), ["one", "two"], clip, device="cpu")
    with VideoFile(hall / "hall.mp4") as file:
        model.scorer.scores_of_clip(file.frames_at(keyframe_times(2, 4, 2, 30)), WHOLE)
        list(model.moments(file, WholeFrame(), [2]))
    live, of_file = seen
    torch.testing.assert_close(live, of_file)


def test_only_good_actions_are_named(hall):
    camera = Opening(str(hall / "hall.mp4"), None, {})
    for answer in live_actions(predictor(), camera, "full_frame", least=0.4, top=1):
        (person,) = answer.persons
        assert person.box == (0, 0, 1, 1)
        assert len(person.actions) <= 1
        assert all(action.score >= 0.4 for action in person.actions)


def test_nobody_is_an_answer(hall):
    class Nobody(Three):
        def in_picture(self, picture):
            return PersonBoxes(np.empty((0, 4)), np.empty(0))

    answers = live_actions(predictor(), Opening(str(hall / "hall.mp4"), None, {}), Nobody())
    assert next(answers).persons == []


def test_persons_are_detected_in_smaller_pictures(tmp_path):
    sizes = []

    class Detector(Three):
        def in_picture(self, picture):
            sizes.append(picture.shape)
            return THREE

    path = write_lamp(tmp_path / "wide.ts", np.ones(12), size=(1080, 1920), format="mpegts")
    next(live_actions(predictor(), Opening(str(path), None, {}), Detector()))
    assert set(sizes) == {(KEPT_SHORT_SIDE, 853, 3)}


def test_a_file_of_boxes_is_refused(hall):
    boxes = BoxFile(hall / "boxes.csv")
    with pytest.raises(ValueError, match="live, use detector or full_frame"):
        live_actions(predictor(), "camera:0", boxes)
    with pytest.raises(ValueError, match="stride must be a positive number"):
        live_actions(predictor(), "camera:0", "full_frame", stride=0)


def test_a_detector_sees_in_pictures_what_it_sees_in_files(hall):
    """Of torchvision's kind: boxes in pixels, labels and scores."""

    class Model(torch.nn.Module):
        def forward(self, images):
            (image,) = images
            return [
                {
                    "boxes": torch.tensor([[0.0, 0.0, 72.0, 72.0], [9.0, 9.0, 9.0, 20.0]]),
                    "labels": torch.tensor([1, 1]),
                    "scores": image.mean() + torch.tensor([1.0, 1.0]),
                }
            ]

    persons = PersonDetector(Model())
    with VideoFile(hall / "hall.mp4") as file:
        (at,) = persons.at(file, [2])
        seen = persons.in_picture(file.frames_at([2.0])[0])
    assert at.boxes.tolist() == seen.boxes.tolist() == [[0, 0, pytest.approx(1 / 3), 1]]
    assert at.scores == pytest.approx(seen.scores)
