import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.video.decoding import VideoFile
from hiera_video.predicting import actions, batches
from hiera_video.predicting.crops import boxes_in_crops, crops_over
from hiera_video.predicting.persons import BoxFile
from tests.hall import SECONDS, Brightness, Network, brightness, predictor, write_hall

SIDES = st.integers(32, 400)


@given(SIDES, SIDES, st.floats(0, 1), st.floats(0.01, 1))
def test_whoever_is_narrower_than_half_a_crop_is_whole_in_one(width, height, place, share):
    side = min(width, height)
    crops = crops_over(width, height, side, side)
    xs = crops[0][0] + crops[0][2], crops[0][1] + crops[0][3]
    assert abs(xs[0] - width) <= 1
    assert abs(xs[1] - height) <= 1  # the first is the centre
    long, axis = max(width, height), int(height > width)
    narrow = share * (side // 2 - 1) / long
    low, high = place * (1 - narrow), place * (1 - narrow) + narrow
    box = [low, 0, high, 1] if axis == 0 else [0, low, 1, high]
    chosen, (inside,) = boxes_in_crops(np.array([box]), crops, width, height)
    corner = np.array(crops[chosen[0]][:2])
    back = (inside.reshape(2, 2) * side + corner) / [width, height]
    assert np.allclose(back.reshape(-1), box, atol=1e-6)


def test_a_wide_box_is_cut_off_at_the_border_of_the_crop_that_holds_most_of_it():
    crops = crops_over(128, 64, 64, 64)
    assert crops == [(32, 0, 96, 64), (0, 0, 64, 64), (64, 0, 128, 64)]
    boxes = np.array([[0, 0, 1, 1], [0.5, 0, 1, 0.5], [0.05, 0.5, 0.6, 1]])
    chosen, inside = boxes_in_crops(boxes, crops, 128, 64)
    assert chosen.tolist() == [0, 2, 1]  # everything: the centre
    assert np.allclose(inside, [[0, 0, 1, 1], [0, 0, 1, 0.5], [0.1, 0.5, 1, 1]])


@pytest.fixture(scope="module")
def hall(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hall")
    return folder, write_hall(folder)


def moments_of(video, model, persons):
    with VideoFile(str(video)) as file:
        return list(model.moments(file, persons, persons.seconds(file.path, file.duration)))


def test_each_person_is_seen_where_and_when_they_are(hall):
    folder, white = hall
    network = Brightness()
    boxes = BoxFile(folder / "boxes.csv")
    moments = moments_of(folder / "hall.mp4", predictor(network), boxes)
    assert [moment.second for moment in moments] == list(range(SECONDS))
    for moment in moments:
        if moment.second == 4:
            assert moment.scores.shape == (0, 2)
            continue
        # The change comes three frames before the second, and a clip begins four before it.
        now, before = white[moment.second], white[max(0, moment.second - 1)]
        assert np.array_equal(moment.scores > 0.5, np.stack([now, before], axis=1))
        assert ((moment.scores < 0.01) | (moment.scores > 0.99)).all()
    assert max(network.clips) <= batches.CLIPS_AT_ONCE


def test_the_whole_picture_padded(hall):
    """Scaled as evaluation does it, and each clip seen once whoever is in it."""
    folder, white = hall

    def network(video, boxes, box_clip):
        assert video.shape[1:] == (3, 4, 64, 128)
        assert (box_clip.bincount() == 3).all()
        assert (video[..., 43:, :] == -2).all()  # black; the picture has 42.7 of 64 pixels
        assert video[..., :42, :].max() > 0
        assert boxes[:, 3].max() < 0.8 * 43 / 64 + 0.01
        return brightness(video, boxes, box_clip)

    boxes = BoxFile(folder / "boxes.csv")
    moments = moments_of(folder / "hall.mp4", predictor(Network(network), pad=(64, 128)), boxes)
    for moment in moments:
        if moment.second != 4:
            assert np.array_equal(moment.scores[:, 0] > 0.5, white[moment.second])


def test_a_picture_larger_than_the_crop(hall):
    """Crops then lie over both sides."""
    folder, white = hall
    boxes = BoxFile(folder / "boxes.csv")
    moments = moments_of(folder / "hall.mp4", predictor(short_side=80), boxes)
    for moment in moments:
        if moment.second != 4:
            assert np.array_equal(moment.scores[:, 0] > 0.5, white[moment.second])
    crops = crops_over(80, 240, 64, 64)
    assert crops[0] == (8, 88, 72, 152)
    assert len(crops) == len(set(crops)) == 3 * 7


def test_results_depend_neither_on_chunks_nor_on_batches(hall, monkeypatch):
    folder, _ = hall
    boxes = BoxFile(folder / "boxes.csv")
    first = moments_of(folder / "hall.mp4", predictor(), boxes)
    monkeypatch.setattr(actions, "SECONDS_AT_ONCE", 1)
    monkeypatch.setattr(batches, "CLIPS_AT_ONCE", 1)
    second = moments_of(folder / "hall.mp4", predictor(), boxes)
    for one, other in zip(first, second, strict=True):
        assert one.second == other.second
        assert np.allclose(one.scores, other.scores, atol=1e-6)


def test_scores_times_those_of_the_person(hall):
    folder, _ = hall
    boxes, video = BoxFile(folder / "boxes.csv"), folder / "hall.mp4"
    plain = moments_of(video, predictor(), boxes)[0].scores
    times = moments_of(video, predictor(times_person_score=True), boxes)[0].scores
    assert np.allclose(times, plain * 0.5)


def test_persons_and_their_best_actions_second_by_second(hall):
    folder, white = hall
    model = predictor()
    with pytest.raises(DatasetError, match="nobody in hall.mp4"):  # whose score is at least 0.8
        model.predict(folder / "hall.mp4", folder / "boxes.csv")
    seconds = model.predict(folder / "hall.mp4", BoxFile(folder / "boxes.csv", min_score=0.5))
    assert [second.second for second in seconds] == list(range(SECONDS))
    assert seconds[4].persons == []
    for second in seconds:
        for i, person in enumerate(second.persons):
            assert person.box[0] == pytest.approx(i / 3 + 0.06, abs=1e-3)
            assert person.score == 0.5
            scores = {action.label: action.score for action in person.actions}
            assert (scores["bright, now"] > 0.5) == white[second.second, i]
            assert [a.score for a in person.actions] == sorted(scores.values(), reverse=True)
    (best,) = model.predict(folder / "hall.mp4", "full_frame", top=1)[0].persons
    assert best.box == (0, 0, 1, 1)
    assert len(best.actions) == 1


def test_wrong_arguments(hall):
    folder, _ = hall
    model = predictor()
    with pytest.raises(DatasetError, match=r"none\.csv: no such file"):
        model.predict(folder / "hall.mp4", "none.csv")
    with pytest.raises(VideoDecodeError, match="gone.mp4"):
        model.predict(folder / "gone.mp4", "full_frame")
    with pytest.raises(ValueError, match="top must be at least 1"):
        model.predict(folder / "hall.mp4", "full_frame", top=0)
    with pytest.raises(ValueError, match="precision must be 32-true or"):
        predictor(precision="bf16-true")
