"""What pretraining is worth with few labels: accuracy against minutes of pretraining.

Pretrains once on 4,096 videos without labels, and keeps a checkpoint every few epochs. From each of
them, and from random weights, fine-tunes on 160 labelled videos and tests, with several seeds. The
results go to `results.json` and `curve.png`, and the table to the terminal.
"""

import argparse
import json
import re
import statistics
import time
from pathlib import Path

from PIL import Image, ImageDraw

from benchmarks.demo import command, finetune_and_test

RUNS = Path("runs/demo-pretraining", time.strftime("%Y%m%d-%H%M%S"))
PRETRAIN, FINETUNE = "demo/actions_pretrain", "demo/actions_finetune"


def accuracy(name: str, seed: int, weights: str | None) -> float:
    """Fine-tune and test; returns top-1 in [0, 1]."""
    start = [f"task.init_from='{weights}'"] if weights else []
    _, _, results = finetune_and_test(FINETUNE, RUNS / f"{name}-{seed}", f"seed={seed}", *start)
    return results["top1"]


def pretrain(epochs: int, every: int) -> list[tuple[float, str | None]]:
    """Pretrain; returns (minutes, weights) of each checkpoint, that of random weights first."""
    run = RUNS / "pretrain"
    keep = ["callbacks.recovery.filename='{epoch:03d}'", "callbacks.recovery.save_top_k=-1"]
    keep += [f"callbacks.recovery.every_n_epochs={every}", f"task.epochs.count={epochs}"]
    seconds = command("fit", "--config", PRETRAIN, f"run_dir={run}", *keep)
    points: list[tuple[float, str | None]] = [(0.0, None)]
    for file in sorted((run / "checkpoints").glob("epoch=*.ckpt")):
        done = int(re.sub(r"\D", "", file.stem)) + 1
        points.append((seconds * done / epochs / 60, str(file)))
    return points


def draw_curve(rows: list[dict], path: Path) -> None:
    """Draw mean and range of the accuracies over the minutes of pretraining."""
    width, height, left, bottom = 640, 400, 70, 50
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    last = max(row["minutes"] for row in rows) or 1
    lowest = min(min(row["top1"]) for row in rows)
    floor = min(int(lowest * 10), 9) / 10

    def place(minutes: float, top1: float) -> tuple[float, float]:
        x = left + minutes / last * (width - left - 30)
        return x, height - bottom - (top1 - floor) / (1 - floor) * (height - bottom - 30)

    for tenth in range(round(floor * 10), 11):
        y = place(0, tenth / 10)[1]
        draw.line((left, y, width - 30, y), fill=(225, 225, 225))
        draw.text((left - 45, y - 6), f"{tenth * 10} %", fill="black")
    scratch = statistics.mean(rows[0]["top1"])
    ends = [place(minutes, scratch) for minutes in (0, last)]
    draw.line(ends, fill=(200, 60, 40), width=2)
    draw.text((ends[1][0] - 90, ends[1][1] + 6), "from scratch", fill=(200, 60, 40))
    draw.line([place(r["minutes"], statistics.mean(r["top1"])) for r in rows], (30, 80, 170), 2)
    for row in rows:
        low, high = (place(row["minutes"], f(row["top1"])) for f in (min, max))
        draw.line((*low, *high), fill=(30, 80, 170))
        x, y = place(row["minutes"], statistics.mean(row["top1"]))
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(30, 80, 170))
        draw.text((x - 8, height - bottom + 10), f"{row['minutes']:.0f}", fill="black")
    label = "minutes of pretraining (top-1 of 320 test videos: mean and range over seeds)"
    draw.text((left, height - 22), label, fill="black")
    image.save(path)


def main() -> None:
    """Run all and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=24, help="of pretraining")
    parser.add_argument("--every", type=int, default=8, help="epochs between two points")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for minutes, weights in pretrain(arguments.epochs, arguments.every):
        name = f"finetune-{minutes:04.1f}"
        top1 = [accuracy(name, seed, weights) for seed in range(arguments.seeds)]
        rows.append({"minutes": minutes, "weights": weights, "top1": top1})
        (RUNS / "results.json").write_text(json.dumps(rows, indent=2))
    draw_curve(rows, RUNS / "curve.png")
    print("\nminutes of pretraining   top-1: mean (each seed)")
    for row in rows:
        each = ", ".join(f"{value:.1%}" for value in row["top1"])
        print(f"{row['minutes']:22.1f}   {statistics.mean(row['top1']):.1%} ({each})")
    print(f"\n{RUNS}/curve.png shows it; reconstructions are in {RUNS}/pretrain/reconstructions")


if __name__ == "__main__":
    main()
