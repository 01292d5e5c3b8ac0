"""``check`` on data in AVA's format, as a user runs it."""

import re
import shlex
import sys

import numpy as np
import pytest

from hiera_video import cli
from tests.datamodules.ava.test_data_module import GREEN, RATE, TRUTH, root, videos, write
from tests.integration.conftest import ROOT, TINY_RUN
from tests.integration.forked import run
from tests.integration.test_detection import MODEL
from tests.video_files import write_video

__all__ = ["root", "videos"]  # fixtures

WORDS = [
    "data.train=null",
    "data.test=null",
    "data.videos=videos",
    "data.label_map=labels.pbtxt",
    "data.eval_label_map=null",
    "data.excluded=null",
    "data.person_boxes={val:persons.csv}",
]


@pytest.fixture
def check(root, monkeypatch, capsys):
    """Run the command in this process; returns the lines of its output, and its errors."""

    def call(*more, code=0, command="check"):
        words = [command, "--config", "ava/finetune_base", f"data.root={root}", *WORDS, *more]
        monkeypatch.setattr(sys, "argv", ["hiera-video", *words])
        try:
            cli.main()
            exit_code = 0
        except SystemExit as exit_:
            exit_code = exit_.code
        captured = capsys.readouterr()
        assert exit_code == code, captured
        return captured.out.splitlines(), captured.err

    return call


def test_it_ends_with_the_diagnosis(check):
    lines, _ = check()
    assert lines[-1] == "2 videos, no faults"
    assert lines[-2].startswith("val: boxes of the ground truth that a person box fits")


def test_folders_of_frames_are_checked_and_left_as_they_are(check, root):
    folders = "data.videos=frames", f"data.frame_rate={RATE}"
    lines, _ = check(*folders)
    assert lines[-1] == "2 videos, no faults"
    out = "--out", str(root / "out")
    _, errors = check(*folders, *out, code=2, command="prepare")
    assert (
        "val: 2 of 2 videos are folders of frames, to be read as they are; there is nothing to "
        "prepare" in errors
    )
    (root / "frames/b").unlink()
    (root / "frames/b.mp4").symlink_to(root / "videos/b.mp4")
    lines, _ = check(*folders, *out, "--transcode", command="prepare")
    assert lines[0] == "val: 1 of 2 videos is a folder of frames and left as it is"
    assert "1 video, 1 ok, 0 bad" in lines[1]


def test_it_names_all_faults_and_says_what_is_there_nevertheless(check, root):
    write(root, "ava_val_v2.2.csv", [*TRUTH, f"a,2,{GREEN},99,0", f"c,1,{GREEN},11,0"])
    (root / "videos" / "b.mp4").unlink()
    (root / "videos" / "b.mp4").write_bytes(b"no video")
    lines, errors = check(code=1)
    assert lines[0] == f"missing  videos/c: {root / 'ava_val_v2.2.csv'}, row 6"
    assert lines[1].startswith(f"corrupt  {root / 'videos' / 'b.mp4'}: ")
    assert lines[2].endswith("row 5: action id 99 is not in the label map")
    assert lines[2].startswith("wrong  ")
    assert any("keyframes of the ground truth that have person boxes" in line for line in lines)
    assert "2 of 3 videos and 1 annotation have faults" in errors


def test_the_test_split_is_diagnosed_with_its_own_boxes(check, root):
    write(root, "other.csv", [f"a,2,{GREEN},,7"])
    lines, errors = check(
        "data.test=val", "data.person_boxes={val:persons.csv,test:other.csv}", code=1
    )
    assert lines[0].startswith(f"wrong  {root / 'other.csv'}, row 1: expected a person score")
    assert {line.split(":")[0] for line in lines[1:]} == {"val", "test"}
    assert "0 of 2 videos and 1 annotation have faults" in errors
    lines, _ = check("data.test=val", "data.person_boxes={val:persons.csv,test:persons.csv}")
    assert not any(line.startswith("test:") for line in lines)


def test_without_any_video_there_still_is_a_diagnosis(check, root):
    for name in "ab":
        (root / "videos" / f"{name}.mp4").unlink()
    truth = root / "ava_val_v2.2.csv"
    lines, errors = check(code=1)
    assert lines[:3] == [
        f"missing  videos/a: {truth}, row 1",
        f"missing  videos/b: {truth}, row 4",
        f"wrong  {truth}: 2 of 2 videos are missing in {root}, the first in row 1: videos/a",
    ]
    assert "val: videos that are missing: 2 (a, b)" in lines
    assert "2 of 2 videos and 1 annotation have faults" in errors


def test_a_fault_that_all_see_is_named_once(check, root):
    write(root, "ava_val_v2.2.csv", [*TRUTH, "a,2,3"])
    lines, _ = check("data.test=val", "data.excluded={val:persons.csv}", code=1)
    assert sum("row 5: expected video,second" in line for line in lines) == 1
    assert "val: no ground truth" in lines


def test_what_training_would_refuse_is_a_fault(check, root):
    lines, _ = check("data.person_boxes=null", code=1)
    assert any(line.startswith("wrong  data.person_boxes.val is null") for line in lines)
    check("data.person_boxes=null", "data.eval_boxes=ground_truth")


def page():
    """What the page about AVA says of data of one's own: its blocks of code."""
    text = (ROOT / "docs" / "ava.md").read_text("utf-8")
    return text.split("### Your own data\n")[1].split("\n## ")[0].split("```")[1::2]


def test_the_page_of_ones_own_data_can_be_followed(tmp_path):
    files, labels, rows, commands, _ = page()
    names = files.split()
    assert [name.rsplit("/")[-1] for name in names] == [
        "counter.mp4", "actions.pbtxt", "train.csv", "val.csv",
    ]  # fmt: skip
    for name, text in zip(names, (None, labels, rows, rows), strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            frames = np.random.default_rng(0).integers(0, 255, (280, 32, 48, 3), np.uint8)
            write_video(path, frames, 2)  # 140 s
        else:
            path.write_text(text.lstrip())
    own, *lines = re.sub(r"\s*\n\s+", " ", commands).strip().splitlines()
    words = shlex.split(own)[0].removeprefix("OWN=").split()
    check, fit = (line.replace("$OWN", " ".join(words)).split() for line in lines)
    prefix = ["python", "-m", "hiera_video"]
    assert check[:4] == [*prefix, "check"]
    assert fit[:4] == [*prefix, "fit"]
    output = run(*check[3:], cwd=tmp_path)
    assert "2 videos, no faults" in output
    assert "val: ground truth: 4 rows (0 excluded), 3 keyframes with boxes" in output
    tiny = [
        *(f"+{word}" if word.startswith("model.") else word for word in MODEL),
        "+model.num_heads=1",
        "model.name=hiera_tiny_16x224",
        "task.init_from=null",
        "data.short_side=[64,72]",
        "data.num_workers=0",
        "run_dir=runs/own",
    ]
    output = run(*fit[3:], *tiny, *TINY_RUN, cwd=tmp_path)
    assert "val/mAP_official" in output
