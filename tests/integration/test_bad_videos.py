"""Runs go on after videos that cannot be decoded, and say so."""

import csv
import json
import shutil

import pyarrow.parquet as pq
import pytest

from tests.integration.conftest import ROOT, TINY_MODEL, TINY_RUN
from tests.integration.forked import run, run_two

CLIPS = ["data.num_frames=4", "data.size=[64,64]", "data.eval_batch_size=2", "data.num_workers=1"]


@pytest.fixture(scope="module")
def words(workspace, finetuned):
    """Of an evaluation of six videos, the first and the fourth of which are broken."""
    root = workspace / "partly_broken"  # not where other tests look for videos
    shutil.copytree(next((workspace / "data/synthetic").rglob("test")), root)
    names = sorted(path.name for path in root.iterdir())
    good = sorted(root.rglob("*.mp4"))[::4]
    (root / "broken.mp4").write_bytes(b"this is no video")
    (root / "cut off.mp4").write_bytes(good[0].read_bytes()[:300])
    rows = [(path.relative_to(root), names.index(path.parent.name)) for path in good]
    rows[0:0] = [("broken.mp4", 0)]
    rows[3:3] = [("cut off.mp4", 1)]
    (root / "bad.csv").write_text("".join(f"{path},{label}\n" for path, label in rows))
    lists = ["data=folder", f"data.root={root}", "data.val=bad.csv", "data.test=bad.csv"]
    weights = f"ckpt_path={finetuned[0]}/checkpoints/last.ckpt"
    return ["--config", "demo/finetune", *lists, weights, *TINY_MODEL, *CLIPS, *TINY_RUN]


