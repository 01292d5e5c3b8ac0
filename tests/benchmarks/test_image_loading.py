"""The benchmark of loaders of pictures runs, and all of them load the same pictures."""

import sys

import pytest

from benchmarks import image_loading
from benchmarks.image_loading import CONTENDERS, Settings, write_pictures

# timm leaves the files of pictures open, for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, image_loading.CLASSES)
    return folder


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_gives_batches_of_all_pictures(root, name):
    (batch,) = CONTENDERS[name](Settings(root, 8, 0))()
    pictures, labels = batch
    assert (pictures.shape, str(pictures.dtype)) == ((8, 3, 224, 224), "torch.uint8")
    assert sorted(labels.tolist()) == list(range(8))
    assert pictures.float().std() > 10


def test_the_table(root, monkeypatch, capsys):
    words = ["--pictures", "8", "--batch", "8", "--rounds", "1", "--workers", "0"]
    monkeypatch.setattr(sys, "argv", ["image_loading", *words])
    image_loading.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[4:]]
    assert [row[1] for row in rows] == [*CONTENDERS]
    for row in rows:
        assert all(float(cell) > 0 for cell in row[2:4])
        assert float(row[4]) < 0.5  # grey levels: the same pictures
