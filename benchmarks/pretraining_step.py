"""Forward and backward of the autoencoder on a CPU, beside the published code.

    python -m benchmarks.pretraining_step [--model hiera_base_16x224] [--threads 2] [--rounds 3]

One clip in float32, 0.9 of the mask units hidden, contenders in turns; then with
``task.decoder_mask_ratio``. Prints a Markdown table of seconds.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.timing import interleave, prepare
from hiera_video import create_mae
from hiera_video.tasks import PretrainingTask
from tests.models.reference import autoencoders


def step_of(name: str, ratio: float, video: torch.Tensor) -> Callable[[], Any]:
    """Our step with a share of the hidden patches that are not decoded."""
    task = PretrainingTask(partial(create_mae, name), decoder_mask_ratio=ratio)
    task.model = task.network()
    seed = torch.tensor([1])
    return lambda: task(video, seed).loss.backward()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="hiera_base_16x224")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, published = autoencoders(arguments.model)
    video = torch.randn(1, 3, *ours.input_size)
    works: dict[str, Callable[[], Any]] = {
        "hiera-transformer": lambda: published(video, mask_ratio=0.9)[0].backward(),
        "ours": step_of(arguments.model, 0.0, video),
        "decoder_mask_ratio 0.5": step_of(arguments.model, 0.5, video),
        "decoder_mask_ratio 0.75": step_of(arguments.model, 0.75, video),
    }
    contenders = [prepare(name, lambda work=work: work, 1) for name, work in works.items()]
    interleave(contenders, arguments.rounds, 1, math.inf)
    print(f"{arguments.model}, one clip, {arguments.threads} threads, torch {torch.__version__}\n")
    print("| | s | of each round | x |\n|---|--:|--:|--:|")
    for contender in contenders:
        rounds = ", ".join(f"{t:.2f}" for t in contender.times)
        ratio = contenders[0].median / contender.median
        print(f"| {contender.name} | {contender.median:.2f} | {rounds} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
