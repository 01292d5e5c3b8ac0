"""The whole road on pictures of shapes: pretrain, fine-tune from that, test.

Every step is the command that a user would type; it is printed before it runs.
"""

import os
from pathlib import Path

from benchmarks.demo import RUNS, command, finetune_and_test


def main() -> None:
    """Run the demo and say what lies where."""
    # Threads gain nothing in a network so small, and would wait for the loader's process.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pretrained, folder = RUNS / "images-pretrain", RUNS / "images-finetune"
    seconds = command("fit", "--config", "demo/images_pretrain", f"run_dir={pretrained}")
    extra = f"task.init_from={pretrained}/checkpoints/last.ckpt"
    training, testing, results = finetune_and_test("demo/images_finetune", folder, extra)
    print(f"\npretraining {seconds:.0f} s, fine-tuning {training:.0f} s, test {testing:.0f} s")
    print(f"top-1 {results['top1']:.1%}, top-5 {results['top5']:.1%}\n")
    places: dict[str, Path | str] = {
        "reconstructions": pretrained / "reconstructions",
        "checkpoints": folder / "checkpoints",
        "results": f"{folder}-test/results.json",
    }
    print("\n".join(f"{what:<16} {where}" for what, where in places.items()))


if __name__ == "__main__":
    main()
