"""Evaluation goes on after a video that cannot be decoded, and counts it."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from tests.integration.conftest import TINY_MODEL, TINY_RUN, run

CLIPS = ["data.num_frames=4", "data.size=[64,64]", "data.eval_batch_size=2", "data.num_workers=1"]


@pytest.fixture(scope="module")
def words(workspace, finetuned):
    """Of an evaluation of six videos, the first and the fourth of which are broken."""
    root = workspace / "data"
    good = sorted(root.rglob("test/*/*.mp4"))[::4]
    names = sorted(path.name for path in good[0].parents[1].iterdir())
    (root / "broken.mp4").write_bytes(b"this is no video")
    (root / "cut off.mp4").write_bytes(good[0].read_bytes()[:300])
    rows = [(path.relative_to(root), names.index(path.parent.name)) for path in good]
    rows[0:0] = [("broken.mp4", 0)]
    rows[3:3] = [("cut off.mp4", 1)]
    (root / "bad.csv").write_text("".join(f"{path},{label}\n" for path, label in rows))
    lists = ["data=folder", "data.root=data", "data.val=bad.csv", "data.test=bad.csv"]
    weights = f"ckpt_path={finetuned[0]}/checkpoints/last.ckpt"
    return ["--config", "demo/finetune", *lists, weights, *TINY_MODEL, *CLIPS, *TINY_RUN]


def failures(run_dir):
    with open(run_dir / "bad_videos.csv", newline="") as file:
        return {row["path"].rpartition("/")[2]: row["reason"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("devices", [1, 2])
def test_test_counts_broken_videos_as_wrong_and_lists_them(workspace, words, devices):
    run_dir = workspace / f"runs/bad-test-{devices}"
    output = run("test", *words, f"run_dir={run_dir}", f"trainer.devices={devices}", cwd=workspace)
    assert output.count("not decoded: ") == (2 if devices == 1 else output.count("not decoded: "))
    assert set(failures(run_dir)) == {"broken.mp4", "cut off.mp4"}
    rows = pq.read_table(run_dir / "predictions.parquet").to_pylist()
    assert {row["video_id"] for row in rows} == {1, 2, 4, 5}
    right = 0
    for video in (1, 2, 4, 5):
        views = [row for row in rows if row["video_id"] == video]
        sums = [sum(p) for p in zip(*(row["probabilities"] for row in views), strict=True)]
        right += sums.index(max(sums)) == views[0]["label"]
    assert json.loads((run_dir / "results.json").read_text())["test/top1"] == pytest.approx(
        right / 6
    )


def test_validate_counts_them_too(workspace, words):
    run_dir = workspace / "runs/bad-validate"
    output = run("validate", *words, f"run_dir={run_dir}", cwd=workspace)
    assert "broken.mp4" in output
    assert set(failures(run_dir)) == {"broken.mp4", "cut off.mp4"}
    results = json.loads((run_dir / "results.json").read_text())
    assert set(results) == {"val/top1", "val/top5"}
    assert results["val/top5"] <= 4 / 6 + 1e-6


def test_predict_on_two_processes_writes_a_line_for_each_file(workspace, words):
    files = sorted((workspace / "data").glob("*.mp4"))
    files += sorted((workspace / "data/synthetic").rglob("val/*/*.mp4"))[:5]
    out = workspace / "two.jsonl"
    more = [f"out={out}", "trainer.devices=2", "run_dir=runs/bad-predict", "--", *files]
    run("predict", *words, *more, cwd=workspace)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["path"] for line in lines) == sorted(map(str, files))
    assert sorted("error" in line for line in lines) == [False] * 5 + [True] * 2
    assert not list(workspace.glob("two.jsonl.part*"))
