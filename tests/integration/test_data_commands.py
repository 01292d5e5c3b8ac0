"""``prepare``, ``check`` and ``doctor`` as a user runs them."""

import json
import os
import pty
import shutil
import sys
from contextlib import suppress

import pytest

from datamodules.manifests.splits import read_split
from hiera_video import cli
from tests.integration.conftest import run
from tests.integration.forked import Command
from tests.video_files import moving_frames, write_video


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two splits of two classes; in one of them a file is broken. And a list."""
    root = tmp_path_factory.mktemp("data")
    first = write_video(root / "first.mp4", moving_frames(12, 48, 64))
    for split in ("train", "val"):
        for name in ("jump", "walk"):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                shutil.copy(first, root / split / name / f"{i}.mp4")
    first.unlink()
    (root / "val/walk/broken.mp4").write_text("no video")
    (root / "list.csv").write_text("train/walk/0.mp4,walk\ntrain/walk/1.mp4,walk\n")
    return root


@pytest.fixture
def data(written, tmp_path, monkeypatch):
    """A copy in ``videos`` below the current folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(written, tmp_path / "videos")


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command in this process; returns its output and its errors."""

    def call(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["hiera-video", *map(str, words)])
        try:
            cli.main()
            exit_code = 0
        except SystemExit as exit_:
            exit_code = exit_.code
        captured = capsys.readouterr()
        assert exit_code == code, captured
        return captured.out, captured.err

    return call


CONFIG = ("--config", "folder/finetune", "data.test=list.csv")


def test_a_configuration_is_prepared_checked_and_read(data, command):
    out, err = command("prepare", *CONFIG, "data.root=videos", "--out", "ready")
    assert "ready/train/manifest.parquet: 4 videos, 4 ok, 0 bad" in out
    assert "ready/val/manifest.parquet: 5 videos, 4 ok, 1 bad" in out
    assert "ready/list.csv/manifest.parquet: 2 videos, 2 ok" in out
    assert f"bad  {data}/val/walk/broken.mp4: " in out
    shared = (
        "warning: 2 of the 2 videos of test are in train, too: train/walk/0.mp4, train/walk/1.mp4; "
        "leave them out of one of the two, or the numbers of test will be too good"
    )
    assert out.splitlines()[-1] == shared
    assert "prepare train: 4 of 4 files, " in err
    test = read_split(data.parent / "ready/list.csv", data, None)
    assert test.class_names == ("jump", "walk")  # of the first split
    assert test.label(0) == 1
    out, err = command("check", *CONFIG, "data.root=ready", code=1)
    fault, *classes = out.splitlines()
    assert fault.startswith(f"corrupt  {data}/val/walk/broken.mp4: ")
    assert classes == [
        "train: 4 videos of 2 classes: first 'jump' 2, last 'walk' 2, smallest 'jump' 2",
        "val: 5 videos of 2 classes: first 'jump' 2, last 'walk' 3, smallest 'jump' 2",
        "test: 2 videos of 2 classes: first 'jump' 0, last 'walk' 2, smallest 'jump' 0",
        "warning: test: all videos are of one class, 'walk'; an accuracy means nothing",
        shared,
    ]
    assert err == "hiera-video: 1 of 11 videos has faults\n"
    before = (data.parent / "ready/train/manifest.parquet").read_bytes()
    out, err = command("prepare", *CONFIG, "data.root=videos", "--out", "ready")
    assert err == ""
    assert (data.parent / "ready/train/manifest.parquet").read_bytes() == before


def test_a_published_annotation_is_prepared_checked_and_read(data, command, caplog):
    """Kinetics' csv: the same configuration reads what was prepared, elsewhere."""
    root = data.parent / "k400"
    rows = ["label,youtube_id,time_start,time_end,split"]
    for i, name in enumerate(("jump", "walk")):
        for number in range(10):
            target = root / f"train/{name}/{name}{number}_000000_000010.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / f"train/{name}/{number % 2}.mp4", target)
            rows.append(f"{name},{name}{number},0,10,{('train', 'val')[i and number > 7]}")
    shutil.copytree(root / "train/walk", root / "val")
    (root / "train/walk/walk0_000000_000010.mp4").unlink()
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        lines = [row for row in rows[1:] if row.endswith(split)]
        text = "\n".join([rows[0], *lines])
        (root / f"annotations/kinetics-400_{split}.csv").write_text(text)

    config = ("--config", "kinetics400/finetune_base", "data.num_classes=null")
    words = (*config, "data.max_missing_share=0.1", "data.root=k400", "--quick")
    out, _ = command("prepare", *words, "--out", "ready")
    assert "ready/train/manifest.parquet: 17 videos, 17 ok, 0 bad" in out
    assert "ready/val/manifest.parquet: 2 videos, 2 ok" in out
    assert "1 of 18 videos is missing" in caplog.text
    listed = (data.parent / "ready/missing_videos.csv").read_text().splitlines()
    file = "k400/annotations/kinetics-400_train.csv"
    assert listed[1:] == [f"train,train/walk0_000000_000010,{file},12"]
    out, _ = command("check", *config, "data.root=k400", code=1)  # its own findings
    assert out.splitlines()[0] == f"missing  train/walk0_000000_000010: {file}, row 12"
    assert command("check", *config, "data.root=ready")[0].endswith("19 videos, no faults\n")
    val = read_split(data.parent / "ready/val", data, None)
    assert val.class_names == ("jump", "walk")  # of the training split
    assert val.label(0) == 1
    size = ("data.num_frames=4", "data.size=[32,32]", "--seconds", "0.1")
    out, _ = command("doctor", *config, "data.root=k400", *size)
    assert f"17 of the 17 videos of {file}" in out
    _, err = command("prepare", *config, "data.root=k400", "--out", "x", code=2)
    assert err.endswith("data.max_missing_share=0.05); listed in x/missing_videos.csv\n")
    # In place, the manifest is made of what is annotated, not of what the last one says.
    command("prepare", *words, "--out", "k400")
    (root / "train/walk/walk1_000000_000010.mp4").unlink()
    words = (*config, "data.max_missing_share=0.2", "data.root=k400", "--quick")
    assert "16 videos, 16 ok" in command("prepare", *words, "--out", "k400")[0]


