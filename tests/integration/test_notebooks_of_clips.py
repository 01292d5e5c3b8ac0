"""The notebooks about clips run from start to end, and on a run and videos of one's own."""

import base64
import io
import re

import nbformat
import numpy as np
from PIL import Image

from tests.integration.test_notebooks import executed, pytestmark  # noqa: F401


def shown(notebook, kind):
    """What the cells show of a kind, such as ``text/html``, in order."""
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


def pictures(notebook):
    return [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        for data in shown(notebook, "image/png")
    ]


def printed(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output.output_type == "stream")


def test_finetune_your_own(executed, tmp_path):  # noqa: F811
    notebook = executed("finetune_your_own.ipynb")
    (confusion,) = pictures(notebook)
    assert min(confusion.size) > 6 * 40
    clips, mistakes, answers = shown(notebook, "text/html")
    assert clips.count("<video") == 6
    assert mistakes.count("<video") == mistakes.count(", predicted: ") > 0
    assert answers.count("<video") >= 8
    text = printed(notebook)
    assert "test: 42 videos of 6 classes" in text
    accuracy = re.search(r"top1 ([\d.]+)%  top5", text)
    assert accuracy
    assert float(accuracy[1]) > 40  # by chance: 17
    assert sum("Prediction(label=" in text for text in shown(notebook, "text/plain")) == 1
    assert "(2, 3) [" in text
    assert (tmp_path / "runs/notebooks/finetune_your_own-test/predictions.parquet").exists()


def test_inside_hiera(executed):  # noqa: F811
    notebook = executed("inside_hiera.ipynb")
    stages, early, last, occlusion, windows, order, units = pictures(notebook)
    assert stages.size == (100 + 3 * (128 + 4), 5 * (128 + 4))
    assert early.size == last.size == occlusion.size
    assert not np.array_equal(np.asarray(early), np.asarray(last))
    assert min(windows.width, order.width, units.width) > 500
    (neighbours,) = shown(notebook, "text/html")
    assert neighbours.count("<video") == 6
    assert "(query)" in neighbours


def test_inside_a_model_of_ones_own(executed, tmp_path, finetuned, workspace):  # noqa: F811
    """Only the first cell of code is changed."""
    file = tmp_path / "notebooks/inside_hiera.ipynb"
    notebook = nbformat.read(file, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = (
        f"from pathlib import Path\nrun = {str(finetuned[0])!r}\n"
        f"videos = sorted(Path({str(workspace / 'data')!r}).rglob('test/*/*.mp4'))"
    )
    nbformat.write(notebook, file)
    assert len(pictures(executed("inside_hiera.ipynb"))) == 7
    assert not (tmp_path / "runs").exists()  # nothing was trained
