"""Instance segmentation through the commands: check, train, test, evaluate, export."""

import json

import pytest

from hiera_video.weights.portable import read_model
from tests.integration.conftest import TINY_RUN
from tests.integration.forked import run

MODEL = ["model.embed_dim=8", "model.stages=[1,1,1,1]", "model.width=8", "model.box_features=16"]
DATA = ["data.pictures=[4,2,2]", "data.picture_size=64", "data.size=[64,64]", "data.batch_size=2"]
WORDS = ["--config", "demo/instances", *MODEL, *DATA]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder to run in, with a trained detector in runs/fit, tested in runs/test."""
    folder = tmp_path_factory.mktemp("instances")
    assert "val/mask_AP" in run("fit", *WORDS, *TINY_RUN, "run_dir=runs/fit", cwd=folder)
    words = [*WORDS, *TINY_RUN, "run_dir=runs/test", "ckpt_path=runs/fit"]
    assert "test/mask_AP" in run("test", *words, cwd=folder)
    return folder


def test_evaluate_gives_the_results_of_test(folder):
    (truth,) = folder.glob("data/synthetic/coco-*/annotations/instances_test.json")
    files = ["--ground-truth", truth, "--predictions", "runs/test/predictions.json"]
    words = ["evaluate", "--task", "coco", *map(str, files)]
    text = run(*words, "--json", cwd=folder)
    printed = json.loads(text[text.index("{") : text.rindex("}") + 1])
    results = json.loads((folder / "runs/test/results.json").read_text())
    for kind in ("box", "mask", "per_class", "objects"):
        assert printed[kind] == results[kind]
    assert "detections in" in run(*words, cwd=folder)


def test_check_finds_nothing_wrong(folder):
    output = run("check", *WORDS, cwd=folder)
    assert "8 videos, no faults" in output  # which are pictures
    assert "of 3 categories" in output


def test_check_says_why_ap_would_be_0(folder):
    (file,) = folder.glob("data/synthetic/coco-*/annotations/instances_val.json")
    before = file.read_text()
    content = json.loads(before)
    for annotation in content["annotations"]:
        annotation["bbox"] = [n / 64 for n in annotation["bbox"]]
    file.write_text(json.dumps(content))
    try:
        output = run("check", *WORDS, cwd=folder)
    finally:
        file.write_text(before)
    assert "val: AP would be 0: all boxes are within 1 pixel" in output


def test_export_is_read_back(folder):
    run("export", "runs/fit", "--format", "safetensors", "--out", "exported", cwd=folder)
    model = read_model(folder / "exported", "mask_rcnn")
    assert model.num_classes == 3
    assert "create_mask_rcnn" in (folder / "exported/README.md").read_text()
