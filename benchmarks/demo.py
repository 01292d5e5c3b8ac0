"""The whole road on synthetic videos: pretrain, fine-tune from that, test with 2 x 3 views.

Every step is the command that a user would type; it is printed before it runs.
With --scratch, the same fine-tuning and test from random weights, to compare with.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

RUNS = Path("runs/demo", time.strftime("%Y%m%d-%H%M%S"))


def command(*words: str) -> float:
    """Run one command of the suite; returns its seconds, or exits with its code if it fails."""
    print("\n$ python -m hiera_video", *words, flush=True)
    start = time.perf_counter()
    # Ctrl-C reaches the command, too, which saves and says how to go on.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run([sys.executable, "-m", "hiera_video", *words]).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        sys.exit(code)
    return time.perf_counter() - start


def finetune_and_test(
    config: str, folder: Path, *extra: str
) -> tuple[float, float, dict[str, float]]:
    """Fine-tune with a configuration into a folder, and test beside it.

    Returns:
        Seconds of both, and the test's results.
    """
    tested = folder.with_name(folder.name + "-test")
    training = command("fit", "--config", config, f"run_dir={folder}", *extra)
    testing = command("test", "--config", config, f"ckpt_path={folder}", f"run_dir={tested}")
    return training, testing, json.loads((tested / "results.json").read_text())


def main() -> None:
    """Run the demo and say what lies where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", action="store_true", help="only fine-tune from random weights")
    parser.add_argument("--seed", type=int, help="of training; left out, that of the configuration")
    arguments = parser.parse_args()
    scratch = arguments.scratch
    seed = () if arguments.seed is None else (f"seed={arguments.seed}",)
    rows = []
    if scratch:
        name, folder = "from scratch", RUNS / "scratch"
        extra = seed
    else:
        name, folder = "from pretraining", RUNS / "finetune"
        pretrained = RUNS / "pretrain"
        seconds = command("fit", "--config", "demo/pretrain", f"run_dir={pretrained}", *seed)
        rows.append(("pretraining", seconds))
        extra = (f"task.init_from={pretrained}/checkpoints/last.ckpt", *seed)
    training, testing, results = finetune_and_test("demo/finetune", folder, *extra)
    rows += [("fine-tuning", training), ("test", testing)]
    print("\n" + "\n".join(f"{step:<12} {seconds:6.0f} s" for step, seconds in rows))
    print(f"all          {sum(seconds for _, seconds in rows):6.0f} s")
    print(f"{name}: top-1 {results['top1']:.1%}, top-5 {results['top5']:.1%}\n")
    tensorboard = f"tensorboard --logdir {RUNS}"
    places = {
        "reconstructions": RUNS / "pretrain/reconstructions",
        "checkpoints": folder / "checkpoints",
        "results": f"{folder}-test/results.json",
        "every view's probabilities": f"{folder}-test/predictions.parquet",
        "curves and pictures": f"{Path(sys.executable).parent}/{tensorboard}",
    }
    if scratch:
        del places["reconstructions"]
    print("\n".join(f"{what:<28} {where}" for what, where in places.items()))


if __name__ == "__main__":
    main()
