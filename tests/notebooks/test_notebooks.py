"""The notebooks run from start to end, on a checkpoint that they make themselves."""

import re

import nbformat
import pytest

from tests.integration.conftest import ROOT
from tests.notebooks.conftest import change, outputs, pictures, printed

# The kernel's own sockets and event loop, not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda f: f.stem)
def test_no_cell_is_plumbing(file):
    for cell in nbformat.read(file, as_version=4).cells:
        assert cell.cell_type != "code" or len(cell.source.splitlines()) <= 15, cell.source


def test_reconstructions(executed):
    notebook = executed("reconstructions.ipynb")
    # Captions beside 4 predicted frames; rows: clip, seen, two predictions, error.
    sizes = [picture.size for picture in pictures(notebook)]
    assert sizes[:2] == [(100 + 4 * 132, 5 * 132)] * 2  # random, and drawn by hand
    assert sizes[-1] == (100 + 4 * 196, 6 * 196)  # histograms have a row more
    assert len(outputs(notebook, "text/html")) >= 2  # players
    assert ". # # #\n" in printed(notebook)
    loss = float(re.search(r"loss (0\.\d+)\n", printed(notebook))[1])
    assert loss < 0.5  # it has learned the video by heart; grey would be 1


@pytest.mark.slow
def test_reconstructions_of_a_run_of_ones_own(executed, tmp_path, pretrained, workspace):
    video = min((workspace / "data/synthetic").rglob("*.mp4"))
    own = {"MODEL": pretrained, "HOG_MODEL": pretrained, "VIDEO": video}
    change(tmp_path, "reconstructions.ipynb", **own)
    notebook = executed("reconstructions.ipynb")
    assert str(video) in printed(notebook)
    assert not (tmp_path / "runs").exists()  # nothing was trained


@pytest.mark.slow
def test_multi_view(executed):
    notebook = executed("multi_view.ipynb")
    places, answers, accuracy = pictures(notebook)
    assert places.width == answers.width == 1080
    assert accuracy.width > 500
    text = printed(notebook)
    assert len(re.findall(r"\d to +\d\.\d\d s, from x = 0\.\d\d: \w+ \d+%", text)) == 15
    rows = re.findall(r"^ +\d +(\S+)% +(\S+)% +(\S+)%$", text, re.MULTILINE)
    assert rows[5:] == rows[:5]  # those of `test` and those of its file
    assert len(rows) == 10
    assert float(rows[4][2]) > float(rows[0][0])  # more views, more right


def test_actions_ava(executed):
    notebook = executed("actions_ava.ipynb")
    timeline, precision, kinds = pictures(notebook)
    assert timeline.width > precision.width == kinds.width
    (player,) = outputs(notebook, "text/html")
    assert "annotated" in player
    text = printed(notebook)
    tested = float(re.findall(r"mAP_official (0\.\d+)", text)[-1])  # the first is of `fit`
    assert "9 in the ground truth, 9 in the predictions, 9 in both" in text  # one is excluded
    assert "mAP if errors of a kind were left out: duplicate" in text
    assert text.count(f"all {tested:.4f}") == 2  # of the test, and of its csv file