def test_folders_lists_and_manifests(data, command):
    assert command("check", "videos/train")[0].endswith("\n4 videos, no faults\n")
    out, _ = command("check", "videos/list.csv", "--quick")
    assert out.splitlines() == [
        "list.csv: 2 videos of one class, 'walk'",
        "warning: list.csv: all videos are of one class, 'walk'; an accuracy means nothing",
        "2 videos, no faults",
    ]
    command("prepare", "videos/train", "--out", "videos/train")  # in place
    assert command("check", "videos/train/manifest.parquet", "--decode")[0].endswith(
        "\n4 videos, no faults\n"
    )
    (data / "train/walk/new.mp4").write_bytes((data / "train/walk/0.mp4").read_bytes())
    out, _ = command("prepare", "videos/train", "--out", "videos/train")
    assert "5 videos" in out
    (data / "train/jump/0.mp4").unlink()
    out, err = command("check", "videos/train", code=1)
    assert out.splitlines()[0] == f"missing  {data}/train/jump/0.mp4"
    assert err.splitlines()[-1] == "hiera-video: 1 of 5 videos has faults"


def test_a_folder_of_splits_is_prepared_and_checked_split_by_split(data, command):
    (data / "notes").mkdir()
    (data / "train/run").mkdir()
    out, _ = command("prepare", "videos", "--out", "ready", "--quick")
    assert "videos holds splits; left out: notes" in out
    assert "ready/train/manifest.parquet: 4 videos" in out
    assert "ready/val/manifest.parquet: 5 videos" in out
    assert "warning: train: 1 of 3 classes have no training videos: run" in out
    assert not (data.parent / "ready/manifest.parquet").exists()
    val = read_split(data.parent / "ready/val", data, None)
    assert val.class_names == ("jump", "run", "walk")  # those of the training split
    for source in ("videos", "ready"):
        out, err = command("check", source, code=1)
        assert f"corrupt  {data}/val/walk/broken.mp4: " in out
        assert err.splitlines()[-1] == "hiera-video: 1 of 9 videos has faults"
    command("prepare", "videos", "--out", "videos", "--quick")  # in place
    assert (data / "train/manifest.parquet").exists()


def test_a_list_for_validation_and_test_is_compared_with_training_once(data, command):
    same = ("--config", "folder/finetune", "data.root=videos", "data.test=list.csv")
    out, _ = command("check", *same, "data.val=list.csv", "--quick")
    (line,) = [line for line in out.splitlines() if "in train, too" in line]
    assert line.startswith("warning: 2 of the 2 videos of val are in train, too: ")
    out, _ = command("check", *same, "data.train=list.csv", "data.val=null", "--quick")
    assert "warning: 2 of the 2 videos of test are in train, too: " in out
    out, _ = command("check", *same, "data.train=val", "data.val=list.csv", "--quick", code=1)
    assert "in train, too" not in out


def test_a_split_that_is_missing_is_a_fault_and_the_others_are_counted(data, command):
    words = ("--config", "folder/finetune", "data.root=videos", "data.val=null", "data.test=test")
    out, err = command("check", *words, "--quick", code=1)
    fault = f"wrong  {data}/test: no such folder or file; set data.root and the split's name"
    assert out.splitlines()[0].startswith(fault)
    assert out.splitlines()[0].endswith("; if there is no such split, set data.test=null")
    assert err.endswith("hiera-video: 0 of 4 videos and 1 annotation have faults\n")
    _, err = command("prepare", *words, "--out", "ready", code=2)
    assert f"{data}/test: no such folder or file" in err
    assert not (data.parent / "ready/train").exists()


