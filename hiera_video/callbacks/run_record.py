"""Record the configuration, code, machine and command of a run, in its folder and checkpoints."""

import json
import logging
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from datamodules.files import atomic_file, write_json
from hiera_video.tasks.description import package_versions

log = logging.getLogger(__name__)


class RunRecord(Callback):
    """Write ``config.yaml`` and ``run.json``; put the configuration into every checkpoint.

    ``config.yaml`` extends the project's base configuration and can be passed to ``--config``. It
    keeps the references between keys, so that an override reaches all keys that refer to it.

    Args:
        run_dir: folder of the run.
        config: the configuration with its references, for ``config.yaml``.
        resolved: the configuration as plain values, for checkpoints.
    """

    def __init__(
        self, run_dir: str | Path, config: dict[str, Any], resolved: dict[str, Any]
    ) -> None:
        self.run_dir, self.config, self.resolved = Path(run_dir), config, resolved
        self._record: dict[str, Any] | None = None  # until it is written

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write both files before an evaluation."""
        self._record = run_record() | {
            "seed": self.resolved["seed"],
            "world_size": trainer.world_size,
        }
        if stage != "fit":
            self._write(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Write both files once training works: a start that fails leaves nothing."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self._record is None or not trainer.is_global_zero:
            return
        text = OmegaConf.to_yaml({"defaults": ["/hiera_video", "_self_"]} | self.config)
        with atomic_file(self.run_dir / "config.yaml") as temporary:
            temporary.write_text(text, encoding="utf-8")
        # A resumed run has a record of each start.
        path = self.run_dir / "run.json"
        write_json(path, [*_starts(path), self._record])
        self._record = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the configuration to the checkpoint."""
        checkpoint["config"] = self.resolved


def _starts(path: Path) -> list[Any]:
    """The earlier starts in ``run.json``; a file that cannot be read is put aside."""
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        aside = path.with_name(f"{path.name}.damaged")
        log.warning(f"{path}: not a JSON list ({error}); it is now {aside.name}, a new one begins")
        os.replace(path, aside)
        return []


def run_record() -> dict[str, Any]:
    """Time, command line and its folder, git revision, machine, versions, GPUs, as plain values."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "git": git_revision(Path(__file__).parent),
        "host": platform.node(),
        "python": platform.python_version(),
        "versions": package_versions(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
    }


def git_revision(folder: Path) -> str | None:
    """Commit of a checkout, with "+changes" if files differ from it; None outside a checkout."""
    if "site-packages" in folder.parts:
        return None  # installed; a repository around it is not ours
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes"]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
