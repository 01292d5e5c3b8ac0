import numpy as np
import pytest

from hiera_video.metrics.outcomes import Outcomes
from hiera_video.metrics.results import Results
from hiera_video.metrics.view_groups import ViewGroup


@pytest.mark.parametrize(("suffix", "noun"), [("mp4", "videos"), ("jpg", "images")])
def test_files_are_called_what_they_are(suffix, noun):
    number, label = np.arange(4), np.array([0, 0, 1, -1])
    seen, failed = np.ones((4, 1), bool), np.zeros(4, bool)
    group = ViewGroup("1x1", (0,))
    predicted, position = np.ones(4, int), np.array([[1], [1], [0], [0]])
    outcomes = Outcomes(number, label, predicted, position, failed, seen, ["0x0"], [group], 2)
    text = Results(outcomes, ("dog", "cat"), [f"{i}.{suffix}" for i in number]).describe()
    first, unlabelled, *_, confused = text.splitlines()
    assert first.endswith(f"(3 {noun}, 1x1 views)")
    assert unlabelled == f"not counted: 1 {noun[:-1]} without a label"
    assert confused == f"most confused: dog as cat, 2 {noun}, 100% of the class"
