"""Time the forward pass of a classifier beside the published code.

    python benchmarks/forward.py [--model hiera_base_16x224] [--threads 2] [--repeats 5]

Three models with the same weights take turns in one process, so that all see the same machine:
ours, the published one, and the published one with nothing changed but its attention, whose windows
are folded into the batch as ours are (4-D queries, for which fused kernels exist). Prints a
Markdown table of medians for one input.
"""

import argparse
import copy
import statistics
import time
from types import MethodType

import torch
import torch.nn.functional as F
from hiera.hiera import MaskUnitAttention
from torch import Tensor, nn

from hiera_video.models.names import MODELS
from tests.models.reference import classifiers


def folded_attention(self: MaskUnitAttention, x: Tensor) -> Tensor:
    """What `MaskUnitAttention.forward` computes, with 4-D queries, keys and values."""
    batch, tokens, _ = x.shape
    windows = tokens // (self.q_stride * self.window_size) if self.use_mask_unit_attn else 1
    # The token axis is (tokens of a window, windows): ``(3, B, windows, heads, L, c)``.
    shape = (batch, -1, windows, 3, self.heads, self.head_dim)
    q, k, v = self.qkv(x).reshape(shape).permute(3, 0, 2, 4, 1, 5)
    if self.q_stride > 1:
        q = q.unflatten(3, (self.q_stride, -1)).amax(dim=3)
    out = F.scaled_dot_product_attention(*(t.flatten(0, 1) for t in (q, k, v)))
    out = out.unflatten(0, (batch, windows)).permute(0, 3, 1, 2, 4)  # (B, L, windows, heads, c)
    return self.proj(out.reshape(batch, -1, self.dim_out))


def fold_attention(model: nn.Module) -> nn.Module:
    """A copy of the published model with `folded_attention`."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, MaskUnitAttention):
            module.forward = MethodType(folded_attention, module)
    return model


def seconds(model: nn.Module, video: Tensor) -> float:
    """Of one forward pass."""
    start = time.perf_counter()
    model(video)
    return time.perf_counter() - start


@torch.inference_mode()
def medians(name: str, dtype: torch.dtype, repeats: int) -> list[float]:
    """Seconds of ours, of the reference, and of that with folded attention; one warm-up each."""
    ours, reference = (model.to(dtype).eval() for model in classifiers(name))
    models = [ours, reference, fold_attention(reference)]
    video = torch.randn(1, 3, *MODELS[name]["input_size"]).to(dtype)
    times = [[seconds(model, video) for model in models] for _ in range(repeats + 1)][1:]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="hiera_base_16x224", choices=MODELS, metavar="NAME")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.model}, one input, {arguments.threads} threads, torch {torch.__version__}\n")
    print("| weights | ours (s) | hiera-transformer (s) | folded (s) | ours x | folded x |")
    print("|---|--:|--:|--:|--:|--:|")
    for dtype in (torch.float32, torch.bfloat16):
        ours, reference, folded = medians(arguments.model, dtype, arguments.repeats)
        print(
            f"| {str(dtype).removeprefix('torch.')} | {ours:.2f} | {reference:.2f} | {folded:.2f} "
            f"| {reference / ours:.2f} | {reference / folded:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
