"""Compare every variant with the published code, with the same random weights.

    python benchmarks/parity.py [--models hiera_tiny_224 ...] [--threads 2]

Prints a Markdown table of ``max|a - b| / max|b|`` in single precision for one input of the
published size. Depth is the published one but for huge, of which one block or two of each stage
run. Gradients are those of the autoencoder's loss, of the worst parameter, for an input of 64x64
pixels: in a large one rounding decides somewhere which of two tokens is the maximum of a pool.
"""

import argparse
from typing import Any

import torch

from hiera_video.models.names import MODELS
from tests.models.reference import classifier_differences, mae_differences

COLUMNS = ("logits", "stages", "loss", "prediction", "target", "gradients")


def row(name: str) -> str:
    """One line of the table."""
    overrides: dict[str, Any] = {"stages": (1, 2, 2, 1)} if "huge" in name else {}
    differences = classifier_differences(name, gradients=False, **overrides)
    differences |= mae_differences(name, gradients=False, **overrides)
    kind = "video" if "16x" in name else "image"
    few = {"input_size": (4, 64, 64) if kind == "video" else (64, 64), "mask_ratio": 0.5}
    differences["gradients"] = mae_differences(name, **few, **overrides)["gradients"]
    depth = "x".join(map(str, overrides.get("stages", MODELS[name]["stages"])))
    numbers = " | ".join(f"{differences[column]:.1e}" for column in COLUMNS)
    return f"| {name} | {kind} | {depth} | {numbers} |"


def main() -> None:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, metavar="NAME")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    columns = ["logits", "stage maps", "MAE loss", "prediction", "target", "gradients"]
    print("| model | input | blocks | " + " | ".join(columns) + " |")
    print("|---" * 3 + "|--:" * len(columns) + "|")
    for name in arguments.models:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
