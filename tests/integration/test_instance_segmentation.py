"""Instance segmentation through the commands: check, train, test, evaluate, export."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from datamodules.synthetic import write_h264
from hiera_video import load
from hiera_video.weights.portable import read_model
from tests.integration.conftest import TINY_RUN
from tests.integration.forked import run, run_two

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


def test_two_processes_find_the_same(folder):
    words = [*WORDS, *TINY_RUN, "trainer.devices=2", "run_dir=runs/two", "ckpt_path=runs/fit"]
    run_two("test", *words, cwd=folder)
    one, two = (
        json.loads((folder / run_dir / "results.json").read_text())
        for run_dir in ("runs/test", "runs/two")
    )
    for kind in ("box", "mask", "per_class", "objects"):
        assert one[kind] == two[kind]
    detections = [
        sorted(json.loads((folder / run_dir / "predictions.json").read_text()), key=str)
        for run_dir in ("runs/test", "runs/two")
    ]
    assert len(detections[0]) == len(detections[1]) > 0
    train = [w for w in WORDS if not w.startswith("data.batch")]
    train += [*TINY_RUN, "data.batch_size=1", "trainer.devices=2", "run_dir=runs/ddp"]
    assert "val/mask_AP" in run_two("fit", *train, cwd=folder)


def test_check_finds_nothing_wrong(folder):
    output = run("check", *WORDS, cwd=folder)
    assert "8 images, no faults" in output
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


@pytest.mark.parametrize("split", ["train", "val"])
def test_check_lists_wrong_annotations_once(folder, split):
    (file,) = folder.glob(f"data/synthetic/coco-*/annotations/instances_{split}.json")
    before = file.read_text()
    content = json.loads(before)
    content["annotations"][0]["iscrowd"] = "0"
    content["annotations"][1]["area"] = "9"
    file.write_text(json.dumps(content))
    try:
        output = run("check", *WORDS, cwd=folder, code=1)
    finally:
        file.write_text(before)
    wrong = [line for line in output.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 2
    assert "has iscrowd '0', which must be 0 or 1" in wrong[0]
    assert "see all with" not in output


def test_export_is_read_back(folder):
    run("export", "runs/fit", "--format", "safetensors", "--out", "exported", cwd=folder)
    model = read_model(folder / "exported", "mask_rcnn")
    assert model.num_classes == 3
    assert load(folder / "exported", "cpu").class_names == ("disc", "square", "triangle")
    assert 'load("exported").predict("picture.jpg")' in (folder / "exported/README.md").read_text()


def test_predict_on_pictures_folders_and_videos(folder):
    (shapes,) = folder.glob("data/synthetic/coco-*/test")
    pictures = sorted(shapes.iterdir())
    write_h264(folder / "a.mp4", np.stack([np.asarray(Image.open(p)) for p in pictures * 2]))
    words = ["a.mp4", shapes, "out=found", "min_score=0.1", "trainer.accelerator=cpu"]
    output = run("predict", "runs/fit", *map(str, words), cwd=folder)
    assert "3 of 3 files, results in found" in output
    names = {"a": ".mp4", **{path.stem: ".png" for path in pictures}}
    expected = {f"{name}{end}" for name, drawn in names.items() for end in (".jsonl", drawn)}
    assert {path.name for path in (folder / "found").iterdir()} == expected
    model = load(folder / "runs/fit", "cpu")
    for path in pictures:
        line = json.loads((folder / f"found/{path.stem}.jsonl").read_text())
        objects = model.predict(path, min_score=0.1)
        assert [found["category"] for found in line["objects"]] == objects.labels
        scores = [found["score"] for found in line["objects"]]
        assert scores == pytest.approx(objects.scores.tolist(), abs=1e-4)
    assert len((folder / "found/a.jsonl").read_text().splitlines()) == 4


def test_predict_with_a_checkpoint_alone(folder):
    shutil.copy(folder / "runs/fit/checkpoints/last.ckpt", folder / "alone.ckpt")
    words = ["a.mp4", "run_dir=runs/alone", "stride=0.1", "trainer.accelerator=cpu"]
    run("predict", "alone.ckpt", *words, cwd=folder)
    assert len((folder / "runs/alone/predictions/a.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "no videos or images to predict; name files or folders"),
        (("gone.jpg",), "gone.jpg: no such file or folder"),
        (("a.mp4", "min_score=80"), "min_score must be in [0, 1], not 80"),
        (("a.mp4", "min_score=null"), "min_score=None: expected a number in [0, 1]"),
        (("a.mp4", "stride=0"), "stride must be a number of seconds above 0, not 0"),
        (("a.mp4", "boxes=full_frame"), "boxes=full_frame is for `predict` of action detection"),
        (("a.mp4", "data.size=[64,100]"), "size must be multiples of (16, 16), not (64, 100)"),
        (("camera:0",), "camera:0: live, classes and actions are predicted"),
        (("a.mp4", "out=."), "out=. holds a.mp4 itself; name another folder"),
    ],
)
def test_what_predict_refuses(folder, words, line):
    (folder / "a.mp4").touch()
    output = run("predict", "runs/fit", *words, cwd=folder, code=2)
    assert line in output
    assert "Traceback" not in output
