"""The notebooks about clips run from start to end, and on a run and videos of one's own."""

import re

import nbformat
import numpy as np
import pytest

from tests.notebooks.conftest import outputs, pictures, printed

# The kernel's own sockets and event loop, not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def test_finetune_your_own(executed, tmp_path):
    notebook = executed("finetune_your_own.ipynb")
    (confusion,) = pictures(notebook)
    assert min(confusion.size) > 6 * 40
    clips, mistakes, answers = outputs(notebook, "text/html")
    assert clips.count("<video") == 6
    assert mistakes.count("<video") == mistakes.count(", predicted: ") > 0
    assert answers.count("<video") >= 8
    text = printed(notebook)
    assert "test: 42 videos of 6 classes" in text
    accuracy = re.search(r"top1 ([\d.]+)%  top5", text)
    assert accuracy
    assert float(accuracy[1]) > 40  # by chance: 17
    assert sum("Prediction(label=" in text for text in outputs(notebook, "text/plain")) == 1
    assert "(2, 3) [" in text
    assert (tmp_path / "runs/notebooks/finetune_your_own-test/predictions.parquet").exists()


@pytest.mark.slow
def test_inside_hiera(executed):
    notebook = executed("inside_hiera.ipynb")
    stages, early, last, occlusion, windows, order, units = pictures(notebook)
    assert stages.size == (100 + 2 * (128 + 4), 5 * (128 + 4))
    assert early.size == last.size == occlusion.size
    assert not np.array_equal(np.asarray(early), np.asarray(last))
    assert min(windows.width, order.width, units.width) > 500
    (neighbours,) = outputs(notebook, "text/html")
    assert neighbours.count("<video") == 6
    assert "(query)" in neighbours


@pytest.mark.slow
def test_inside_a_model_of_ones_own(executed, tmp_path, finetuned, workspace):
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
