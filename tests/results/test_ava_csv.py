import numpy as np
import pytest

from datamodules.ava.annotations import read_csv
from datamodules.errors import DatasetError
from hiera_video.metrics.ava_boxes import DetectedBoxes
from hiera_video.results import ava_csv
from hiera_video.results.ava_csv import write_ava_csv


def test_written_numbers_come_back(tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.random((50, 4)).astype(np.float32)
    scores = (rng.random((50, 3)) ** 20).astype(np.float32)
    detected = DetectedBoxes(
        np.arange(50) % 2, np.array([2.0, 902.5, 1.0, 1798.0, 12345.123456] * 10), boxes, scores
    )
    path = tmp_path / "pred.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ava_csv, "BLOCK", 2000)  # several parts
        with open(path, "wb") as file:
            write_ava_csv(file, ["a b", "ü"], detected, [7, 3, 12])
    annotation = read_csv(path, widths=(8,))
    assert path.read_text().startswith("a b,0002,")
    assert annotation.names == ("a b", "ü")
    np.testing.assert_array_equal(annotation.video.reshape(50, 3)[:, 0], detected.video)
    np.testing.assert_array_equal(annotation.second.reshape(50, 3)[:, 0], detected.second)
    np.testing.assert_array_equal(annotation.action.reshape(50, 3)[0], [7, 3, 12])
    np.testing.assert_array_equal(
        annotation.boxes.astype(np.float32).reshape(50, 3, 4)[:, 0], boxes
    )
    np.testing.assert_array_equal(annotation.score.astype(np.float32).reshape(50, 3), scores)
    with open(path, "wb") as file:
        write_ava_csv(file, [], DetectedBoxes(*(values[:0] for values in detected)), [7, 3, 12])
    assert path.read_text() == ""


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\rb", "a\nb", "a\udcffb"])
def test_a_name_that_no_csv_can_have(tmp_path, name):
    detected = DetectedBoxes(
        np.ones(1, int), np.ones(1), np.zeros((1, 4), np.float32), np.zeros((1, 1), np.float32)
    )
    with (
        open(tmp_path / "pred.csv", "wb") as file,
        pytest.raises(DatasetError, match=r"^a csv cannot name the video 'a.*b': rename it"),
    ):
        write_ava_csv(file, ["c", name], detected, [7])
    assert (tmp_path / "pred.csv").read_bytes() == b""
