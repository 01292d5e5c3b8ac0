"""The notebooks run from start to end, on a checkpoint that they make themselves."""

import base64
import io
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
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")

    def execute(name):
        notebook = nbformat.read(tmp_path / "notebooks" / name, as_version=4)
        assert not any(cell.get("outputs") for cell in notebook.cells)  # kept out of the repository
        client = NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": tmp_path / "notebooks"}}
        )
        client.execute()
        return notebook

    return execute


def test_reconstructions(executed):
    notebook = executed("reconstructions.ipynb")
    pictures = [
        (kind, base64.b64decode(data))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind, data in output.get("data", {}).items()
        if kind.startswith("image/")
    ]
    assert {"image/png", "image/gif"} <= {kind for kind, _ in pictures}
    sizes = {kind: Image.open(io.BytesIO(data)).size for kind, data in pictures}
    # Captions beside 4 predicted frames; 4 rows for each of 2 clips.
    assert sizes["image/png"] == (100 + 4 * 68, 2 * 4 * 68)
    gif = Image.open(io.BytesIO(dict(pictures)["image/gif"]))
    assert gif.n_frames == 4