def test_a_split_to_train_or_validate_without_labels_is_a_fault(data, command):
    (data / "train.txt").write_text("train/walk/0.mp4\ntrain/jump/0.mp4\n")
    words = ("data.root=videos", "data.train=train.txt", "data.val=null", "data.test=null")
    out, err = command("check", "--config", "folder/finetune", *words, code=1)
    assert out == "wrong  videos/train.txt: 2 of 2 videos have no label; data.train needs labels\n"
    assert err.endswith("hiera-video: 0 of 2 videos and 1 annotation have faults\n")
    out, _ = command("check", "--config", "folder/pretrain", *words)
    assert out == "2 videos, no faults\n"
    (data / "val.txt").write_text("val/walk/0.mp4\n")
    words = ("data.root=videos", "data.val=val.txt", "data.test=null")
    out, _ = command("check", "--config", "folder/finetune", *words, code=1)
    assert "val.txt: 1 of 1 video has no label; data.val needs labels" in out


def test_what_a_list_names_is_looked_for_before_anything_is_decoded(data, command, caplog):
    rows = "".join(f"walk,train/walk/{i}.mp4\n" for i in range(2))
    (data / "list.csv").write_text(f"# mine\nlabel,filename\nrun,gone.mp4\n{rows}")
    out, err = command("check", "videos/list.csv", code=1)
    assert out.splitlines()[0] == "missing  gone.mp4: videos/list.csv, row 3"
    assert err.splitlines()[-1] == "hiera-video: 1 of 3 videos has faults"
    out, _ = command("prepare", "videos/list.csv", "--out", "ready")
    places = f"{data}, the first in row 3"
    assert f"1 of 3 videos is missing in {places}: gone.mp4" in caplog.text
    assert "list.csv: 2 videos of 2 classes: first 'run' 0, last 'walk' 2, smallest 'run' 0" in out
    words = ("--config", "folder/finetune", "data.root=videos", "data.train=list.csv")
    out, _ = command("check", *words, "data.val=null", "data.test=null", code=1)
    assert out.splitlines()[0] == "missing  gone.mp4: videos/list.csv, row 3"
    _, err = command("prepare", *words, "data.val=null", "data.test=null", "--out", "x", code=2)
    assert "(33.3%, and data.max_missing_share=0.01); listed in x/missing_videos.csv" in err


def test_transcode_in_parts_join_and_pack(data, command):
    for part in ("1/2", "2/2"):
        words = ("--transcode", "--short-side", "32", "--gop", "4", "--shard", part)
        command("prepare", "videos/train", "--out", "ready", *words)
    out, _ = command("prepare", "--merge", "ready", "--out", "ready", "--pack", "--pack-mib", "1")
    assert "ready/manifest.parquet: 4 videos, 4 ok, 0 bad" in out
    assert "42x32" in out
    assert "packed: ready/packed/manifest.parquet" in out
    assert "4 videos, no faults" in command("check", "ready")[0]
    assert "4 videos, no faults" in command("check", "ready/packed", "--decode")[0]
    summary = json.loads((data.parent / "ready/summary.json").read_text())
    assert summary["prepared"]["settings"]["encoding"]["crf"] == 20


TINY_MODEL = ("model.input_size=[4,64,64]", "model.embed_dim=8", "model.stages=[1,1,1,1]")


def test_doctor_estimates_memory_and_measures_the_files_of_a_configuration(data, command):
    words = ("--config", "folder/finetune", "data.root=videos", "--seconds", "0.1", *TINY_MODEL)
    size = ("data.num_frames=4", "data.stride=1", "data.size=[32,32]")
    devices = ("--memory", "40", "--devices", "2", "trainer=fsdp2")
    out, _ = command("doctor", *words, *size, *devices, "--clips-per-second", "1e9")
    title = "memory in training, 8 x 2 clips, bf16-mixed, one of 2 devices, sharded"
    assert out.startswith(f"{title} (estimated):\n")
    assert "data.batch_size=8 fits into 90% of 40 GiB; the largest that fits is " in out
    assert "4 of the 4 videos of videos/train" in out
    assert "clips of 4 frames, stride 1, 32x32, 2 of each opened file" in out
    assert "one worker: " in out
    assert "1e+09" in out
    assert "This machine cannot keep up." in out


