"""The benchmark of a GPU works before there is one."""

import gc
import json
import subprocess
import sys
import time

import pytest

from hiera_video.models.compiling import MODES
from hiera_video.tasks.pretraining import PretrainingTask
from tests.quick_trainer import _quiet_lightning  # noqa: F401

PARTS = ["parity", "pretraining base", "modes"]
OTHERS = ["ceilings", "inference base", "finetuning", "training"]


# Each part is a process, which takes as long as its imports.
@pytest.mark.parametrize("others", [[], pytest.param(OTHERS, marks=pytest.mark.slow)])
def test_all_kinds_of_parts_run_at_tiny_size(tmp_path, others):
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--out", str(tmp_path)]
    asked = [*PARTS, *others]
    process = subprocess.run([*command, "--parts", *asked], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    (file,) = tmp_path.glob("gpu-*.json")
    parts = json.loads(file.read_text())["parts"]
    assert sorted(parts) == sorted(asked)
    for name, part in parts.items():
        assert not part["error"], (name, part["error"])
        for result in part["results"]:
            assert not any(row["error"] for row in result.get("rows", [])), result
            assert "exit" not in result, result
    (step,) = parts["pretraining base"]["results"]
    assert [row["name"] for row in step["rows"]][:2] == ["hiera-transformer", "ours"]
    assert all(row["median_ms"] > 0 for row in step["rows"])
    # Of gradients in bf16, from those in float32.
    assert all(row["difference"] < 0.05 for row in step["rows"][1:])
    # Weights are rounded to bf16 as they are used, in ours and in the published code alike.
    for result in parts["parity"]["results"]:
        assert result["difference"] < (1e-4 if result["mode"].startswith("float32") else 0.5)
    for result in parts["training"]["results"] if others else []:
        assert min(result["clips_per_s"]) > 0
        assert result["seconds_training"] > 0
    eager, *compiled = parts["modes"]["results"]
    assert {mode["compile"] for mode in compiled if mode["accumulated"] == 1} == set(MODES)
    assert all(mode["losses"] == eager["losses"] for mode in compiled if mode["accumulated"] == 1)
    table = file.with_suffix(".md").read_text()
    assert "| hiera-transformer |" in table


@pytest.mark.filterwarnings("ignore:Importing from timm.models.layers is deprecated")
@pytest.mark.filterwarnings("ignore:The .train_dataloader. does not have many workers")
def test_a_mode_is_measured_without_the_tasks_of_earlier_ones(monkeypatch):
    """A trainer is part of a cycle, so its network stays in memory until garbage is collected."""
    from benchmarks import gpu_modes  # imports hiera-transformer, which warns
    from benchmarks.gpu_models import Setting

    alive = []

    class Counted(PretrainingTask):
        def on_train_start(self):
            super().on_train_start()
            alive.append(sum(type(each) is Counted for each in gc.get_objects()))

    monkeypatch.setattr(gpu_modes, "PretrainingTask", Counted)
    for _ in range(2):
        gpu_modes.steps(Setting("cpu", True, time.monotonic() + 100), None, 1)
    assert alive == [1, 1]
