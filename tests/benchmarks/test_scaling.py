"""The benchmark of several processes runs here, and divides batches as it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scaling import HEADER, batches, read_speed
from tests.integration.conftest import ROOT, TINY_DATA, TINY_MODEL


def test_weak_scaling_keeps_the_batch_and_strong_scaling_the_global_one():
    runs = batches([1, 2, 4], 8)
    assert runs["weak"] == [(1, 8), (2, 8), (4, 8)]
    assert runs["strong"] == [(1, 32), (2, 16), (4, 8)]
    with pytest.raises(ValueError, match="16 cannot be divided by 3"):
        batches([1, 3, 4], 4)


def test_the_last_speed_is_read(tmp_path):
    file = tmp_path / "metrics.csv"
    names = "step,speed/clips_per_second,speed/waits_for_data"
    file.write_text(f"{names}\n1,5,0.5\n2,7.5,0.25\n3,,\n")
    assert read_speed(file) == (7.5, 0.25)


@pytest.mark.slow
def test_two_processes_train(tmp_path):
    file = tmp_path / "scaling.json"
    data = [word for word in TINY_DATA if not word.startswith("data.batch_size")]
    words = [*TINY_MODEL, *data, "data.num_workers=1", "trainer.accelerator=cpu"]
    command = [sys.executable, str(Path(ROOT, "benchmarks/scaling.py"))]
    command += ["--steps", "3", "--batch", "2", "--processes", "1,2", "--out", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    rows = json.loads(file.read_text())["rows"]
    runs = [(row["scaling"], row["processes"], row["batch of each"]) for row in rows]
    assert runs == [("weak", 1, 2), ("weak", 2, 2), ("strong", 1, 4), ("strong", 2, 2)]
    for first, second in (rows[:2], rows[2:]):
        assert first["efficiency"] == 1
        assert second["efficiency"] == second["clips/s"] / first["clips/s"] / 2 > 0
        assert 0 <= second["waiting"] <= 1
    assert process.stdout.startswith(f"| {' | '.join(HEADER)} |")
