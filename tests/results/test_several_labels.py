import json

import numpy as np
import pytest

from datamodules.errors import DatasetError
from hiera_video.errors import PredictionFileError
from hiera_video.metrics.outcomes import Outcomes
from hiera_video.metrics.results import Results
from hiera_video.metrics.view_groups import ViewGroup
from hiera_video.results.several_labels import accuracy_with_several_labels


@pytest.fixture
def results():
    """Four pictures of three classes, not in the order of their names; the last one failed."""
    outcomes = Outcomes(
        video_id=np.arange(4),
        label=np.array([0, 0, 1, 2]),
        predicted=np.array([0, 1, 2, -1]),
        position=np.array([[0], [1], [1], [2]]),
        failed=np.array([False, False, False, True]),
        seen=np.ones((4, 1), bool),
        views=["0x0"],
        groups=[ViewGroup("1x1", ())],
        num_classes=3,
    )
    return Results(outcomes, ["a", "b", "c"], ["y/d.jpg", "z/a.jpg", "x/c.jpg", "x/b.jpg"])


def test_any_of_the_labels_is_right_and_pictures_without_any_do_not_count(tmp_path, results):
    file = tmp_path / "real.json"
    file.write_text(json.dumps([[1, 2], [2], [0], []]))  # of a, b, c, d
    assert accuracy_with_several_labels(results, file) == (pytest.approx(1 / 3), 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "record 1: expected a list of class ids below 3"),
        ("[[0], [3], [], []]", "record 2: expected a list of class ids below 3"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, results, text, message):
    file = tmp_path / "real.json"
    file.write_text(text)
    with pytest.raises(DatasetError, match=message) as error:
        accuracy_with_several_labels(results, file)
    assert str(file) in str(error.value)


def test_labels_of_other_pictures_are_refused(tmp_path, results):
    file = tmp_path / "real.json"
    file.write_text("[[0]]")
    with pytest.raises(PredictionFileError, match="real.json: labels of 1 images for 4 predict"):
        accuracy_with_several_labels(results, file)
