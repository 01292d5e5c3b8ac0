"""The demo reaches what it is meant to reach."""

import json
import subprocess
import sys

import pytest

from tests.integration.conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_demo_reaches_ninety_percent(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/demo.py"]
    subprocess.run(command, check=True, cwd=tmp_path)
    (results_file,) = tmp_path.glob("runs/demo/*/finetune-test/results.json")
    results = json.loads(results_file.read_text())
    assert results["top1"] >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_detection_needs_motion(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/detection.py"]
    subprocess.run(command, check=True, cwd=tmp_path)
    clips, still = (
        json.loads(next(tmp_path.glob(f"runs/detection/*/{name}/results.json")).read_text())
        for name in ("detect-test", "still-test")
    )
    assert clips["protocol"] == "official"
    assert clips["mAP@0.5IOU"] >= max(0.5, 2 * still["mAP@0.5IOU"])
