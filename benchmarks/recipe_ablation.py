"""The whole recipe of fine-tuning on synthetic videos, and without some of its parts.

    python benchmarks/recipe_ablation.py [WEIGHTS]

Every row is one run of `fit --config demo/finetune_recipe` and of `test`, from the same pretraining
(WEIGHTS, or a new run of demo/pretrain). Prints a Markdown table: training loss and validation
accuracy by pass over the videos, test accuracy at the end. One seed each: differences of a few
points mean nothing.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

VARIANTS = {
    "whole recipe": [],
    "no mixup, no cutmix": ["task.mixing=null"],
    "no RandAugment": ["task.augment.rand_augment=null"],
    "no layer decay": ["task.layer_decay=1"],
}
RUNS = Path("runs/ablation", time.strftime("%Y%m%d-%H%M%S"))


def command(*words: str) -> None:
    """Run one command of the suite."""
    print("$ python -m hiera_video", *words, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "hiera_video", *words], check=True, stdout=sys.stderr)


def curve(run: Path, name: str) -> dict[int, float]:
    """Last value of a metric in each pass, from the run's CSV."""
    (file,) = run.glob("metrics/**/metrics.csv")
    with file.open() as lines:
        rows = [row for row in csv.DictReader(lines) if row[name]]
    return {int(row["epoch"]) + 1: float(row[name]) for row in rows}


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", nargs="?", type=Path, help="of demo/pretrain")
    weights = parser.parse_args().weights
    if weights is None:
        command("fit", "--config", "demo/pretrain", f"run_dir={RUNS}/pretrain")
        weights = RUNS / "pretrain/checkpoints/last.ckpt"
    rows = []
    for name, words in VARIANTS.items():
        run, config = RUNS / name.replace(" ", "-").replace(",", ""), "demo/finetune_recipe"
        start = time.perf_counter()
        command(*("fit", "--config", config, f"run_dir={run}", f"task.init_from={weights}", *words))
        seconds = time.perf_counter() - start
        tested = run.with_name(f"{run.name}-test")
        command("test", "--config", config, f"ckpt_path={run}", f"run_dir={tested}")
        test = json.loads((tested / "results.json").read_text())["top1"]
        losses, accuracies = curve(run, "train/loss"), curve(run, "val/top1")
        rows.append((name, losses, accuracies, test, seconds))
    passes = list(rows[0][2])
    shown = " | ".join(f"pass {p}" for p in passes)
    print(f"| | {shown} | test top-1 | fit (s) |")
    print("|---|" + "--:|" * (len(passes) + 2))
    for name, losses, accuracies, test, seconds in rows:
        cells = " | ".join(f"{accuracies[p]:.1%} ({losses[p]:.2f})" for p in passes)
        print(f"| {name} | {cells} | {test:.1%} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
