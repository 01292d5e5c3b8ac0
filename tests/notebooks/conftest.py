"""Notebooks are executed in an empty project, as they are or with another first cell."""

import base64
import io
import re
import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.integration.conftest import ROOT, finetuned, pretrained, workspace  # noqa: F401


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
