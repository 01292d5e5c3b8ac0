"""How training speeds up with the number of processes of one machine.

    python benchmarks/scaling.py --processes 1,2,4,8 --out scaling.json
    python benchmarks/scaling.py --strategy fsdp2 --config demo/pretrain --batch 4

Runs `fit` with each number of processes, one for each GPU, or with gloo on a CPU. Weak scaling
keeps the batch of a process, strong scaling that of all together. Clips per second and the share of
waiting for data are those in the run's metrics.csv, without the first step. Efficiency is the clips
per second of a process as a share of those with the fewest processes. Other words go to `fit`.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HEADER = ("scaling", "processes", "batch of each", "clips/s", "waiting", "efficiency")


class Speed(NamedTuple):
    """What a run logged.

    Attributes:
        clips_per_second: of all processes together.
        waiting: share of the time that the processes wait for data; None: not logged.
    """

    clips_per_second: float
    waiting: float | None


def batches(processes: list[int], batch: int) -> dict[str, list[tuple[int, int]]]:
    """Numbers of processes and videos in a batch of each, for both kinds of scaling.

    Args:
        processes: numbers of them, ascending.
        batch: videos of each process in weak scaling, and of each of the most in strong scaling.

    Raises:
        ValueError: a number of processes that does not divide the global batch.
    """
    whole = batch * processes[-1]
    if wrong := [number for number in processes if whole % number]:
        raise ValueError(f"a global batch of {whole} cannot be divided by {wrong[0]} processes")
    return {
        "weak": [(number, batch) for number in processes],
        "strong": [(number, whole // number) for number in processes],
    }


def read_speed(file: Path) -> Speed:
    """The last speed in a run's metrics.csv."""
    with open(file, newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("speed/clips_per_second")]
    waiting = rows[-1].get("speed/waits_for_data")
    return Speed(float(rows[-1]["speed/clips_per_second"]), float(waiting) if waiting else None)


def fit(words: list[str], strategy: str, processes: int, batch: int, steps: int) -> Speed:
    """Run a training in a folder that is removed afterwards.

    Args:
        words: for ``fit``, beginning with the configuration.
        strategy: a file of ``conf/trainer``.
        processes: number of them.
        batch: videos in a batch of each.
        steps: of the optimiser; the first one does not count.

    Raises:
        RuntimeError: the training failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "hiera_video", "fit", *words),
            f"run_dir={folder}/run",
            f"trainer={strategy}",
            f"trainer.devices={processes}",
            f"trainer.max_steps={steps}",
            f"trainer.log_every_n_steps={steps}",
            "trainer.limit_val_batches=0",
            f"data.batch_size={batch}",
        ]
        # More threads than cores would wait for one another.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{process.stdout}{process.stderr}")
        return read_speed(Path(folder, "run/metrics/version_0/metrics.csv"))


def measure(
    words: list[str], strategy: str, processes: list[int], batch: int, steps: int
) -> list[dict[str, Any]]:
    """Run all trainings, each once; returns the rows of the table."""
    speeds: dict[tuple[int, int], Speed] = {}
    rows = []
    for scaling, runs in batches(processes, batch).items():
        for number, videos in runs:
            if (number, videos) not in speeds:
                speeds[number, videos] = fit(words, strategy, number, videos, steps)
            speed = speeds[number, videos]
            fewest = runs[0][0]
            efficiency = speed.clips_per_second / speeds[runs[0]].clips_per_second * fewest / number
            values = (scaling, number, videos, *speed, efficiency)
            rows.append(dict(zip(HEADER, values, strict=True)))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(HEADER)} |", "|---|" + "--:|" * (len(HEADER) - 1)]
    for row in rows:
        waiting = "" if row["waiting"] is None else f"{row['waiting']:.0%}"
        shares = f"{row['clips/s']:.1f} | {waiting} | {row['efficiency']:.0%}"
        cells = f"{row['scaling']} | {row['processes']} | {row['batch of each']}"
        lines.append(f"| {cells} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="demo/finetune", help="a configuration of `fit`")
    parser.add_argument("--strategy", choices=["ddp", "fsdp2"], default="ddp")
    parser.add_argument("--processes", default="1,2", help="numbers of them, as in 1,2,4")
    parser.add_argument("--batch", type=int, default=8, help="videos of each process")
    parser.add_argument("--steps", type=int, default=20, help="at least 2; the first is warm-up")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("words", nargs="*", help="key=value, for `fit`")
    options = parser.parse_args()
    processes = sorted({int(number) for number in options.processes.split(",")})
    if options.steps < 2:
        parser.error("--steps must be at least 2")
    words = ["--config", options.config, *options.words]
    try:
        rows = measure(words, options.strategy, processes, options.batch, options.steps)
    except ValueError as error:
        parser.error(str(error))
    print(table(rows))
    if options.out:
        machine = {"machine": platform.platform(), "cpus": os.cpu_count()}
        run = {"config": options.config, "strategy": options.strategy, "steps": options.steps}
        text = json.dumps({**machine, **run, "words": options.words, "rows": rows}, indent=1)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
