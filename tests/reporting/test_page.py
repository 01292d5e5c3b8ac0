"""What the page of a run says, and what it says where something is missing."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image

from hiera_video.commands import report
from hiera_video.errors import UsageError
from tests.metrics.results import coco_results
from tests.reporting.runs import EVIL, write_reconstructions, write_run, write_test, write_videos


def page_of(run, *words):
    report.run([str(run), *map(str, words)])
    return (run / "report.html").read_text(encoding="utf-8")


def text_of(page):
    """The words of a page, with single blanks."""
    body = page[page.index("<body>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "fit")


def add_test(run):
    videos = write_videos(run.parent / "videos", 4)
    videos[3] = "gone/<i>.mp4"
    write_test(run, run.parent / "test", videos, [0, 1, 1, 2], [0, 2, 2, 1])


def test_everything_of_a_classification(run, capsys):
    add_test(run)
    page = page_of(run)
    text = text_of(page)
    assert re.search(r"fit -> \S*report.html  0\.\d MiB", capsys.readouterr().out)
    assert text.startswith("any/run Run of classification")
    assert "Top-1 25.00% test" in text
    assert "Top-1 75.0% best validation" in text
    assert f"{EVIL} 0.0% 2" in text  # its accuracy and its number of videos
    assert f"true: {EVIL} (1.0%) predicted: running (66.7%)" in text
    assert "The file is no longer there." in text
    assert page.count("<video ") == 2
    assert "train/loss: 1.5 at last (1.5 to 3.5, 1 not finite)" in text
    assert "Clips per second" in text
    assert "lr 0.001" in text
    assert "command hiera-video fit day=2" in text
    assert "2026-01-01: hiera-video fit day=1" in text


def test_nothing_of_a_data_set_becomes_html(run):
    add_test(run)
    page = page_of(run)
    assert "<script" not in page
    assert "<i>" not in page
    assert "<b>videos" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)  # no address at all


def test_few_classes_have_a_matrix_of_numbers_and_many_a_picture(run):
    add_test(run)
    assert f'title="{escape(EVIL)}, predicted running: 2 of 2">2<' in page_of(run)
    names = tuple(f"class {i}" for i in range(40))
    videos = [f"{i}.mp4" for i in range(40)]
    write_test(run, run.parent / "test-2", videos, list(range(40)), [0] * 40, names)
    page = page_of(run, "--test", run.parent / "test-2")
    assert 'alt="Confusion matrix of 40 classes' in page
    assert "The other 30 classes" in page
    assert "Other evaluations Folder Weights Results test best.ckpt Top-1 25.00%" in text_of(page)


def test_clips_are_limited(run):
    add_test(run)
    page = page_of(run, "--clips", 1)
    assert page.count("<figcaption>") == 1
    assert "<figcaption>" not in page_of(run, "--clips", 0)


def test_results_without_predictions_are_shown(run):
    add_test(run)
    (run.parent / "test/predictions.parquet").unlink()
    text = text_of(page_of(run))
    assert "Top-1 25.00%" in text
    assert "There is no predictions.parquet beside these results" in text


def test_bad_videos_are_listed_with_their_reasons(run):
    assert "cannot be decoded" not in text_of(page_of(run))
    file = run / "bad_videos.csv"
    file.write_text(f'path,reason\na/{EVIL}.mp4,"Invalid data, at 3 s"\n')
    text = text_of(page_of(run))
    assert "1 video: replaced by others in training" in text
    assert f"The list is {file}. Video Reason a/{EVIL}.mp4 Invalid data, at 3 s" in text
    file.write_text("path,reason\n" + "".join(f"{i}.mp4,cut off\n" for i in range(11)))
    text = text_of(page_of(run))
    assert "11 videos: replaced by others in training, counted as wrong in a test. " in text
    assert f"{file}; these are its first 10. Video Reason 0.mp4 cut off" in text
    assert "9.mp4" in text
    assert "10.mp4" not in text


def test_commands_can_be_pasted_into_a_shell(run):
    start = {"argv": ["x/__main__.py", "fit", "data.root=my videos", "data.size=[8,8]"]}
    (run / "run.json").write_text(json.dumps([start]))
    assert "hiera-video fit 'data.root=my videos' 'data.size=[8,8]'" in text_of(page_of(run))


def test_changed_weights_are_told(run):
    add_test(run)
    (run / "checkpoints/best.ckpt").write_bytes(b"later weights")
    text = text_of(page_of(run, "--test", run.parent / "test"))
    assert "best.ckpt, which is no longer as it was tested" in text


def test_an_action_detection_has_precision_for_each_class(tmp_path):
    run = write_run(tmp_path / "fit", "DetectionTask")
    results = {
        "mAP@0.5IOU": 0.25,
        "protocol": "official",
        "groups": {"pose": 0.5, "object": None},
        "per_class": {"stand": 0.4, "fly": 0.1},
        "boxes_per_class": {"stand": 1234, "fly": 2, "x": 0},
    }  # fmt: skip
    (run / "results.json").write_text(json.dumps(results))
    text = text_of(page_of(run))
    assert "Run of action detection" in text
    assert "mAP@0.5IOU (official protocol) 25.00%" in text
    group = "mAP@0.5IOU of classes of"
    assert f"{group} pose 50.00% {group} object –" in text
    assert "fly 10.0% 2 stand 40.0% 1,234 x – 0" in text


def test_an_instance_segmentation_has_the_precision_of_masks_and_boxes(tmp_path):
    run = write_run(tmp_path / "fit", "InstanceSegmentationTask")
    metrics = run / "metrics/version_0/metrics.csv"
    metrics.write_text("step,val/box_AP,val/mask_AP\n3,0.6,0.5\n7,0.4,0.3\n")
    (run / "results.json").write_text(json.dumps(coco_results().summary()))
    text = text_of(page_of(run))
    assert "Run of instance segmentation" in text
    assert "Mask AP 40.00% test" in text
    assert "Mask AP 50.0% best validation Box AP 60.0% best validation" in text
    assert "Box AP 30.00% box_AP50 30.00%" in text
    assert "cup 40.0% 3 fork – 0" in text
    boxes = coco_results().summary()
    del boxes["mask"], boxes["per_class"]["mask"]
    (run / "results.json").write_text(json.dumps(boxes))
    assert "cup 30.0% 3 fork – 0" in text_of(page_of(run))


def test_a_pretraining_shows_at_most_four_pictures(tmp_path):
    run = write_run(tmp_path / "fit", "PretrainingTask")
    assert "There are no pictures of reconstructions" in text_of(page_of(run))
    write_reconstructions(run, list(range(10, 110, 10)))
    page = page_of(run)
    assert re.findall(r"After step (\d+)", page) == ["100", "70", "40", "10"]
    assert page.count("<img ") == page.count('src="data:image/png') == 4
    assert "A pretraining is judged by its reconstructions" in page


def test_an_empty_run_says_what_is_missing(tmp_path):
    run = tmp_path / "my run"
    (run / "metrics").mkdir(parents=True)
    text = text_of(page_of(run))
    words = f"hiera-video test '{run}' 'run_dir={run}/test' does so"
    assert f"This run has not been tested. {words}" in " ".join(html.unescape(text).split())
    assert "This run has logged no numbers" in text
    assert "This run has not logged its speed." in text
    assert "There is no config.yaml" in text
    assert "There is no run.json" in text


def test_numbers_that_were_never_finite_are_named(run):
    file = run / "metrics/version_0/metrics.csv"
    file.write_text("epoch,step,train/loss,lr\n0,0,nan,\n0,1,inf,\n")
    text = " ".join(text_of(page_of(run)).split())
    assert "train/loss: none of its 2 values is finite." in text
    assert "has logged no numbers" not in text


def test_a_reference_that_cannot_be_resolved_stays(run):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.001", 'lr: "${gone}"'))
    assert "lr ${gone}" in text_of(page_of(run))
    file.write_text("a: [")
    with pytest.raises(UsageError, match=r"config\.yaml: not a configuration"):
        page_of(run)


def test_only_an_earlier_report_is_overwritten(run, tmp_path):
    page_of(run)
    page_of(run)  # its own
    video = tmp_path / "video.mp4"
    for file, content in ((video, b"frames"), (run / "config.yaml", None)):
        before = file.read_bytes() if content is None else content
        file.write_bytes(before)
        with pytest.raises(UsageError, match=f"{file} exists already and is no report; name"):
            page_of(run, "--out", file)
        assert file.read_bytes() == before
    with pytest.raises(UsageError, match=f"{tmp_path} is a folder; name a file, such as --out"):
        page_of(run, "--out", tmp_path)


def test_a_large_picture_becomes_a_jpeg(tmp_path):
    run = write_run(tmp_path / "fit", "PretrainingTask")
    (run / "reconstructions").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (300, 5000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "reconstructions/step-0000001.png")
    page = page_of(run)
    content = base64.b64decode(re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)[0])
    assert Image.open(io.BytesIO(content)).size == (4000, 240)
