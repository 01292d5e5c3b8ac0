"""The notebooks run from start to end, on a checkpoint that they make themselves."""

import base64
import io
import re
import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.integration.conftest import ROOT

# The kernel's own sockets and event loop, not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """Executes a notebook in an empty project."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # tests run beside others, and networks are tiny
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")

    def execute(name):
        notebook = nbformat.read(tmp_path / "notebooks" / name, as_version=4)
        assert not any(cell.get("outputs") for cell in notebook.cells)  # kept out of the repository
        client = NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": tmp_path / "notebooks"}}
        )
        # Under pytest, a kernel does not show what commands print.
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        client.execute()
        return notebook

    return execute


def outputs(notebook, kind):
    """What the cells show of a kind, such as ``text/html``, in order."""
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


def printed(notebook):
    return "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    )


def pictures(notebook):
    files = (io.BytesIO(base64.b64decode(data)) for data in outputs(notebook, "image/png"))
    return [Image.open(file).convert("RGB") for file in files]


def change(tmp_path, name, **values):
    """Set values in a notebook's first cell of code, as a user does."""
    file = tmp_path / "notebooks" / name
    notebook = nbformat.read(file, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for key, value in values.items():
        line = re.compile(rf"^{key} = None", re.MULTILINE)
        cell.source, changed = line.subn(f"{key} = {str(value)!r}", cell.source)
        assert changed == 1
    nbformat.write(notebook, file)


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


def test_reconstructions_of_a_run_of_ones_own(executed, tmp_path, pretrained, workspace):
    video = min((workspace / "data/synthetic").rglob("*.mp4"))
    own = {"MODEL": pretrained, "HOG_MODEL": pretrained, "VIDEO": video}
    change(tmp_path, "reconstructions.ipynb", **own)
    notebook = executed("reconstructions.ipynb")
    assert str(video) in printed(notebook)
    assert not (tmp_path / "runs").exists()  # nothing was trained


def test_multi_view(executed):
    notebook = executed("multi_view.ipynb")
    places, answers, accuracy = pictures(notebook)
    assert places.width == answers.width == 1080
    assert accuracy.width > 500
    text = printed(notebook)
    assert len(re.findall(r"\d to +\d\.\d\d s, from x = 0\.\d\d: \w+ \d+%", text)) == 15
    rows = re.findall(r"^ +\d +(\S+)% +(\S+)% +(\S+)%$", text, re.MULTILINE)
    assert len(rows) == 5
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
