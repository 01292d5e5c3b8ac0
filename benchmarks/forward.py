"""Time the forward pass of a classifier beside the published code.

    python benchmarks/forward.py [--model hiera_base_16x224] [--threads 2] [--repeats 5]

Ours and the reference take turns in one process, so that both see the same machine. Prints a
Markdown table of medians for one input.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from hiera_video.models.zoo import MODELS
from tests.models.reference import classifiers


def seconds(model: nn.Module, video: Tensor) -> float:
    """Of one forward pass."""
    start = time.perf_counter()
    model(video)
    return time.perf_counter() - start


@torch.inference_mode()
def medians(name: str, dtype: torch.dtype, repeats: int) -> tuple[float, float]:
    """Seconds of ours and of the reference, after one warm-up of each."""
    pair = [model.to(dtype).eval() for model in classifiers(name)]
    video = torch.randn(1, 3, *MODELS[name]["input_size"]).to(dtype)
    times = [[seconds(model, video) for model in pair] for _ in range(repeats + 1)][1:]
    ours, reference = (statistics.median(column) for column in zip(*times, strict=True))
    return ours, reference


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="hiera_base_16x224", choices=MODELS, metavar="NAME")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.model}, one input, {arguments.threads} threads, torch {torch.__version__}\n")
    print("| weights | ours (s) | hiera-transformer (s) | times faster |")
    print("|---|--:|--:|--:|")
    for dtype in (torch.float32, torch.bfloat16):
        ours, reference = medians(arguments.model, dtype, arguments.repeats)
        label = str(dtype).removeprefix("torch.")
        print(f"| {label} | {ours:.2f} | {reference:.2f} | {reference / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
