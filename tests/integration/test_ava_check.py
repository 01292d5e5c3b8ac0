"""``check`` on data in AVA's format, as a user runs it."""

import sys

import pytest

from hiera_video import cli
from tests.datamodules.test_ava import GREEN, TRUTH, root, videos, write

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

    def call(code=0):
        words = ["check", "--config", "ava/finetune_base", f"data.root={root}", *WORDS]
        monkeypatch.setattr(sys, "argv", ["hiera-video", *words])
        try:
            cli.main()
            found = 0
        except SystemExit as exit_:
            found = exit_.code
        captured = capsys.readouterr()
        assert found == code, captured
        return captured.out.splitlines(), captured.err

    return call


def test_it_ends_with_the_diagnosis(check):
    lines, _ = check()
    assert lines[-1] == "2 videos, no faults"
    assert lines[-2].startswith("val: boxes of the ground truth that a person box fits")


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
    assert "2 of 3 videos and 1 annotations have faults" in errors
