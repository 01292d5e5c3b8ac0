"""What `gpu.py` measures of whole trainings: video files in, steps out, through the commands."""

import csv
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu_models import Setting
from datamodules.video.transcoding import Encoding, transcode
from hiera_video.commands.decode_rate import write_kinetics_like

CLASSES = 8
# Of Lightning's profile: name, mean seconds, calls, total seconds.
PROFILED = re.compile(r"^\|\s+(\S.*?)\s+\|\s+([\d.e-]+)\s+\|\s+(\d+)\s+\|\s+([\d.e-]+)\s+\|")
PROFILER = "lightning.pytorch.profilers.SimpleProfiler"
CLIPS = 32  # of a step
# Of the training's own log, a value for each quarter of its steps.
LOGGED = {
    "clips_per_s": "speed/clips_per_second",
    "waiting": "speed/waits_for_data",
    "mfu": "speed/mfu",
    "peak_gib": "memory/peak_gib",
}


def videos(folder: Path, files: int, copies: int, seconds: int) -> Path:
    """Write videos like those of Kinetics, as `prepare --transcode` leaves them.

    Each has several names, in a folder for each class.
    """
    originals = [folder / "originals" / f"{number}.mp4" for number in range(files)]
    prepared = [folder / "prepared" / path.name for path in originals]
    for paths in (originals, prepared):
        paths[0].parent.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_kinetics_like, originals, range(files), [seconds] * files))
        list(pool.map(transcode, map(str, originals), prepared, [Encoding()] * files))
    root = folder / "videos"
    for split, times in (("train", copies), ("val", 1)):
        for number in range(files * times):
            path = root / split / f"class{number % CLASSES}" / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(prepared[number % files])
    return root


def training(setting: Setting) -> Iterator[dict[str, Any]]:
    """Pretrain and fine-tune from files, with bf16 and fp16: clips/s, share of waiting, MFU.

    Each reads every video as often as its recipe repeats it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if setting.tiny:
            root, workers, steps = videos(folder, CLASSES, 4, 2), 2, 4
        else:
            root, workers, steps = videos(folder, 32, 60, 10), 16, 120
        for task, precision, mode in (
            ("finetune", "bf16-mixed", "reduce-overhead"),
            ("pretrain", "bf16-mixed", "reduce-overhead"),
            ("finetune", "16-mixed", None),
        ):
            if setting.device == "cpu" and precision == "16-mixed":
                continue
            yield fit(setting, root, task, precision, mode, workers, steps)


def fit(
    setting: Setting,
    root: Path,
    task: str,
    precision: str,
    mode: str | None,
    workers: int,
    steps: int,
) -> dict[str, Any]:
    """Run one training and read its metrics and its profile."""
    run = root.parent / f"{task}-{precision}"
    words = [
        f"--config=folder/{task}",
        f"data.root={root}",
        f"run_dir={run}",
        f"data.num_workers={workers}",
        f"trainer.precision={precision}",
        f"trainer.max_steps={steps}",
        f"trainer.log_every_n_steps={steps // 4}",
        "trainer.limit_val_batches=0",
        f"trainer.profiler={{_target_: {PROFILER}, dirpath: {root.parent}, filename: {run.name}}}",
    ]
    if setting.tiny:
        words += [
            "model.input_size=[4,64,64]",
            "model.stages=[1,1,1,1]",
            "model.embed_dim=16",
            "data.batch_size=2",
            "data.num_frames=4",
            "data.size=[64,64]",
        ]
        if task == "pretrain":
            words += ["task.mask_ratio=0.5", "model.decoder_depth=1", "model.decoder_embed_dim=32"]
    else:
        words += ["model.name=hiera_base_16x224", f"task.compile={mode or 'null'}"]
        words += [f"data.batch_size={CLIPS // (4 if task == 'pretrain' else 2)}"]
        if task == "finetune":
            words += ["task.augment.rand_augment={_target_: hiera_video.augment.RandAugment}"]
    start = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-m", "hiera_video", "fit", *words], capture_output=True, text=True
    )
    result: dict[str, Any] = {"training": task, "precision": precision, "compile": mode}
    result["seconds"] = round(time.monotonic() - start)
    if process.returncode:
        text = process.stdout + process.stderr
        return result | {"exit": process.returncode, "output": text.splitlines()[-8:]}
    with (run / "metrics/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, column in LOGGED.items():
        result[name] = [round(float(row[column]), 3) for row in rows if row.get(column)]
    report = (root.parent / f"fit-{run.name}.txt").read_text().splitlines()
    profile = {m[1]: float(m[4]) for line in report if (m := PROFILED.match(line))}
    return result | {
        "seconds_waiting": profile.get("[_TrainingEpochLoop].train_dataloader_next", 0.0),
        "seconds_training": profile.get("run_training_batch", 0.0),
    }
