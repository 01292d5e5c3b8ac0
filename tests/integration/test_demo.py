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