def failures(run_dir):
    with open(run_dir / "bad_videos.csv", newline="") as file:
        return {row["path"].rpartition("/")[2]: row["reason"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("devices", [1, 2])
def test_test_counts_broken_videos_as_wrong_and_lists_them(workspace, words, devices):
    run_dir = workspace / f"runs/bad-test-{devices}"
    start = {1: run, 2: run_two}[devices]
    more = [f"run_dir={run_dir}", f"trainer.devices={devices}"]
    output = start("test", *words, *more, cwd=workspace)
    assert output.count("not decoded: ") == 2  # once each, whichever process met it
    assert set(failures(run_dir)) == {"broken.mp4", "cut off.mp4"}
    table = pq.read_table(run_dir / "predictions.parquet")
    failed = json.loads(table.schema.metadata[b"failed"])
    assert [(video["video_id"], video["label"]) for video in failed] == [(0, 0), (3, 1)]
    assert failed[0]["path"].endswith("broken.mp4")
    assert failed[0]["reason"]
    rows = table.to_pylist()
    assert {row["video_id"] for row in rows} == {1, 2, 4, 5}
    right = 0
    for video in (1, 2, 4, 5):
        views = [row for row in rows if row["video_id"] == video]
        sums = [sum(p) for p in zip(*(row["probabilities"] for row in views), strict=True)]
        right += sums.index(max(sums)) == views[0]["label"]
    assert json.loads((run_dir / "results.json").read_text())["top1"] == pytest.approx(right / 6)


def test_validate_counts_them_too(workspace, words):
    run_dir = workspace / "runs/bad-validate"
    output = run("validate", *words, f"run_dir={run_dir}", cwd=workspace)
    assert "broken.mp4" in output
    assert set(failures(run_dir)) == {"broken.mp4", "cut off.mp4"}
    results = json.loads((run_dir / "results.json").read_text())
    assert [path.rpartition("/")[2] for path in results["failed"]] == ["broken.mp4", "cut off.mp4"]
    assert results["top5"] <= 4 / 6 + 1e-6


def test_predict_on_two_processes_writes_a_line_for_each_file_in_their_order(
    workspace, words, finetuned
):
    files = sorted((workspace / "data/synthetic").rglob("val/*/*.mp4"))[:5]
    for place, bad in zip((1, 4), sorted((workspace / "partly_broken").glob("*.mp4")), strict=True):
        files.insert(place, bad)
    out = workspace / "two.jsonl"
    more = [f"out={out}", "trainer.devices=2", "run_dir=runs/bad-predict", "--", *files]
    run("predict", finetuned[0], *CLIPS, *more, cwd=workspace)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["path"] for line in lines] == [*map(str, files)]
    assert [i for i, line in enumerate(lines) if "error" in line] == [1, 4]
    assert not list(workspace.glob("two.jsonl.part*"))


@pytest.mark.parametrize("devices", [1, 2])
def test_predict_fails_where_nothing_can_be_decoded(workspace, words, devices, tmp_path):
    start = {1: run, 2: run_two}[devices]
    more = [f"out={tmp_path}/none.jsonl", f"run_dir={tmp_path}", f"trainer.devices={devices}"]
    bad = sorted((workspace / "partly_broken").glob("*.mp4"))
    output = start("predict", *words, *more, "--", *bad, cwd=workspace, code=1)
    assert output.count("hiera-video: none of the videos can be decoded\n") == devices
    lines = (tmp_path / "none.jsonl").read_text().splitlines()
    assert ["error" in json.loads(line) for line in lines] == [True, True]


@pytest.fixture(scope="module")
def training(workspace, finetuned):
    """Words of a training on 24 videos and one each that is broken, hangs and crashes."""
    folder = workspace / "faulty"
    good = sorted((workspace / "data/synthetic").rglob("train/*/*.mp4"))
    for path in good:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    shutil.copy(good[0], folder / "down/hang.mp4")
    shutil.copy(good[0], folder / "down/crash.mp4")
    (folder / "down/broken.mp4").write_bytes(good[0].read_bytes()[:100])
    splits = ["data=folder", "data.root=.", "data.train=faulty", "data.val=null"]
    clips = ["data.num_frames=4", "data.size=[64,64]", "data.batch_size=3", "data.num_workers=2"]
    faulty = ["data._target_=tests.integration.stopping.FaultyVideos", "data.decode_timeout=2"]
    run_words = [*TINY_RUN, "trainer.max_epochs=1", "callbacks.best=null"]
    config = ["fit", "--config", "demo/finetune"]
    return [*config, *splits, *clips, *faulty, *TINY_MODEL, *run_words]


def test_training_goes_on_without_them_and_the_next_run_avoids_them(workspace, training):
    words = [*training, "data.max_bad_share=0.12"]
    run_dir = workspace / "runs/faulty"
    output = run(*words, f"run_dir={run_dir}", cwd=workspace, PYTHONPATH=str(ROOT))
    assert "step 9/9" in output or "step 8/9" in output
    reason_of = failures(run_dir)
    assert reason_of.pop("hang.mp4") == "took longer than 2 s to read"
    assert reason_of.pop("crash.mp4") == "the decoder's process was ended by SIGSEGV"
    assert set(reason_of) == {"broken.mp4"}
    with open(run_dir / "metrics/version_0/metrics.csv") as file:
        (counted,) = {row["train/bad_videos"] for row in csv.DictReader(file)} - {""}
    assert float(counted) == 3

    # Another run, in another folder, waits for none of them: said, but not tried.
    more = ["run_dir=runs/faulty-again", "data.decode_timeout=1000"]
    again = run(*words, *more, cwd=workspace, PYTHONPATH=str(ROOT))
    assert "took longer than 2 s" in again
    assert "tried once more" not in again
    assert set(failures(workspace / "runs/faulty-again")) == {"hang.mp4", "crash.mp4", *reason_of}


def test_training_stops_when_too_many_fail(workspace, training):
    words = [*training, "run_dir=runs/faulty-stop", "data.max_bad_share=0"]
    output = run(*words, cwd=workspace, code=1, PYTHONPATH=str(ROOT))
    assert "of this epoch's 27 videos cannot be decoded, more than data.max_bad_share=0" in output
    assert "Traceback" not in output


def test_training_stops_at_a_crash_if_asked_to(workspace, training):
    words = [*training, "run_dir=runs/faulty-kill", "data.stop_on_kill=true"]
    words += ["data.killed_videos=killed.csv", "data.max_bad_share=0.5"]
    output = run(*words, cwd=workspace, code=1, PYTHONPATH=str(ROOT))
    assert "killed.csv lists it now, and resume=auto continues without it" in output
    assert "Traceback" not in output
