import numpy as np
import pytest

from datamodules.ava.annotations import read_csv
from hiera_video.results.ava_tracks import tracks_of_video

LEFT, RIGHT = (0.1, 0.1, 0.3, 0.9), (0.6, 0.1, 0.8, 0.9)
IDS = (3, 5)


def table(folder, *rows):
    file = folder / "rows.csv"
    file.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return read_csv(file)


def row(second, box, action, last, video="v", shift=0.0):
    x1, y1, x2, y2 = box
    return (video, second, round(x1 + shift, 3), y1, round(x2 + shift, 3), y2, action, last)


def test_persons_are_followed_by_their_boxes(tmp_path):
    rows = [row(s, LEFT, 3, 0.1 * s, shift=0.05 * s) for s in range(4)]
    rows += [row(s, RIGHT, 5, 0.9, shift=-0.05 * s) for s in range(4)]
    rows += [row(2, LEFT, 3, 0.5, video="another"), row(1, LEFT, 77, 0.5, shift=0.05)]
    left, right = tracks_of_video(table(tmp_path, *reversed(rows)), "v", IDS)
    assert left.seconds.tolist() == right.seconds.tolist() == [0, 1, 2, 3]
    assert left.boxes[:, 0] == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert right.boxes[:, 0] == pytest.approx([0.6, 0.55, 0.5, 0.45])
    np.testing.assert_allclose(left.scores, [[0, 0], [0.1, 0], [0.2, 0], [0.3, 0]])
    assert (right.scores == [0, 0.9]).all()


def test_one_person_has_all_actions_of_a_box(tmp_path):
    rows = [row(7, LEFT, 3, 0.25), row(7, LEFT, 5, 0.5)]
    (track,) = tracks_of_video(table(tmp_path, *rows), "v", IDS)
    assert track.scores.tolist() == [[0.25, 0.5]]
    assert (track.at(7), track.at(8)) == (0, None)


def test_actions_by_name(tmp_path):
    rows = [row(7, LEFT, 3, 0.25), row(7, LEFT, 5, 0.5)]
    (track,) = tracks_of_video(table(tmp_path, *rows), "v", IDS)
    assert track.labelled(0, ["sit", "walk"], 0.2) == (list(LEFT), [("walk", 0.5), ("sit", 0.25)])
    assert track.labelled(0, ["sit", "walk"]) == (list(LEFT), [("walk", 0.5)])


def test_the_overlap_of_two_tracks(tmp_path):
    rows = [row(s, LEFT, 3, 0.5) for s in (1, 2)] + [row(s, LEFT, 3, 0.5, "w") for s in (2, 3)]
    (one,), (other,) = (tracks_of_video(table(tmp_path, *rows), v, IDS) for v in "vw")
    assert one.overlap(one) == pytest.approx(1)
    assert one.overlap(other) == pytest.approx(1 / 3)  # one of three keyframes is common
    half = other._replace(boxes=other.boxes * [1, 1, 1, 1] + [0, 0, 0.1, 0])
    assert one.overlap(half) == pytest.approx(0.2 / 0.3 / 3)


def test_ground_truth_has_numbers_of_persons_in_place_of_scores(tmp_path):
    rows = [row(7, LEFT, 3, 12), row(8, LEFT, 3, 12), row(10, LEFT, 3, 12), row(9, LEFT, 5, 12)]
    (track,) = tracks_of_video(table(tmp_path, *rows), "v", IDS, scored=False)
    assert track.scores.tolist() == [[1, 0], [1, 0], [0, 1], [1, 0]]
    assert track.spans(0) == [(6.5, 8.5), (9.5, 10.5)]
    assert track.spans(1) == [(8.5, 9.5)]


def test_a_person_who_was_away_or_jumps_is_a_new_one(tmp_path):
    rows = [row(1, LEFT, 3, 0.5), row(4, LEFT, 3, 0.5), row(5, RIGHT, 3, 0.5)]
    tracks = tracks_of_video(table(tmp_path, *rows), "v", IDS)
    assert [track.seconds.tolist() for track in tracks] == [[1], [4], [5]]


def test_the_nearest_box_goes_on(tmp_path):
    rows = [row(1, LEFT, 3, 0.5), row(2, LEFT, 3, 0.7, shift=0.01)]
    rows += [row(2, LEFT, 5, 0.6, shift=0.08)]
    first, second = tracks_of_video(table(tmp_path, *rows), "v", IDS)
    assert first.boxes[:, 0] == pytest.approx([0.1, 0.11])
    assert second.boxes[:, 0] == pytest.approx([0.18])


def test_a_video_without_rows_has_no_persons(tmp_path):
    assert tracks_of_video(table(tmp_path, row(1, LEFT, 3, 0.5)), "gone", IDS) == []
