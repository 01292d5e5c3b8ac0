"""Action detection on synthetic videos: pretrain, classify, detect, test; and without motion.

Every step is the command that a user would type; it is printed before it runs. The control is the
same detector on one frame of each clip, repeated: at data.fps=1e9 all frames are the keyframe. With
--train-control, another one is also trained on such clips, with the same budget.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

RUNS = Path("runs/detection", time.strftime("%Y%m%d-%H%M%S"))
STILL = "data.fps=1.0e9"
METRIC = "mAP@0.5IOU"


def command(*words: str) -> float:
    """Run one command of the suite; returns its seconds."""
    print("\n$ python -m hiera_video", *words, flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hiera_video", *words], check=True)
    return time.perf_counter() - start


def fit(config: str, name: str, *extra: str) -> tuple[str, float]:
    """Folder of a training, and its seconds."""
    folder = RUNS / name
    return str(folder), command("fit", "--config", config, f"run_dir={folder}", *extra)


def tested(trained: str, name: str, *extra: str) -> dict:
    """Results of a detector on the held-out files, by the official protocol."""
    folder = RUNS / name
    words = ("--config", "demo/detect", f"ckpt_path={trained}", f"run_dir={folder}")
    command("test", *words, *extra)
    return json.loads((folder / "results.json").read_text())


def main() -> None:
    """Run all and print both mAPs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init-from", help="weights to start from; else the demo makes them")
    parser.add_argument("--train-control", action="store_true", help="train without motion as well")
    parser.add_argument("overrides", nargs="*", help="of the detector's training, as key=value")
    arguments = parser.parse_args()
    init_from, seconds = arguments.init_from, {}
    if init_from is None:
        pretrained, seconds["pretraining"] = fit("demo/pretrain", "pretrain")
        start = f"task.init_from={pretrained}"
        init_from, seconds["classification"] = fit("demo/finetune", "finetune", start)
    start = f"task.init_from={init_from}"
    detector, seconds["detection"] = fit("demo/detect", "detect", start, *arguments.overrides)
    results = {
        "clips": tested(detector, "detect-test"),
        "a frame of each, repeated": tested(detector, "still-test", STILL),
    }
    if arguments.train_control:
        extra = (start, STILL, *arguments.overrides)
        control, seconds["detection without motion"] = fit("demo/detect", "still", *extra)
        name = "the same, also in training"
        results[name] = tested(control, "control-test", STILL)

    print("\n" + "\n".join(f"{step:<26} {time_:6.0f} s" for step, time_ in seconds.items()))
    names = list(results["clips"]["per_class"])
    width = max(map(len, results))
    print(f"\n{'':<{width}} {METRIC:>11} " + " ".join(f"{name:>9}" for name in names))
    for what, result in results.items():
        values = " ".join(f"{result['per_class'][name]:9.3f}" for name in names)
        print(f"{what:<{width}} {result[METRIC]:11.4f} {values}")
    print(f"\nprotocol: {results['clips']['protocol']}; files in {RUNS}")


if __name__ == "__main__":
    main()
