"""`logger=` on the command line."""

import pytest
import yaml

from tests.integration.conftest import TINY_DATA, TINY_MODEL, TINY_RUN
from tests.integration.forked import run

FIT = ("fit", "--config", "demo/finetune", *TINY_MODEL, *TINY_DATA, *TINY_RUN)


def test_a_resumed_run_goes_on_with_its_run_of_wandb(workspace):
    pytest.importorskip("wandb")
    words = ["logger=[tensorboard,wandb]", "logger.wandb.offline=true"]
    run(*FIT, *words, "run_dir=runs/tracked", cwd=workspace, WANDB_SILENT="true")
    folder = workspace / "runs/tracked"
    name = (folder / "wandb_id.txt").read_text().strip()
    assert len([*(folder / "wandb").glob(f"offline-run-*-{name}")]) == 1
    assert yaml.safe_load((folder / "config.yaml").read_text())["logger"].keys() == {
        *("csv", "tensorboard", "wandb")
    }
    words = ["resume=runs/tracked", "trainer.max_epochs=3", "task.epochs.count=3"]
    output = run("fit", *words, cwd=workspace, WANDB_SILENT="true")
    assert "going on from" in output
    assert (folder / "wandb_id.txt").read_text().strip() == name
    assert {path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")} == {
        name
    }
    assert len([*(folder / "tensorboard/final").iterdir()]) == 1
    # A test is a run of its own; it needs no logger to predict.
    run("test", "runs/tracked", "run_dir=runs/tracked-test", cwd=workspace, WANDB_SILENT="true")
    assert (workspace / "runs/tracked-test/wandb_id.txt").read_text().strip() != name


def test_only_numbers(workspace):
    run(*FIT, "logger=csv", "run_dir=runs/numbers", cwd=workspace)
    folder = workspace / "runs/numbers"
    assert (folder / "metrics/version_0/metrics.csv").exists()
    assert not (folder / "tensorboard").exists()
    output = run("fit", f"resume={folder}", "logger=tensorboard", cwd=workspace, code=2)
    assert output.splitlines()[-1].endswith(
        "has its logger already: +logger=NAME adds to it; with --config NAME resume=RUN, "
        "logger=NAME chooses another"
    )