def test_doctor_says_what_is_wrong_with_the_files(data, command):
    folder = data.parent / "broken/train/a"
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.mp4").touch()
    _, err = command("doctor", "data.root=broken", "--seconds", "0.1", *TINY_MODEL, code=1)
    assert err.splitlines()[-1].startswith("hiera-video: ")
    assert "videos cannot be decoded" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_doctor_writes_files_where_there_are_none(data, command):
    out, _ = command("doctor", "data.root=nowhere", "--seconds", "0.1", *TINY_MODEL)
    assert "there is no nowhere/train; written for this" in out
    assert [line.split()[0] for line in out.splitlines()[-5:]] == [
        "50",
        "100",
        "200",
        "500",
        "1000",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "--out", "x"], "expected one SOURCE"),
        (["prepare", "videos/train", "videos/val", "--out", "x"], "expected one SOURCE"),
        (["prepare", "nowhere", "--out", "x"], "nowhere: no such folder or file"),
        (["prepare", "videos/train", "--out", "x", "--crf", "3"], "--crf needs --transcode"),
        (["prepare", "videos/train", "--out", "x", "--transcode", "--crf", "99"], "CRF 99"),
        (["prepare", "videos/train", "--out", "x", "--transcode", "--quick"], "leave out --quick"),
        (
            ["prepare", "videos/train", "--out", "videos/train/x", "--transcode"],
            "its new files would count as originals",
        ),
        (["prepare", "videos/train", "--out", "x", "--pack", "--shard", "1/2"], "--pack needs the"),
        (["prepare", "videos/train", "--out", "x", "--pack-url", "s3://x"], "needs --pack"),
        (["prepare", "videos/train", "--out", "x", "--pack", "--pack-url", "x"], "and a URL"),
        (["prepare", "--merge", "videos", "--out", "x"], "no manifest-*-of-*.parquet"),
        (["prepare", "videos", "--merge", "videos", "--out", "x"], "--merge takes folders"),
        (["prepare", "videos/train", "--out", "x", "--processes", "0"], "must be positive"),
        (["prepare", "--config", "folder/finetun", "--out", "x"], "did you mean folder/finetune"),
        (["check"], "expected one SOURCE"),
        (["check", "folder/finetune"], "no such folder or file; --config NAME takes a config"),
        (["check", "videos/train/walk/0.mp4"], "0.mp4: a video, not a list; name a list, or"),
        (["check", "--config", "folder/finetune", "data.rot=x"], "did you mean data.root"),
        (["check", "--config", "folder/finetune", "data.root=nowhere"], "nowhere/train"),
        (["prepare", "videos/train", "--out", "x", "--pack", "--pack-mib", "0"], "--pack-mib must"),
        (
            ["prepare", "videos/train", "--out", "x", "--pack", "--pack-url", "file:///x"],
            "file:///x: not the URL of a storage",
        ),
        (["doctor", "data.num_frames=0"], "num_frames must be positive"),
        (["doctor", "--files", "0"], "--files, --seconds and --clips-per-second must be positive"),
        (["doctor", "--devices", "0"], "--devices and --memory must be positive"),
        (["doctor", "--memory", "-1"], "--devices and --memory must be positive"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(data, command, words, message):
    _, err = command(*words, code=2)
    *progress, line = err.splitlines()
    assert all(text.startswith("prepare train: ") for text in progress)
    assert line.startswith("hiera-video: ")
    assert message in line


def test_wrong_shards_and_options(data, command):
    for text in ("0/2", "3/2", "1", "a/b"):
        _, err = command("prepare", "videos/train", "--out", "x", "--shard", text, code=2)
        assert f"{text!r} is not I/N with I from 1 to N" in err


def test_a_place_that_cannot_be_written_to_and_data_without_one_good_video(data, command):
    (data.parent / "file").touch()
    _, err = command("prepare", "videos/train", "--out", "file/x", code=2)
    assert err == "hiera-video: file/x: Not a directory\n"
    (data.parent / "bad").mkdir()
    (data.parent / "bad/x.mp4").touch()
    _, err = command("prepare", "bad", "--out", "x", code=1)
    assert err.endswith("hiera-video: none of the videos can be decoded\n")


def test_help_is_instant(tmp_path):
    for name in ("prepare", "check"):
        before = os.times().children_user  # processor time: others may use the machine, too
        output = run(name, "--help", cwd=tmp_path)
        assert os.times().children_user - before < 1
        assert output.startswith(f"usage: hiera-video {name} (SOURCE | --config NAME")


def test_a_terminal_gets_a_bar_with_rate_and_time_left(data):
    ours, theirs = pty.openpty()
    words = ("prepare", "videos/train", "--out", "ready")
    prepare = Command(*words, cwd=data.parent, stderr=theirs, TERM="xterm", COLUMNS="100")
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while more := os.read(ours, 1 << 16):  # it holds few bytes that are not read
            shown += more
    os.close(ours)
    prepare.wait()
    shown = shown.decode()
    assert "4/4" in shown
    assert "files/s" in shown
    assert "0:00:0" in shown
