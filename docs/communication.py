"""The tables of docs/scaling.md on communication and on the loader; docs/scaling.py writes them.

All numbers are estimates. The time of computing is scaled from steps measured on one GPU.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.communication import (
    ETHERNET,
    INFINIBAND,
    STRATEGIES,
    Cluster,
    Sizes,
    Step,
    communication,
    hiding_batch,
    sizes,
    step,
)
from docs.recipes import composed
from hiera_video.models.complexity import training_flops
from hiera_video.running.training_parts import training_parts

KINDS = {"pretrain": "pretraining", "finetune": "fine-tuning"}
MODELS = ("base", "large", "huge")
GPUS = (8, 16, 64, 128, 256, 512)
NAMES = {"ddp": "DDP", "fsdp2": "FSDP2", "hybrid": "hybrid (not supported)"}
NOT_POSSIBLE = "not possible"
MEASURED = {"pretrain": 487, "finetune": 275}  # clips/s: base, compiled, on an H200; benchmarks/
DECODED = 20  # clips per CPU second of the loader; docs/data.md
# Cost of several clips of a file, in clips of a file each; docs/data.md.
ONE_FILE = {2: 1.33, 4: 1.75}
SHAPE = (3, 16, 224, 224)
HEADER = (
    "task", "model", "strategy", "GPUs", "batches x clips of a GPU", "compute (ms)",
    "communication (ms)", "exposed (ms)", "efficiency", "fewest clips", "compute-bound",
)  # fmt: skip
ETHERNET_HEADER = ("task", "model", "strategy", *(f"{gpus} GPUs" for gpus in GPUS))
LOADER_HEADER = (
    "task", "model", "GFLOP of a clip", "clips/s of a GPU", "of 8 GPUs", "videos/s of 8 GPUs",
    "frames/s of 8 GPUs", "cores for 8 GPUs, a file for each clip", "a file for all of a video",
)  # fmt: skip


class Recipe(NamedTuple):
    """What a recipe of Kinetics-400 trains in a step.

    Attributes:
        network: its parameters.
        flops: of training with one clip.
        videos: in a step, on all GPUs.
        most: videos in a batch of a GPU.
        repeats: clips of each video.
    """

    network: Sizes
    flops: int
    videos: int
    most: int
    repeats: int


@cache
def recipe(size: str, kind: str) -> Recipe:
    """Read a recipe, and count its network on the meta device; takes some seconds.

    Args:
        size: one of `MODELS`.
        kind: ``pretrain`` or ``finetune``.
    """
    name = f"kinetics400/{kind}_{size}"
    values, parts = composed(name), training_parts(name, [])
    task: Any = parts.task
    classes = {} if kind == "pretrain" else {"num_classes": values["data"]["num_classes"]}

    def create() -> nn.Module:
        return task.create_network(**classes)

    def loss(network: nn.Module, clip: Tensor) -> Tensor:
        return network(clip).sum()

    with torch.device("meta"):
        network = sizes(create())
    if kind == "pretrain":
        flops = task.training_flops(SHAPE)
    else:
        flops = training_flops(create, loss, SHAPE)
    return Recipe(
        network, flops, values["task"]["batch"]["global"], parts.batch_size, parts.repeats
    )


def clip_seconds(size: str, kind: str) -> float:
    """Seconds that a GPU computes for a clip, at the operations per second measured for base."""
    measured = MEASURED[kind] * recipe("base", kind).flops
    return recipe(size, kind).flops / measured


def batches(trained: Recipe, gpus: int) -> tuple[int, int] | None:
    """Batches in a step and clips in each on a GPU; None: less than one video."""
    videos = trained.videos // gpus
    size = min(videos, trained.most)
    return (videos // size, size * trained.repeats) if videos else None


def estimate(size: str, kind: str, strategy: str, gpus: int, cluster: Cluster) -> Step | None:
    """A step of the recipe, or None if there are more GPUs than videos."""
    trained = recipe(size, kind)
    divided = batches(trained, gpus)
    if divided is None:
        return None
    number, clips = divided
    seconds = clips * clip_seconds(size, kind)
    return step(strategy, trained.network, gpus, cluster, seconds, number)


def line(cells: tuple[str, ...] | list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def row(size: str, kind: str, strategy: str, gpus: int) -> str:
    """A recipe on GPUs that InfiniBand connects."""
    trained, seconds = recipe(size, kind), clip_seconds(size, kind)
    parts = communication(strategy, trained.network, gpus, INFINIBAND)
    fewest = hiding_batch(parts, seconds)
    cells = [KINDS[kind], size, NAMES[strategy], str(gpus)]
    divided = batches(trained, gpus)
    estimated = estimate(size, kind, strategy, gpus, INFINIBAND)
    if divided is None or estimated is None:
        return line([*cells, NOT_POSSIBLE, "", "", "", "", str(fewest), ""])
    number, clips = divided
    times = [f"{1e3 * part:.1f}" for part in estimated]
    bound = "yes" if clips >= fewest else "no"
    share = f"{estimated.efficiency:.1%}".replace("%", " %")
    return line([*cells, f"{number} x {clips}", *times, share, str(fewest), bound])


def ethernet_row(size: str, kind: str, strategy: str) -> str:
    """Efficiency of a recipe on all numbers of GPUs, with Ethernet between machines."""
    steps = [estimate(size, kind, strategy, gpus, ETHERNET) for gpus in GPUS]
    shares = [f"{one.efficiency:.0%}".replace("%", " %") if one else NOT_POSSIBLE for one in steps]
    return line([KINDS[kind], size, NAMES[strategy], *shares])


def loader_row(size: str, kind: str) -> str:
    """What eight GPUs that never wait take from their loaders."""
    trained, rate = recipe(size, kind), 1 / clip_seconds(size, kind)
    shared = f"{8 * rate / trained.repeats * ONE_FILE[trained.repeats] / DECODED:.0f}"
    return line(
        [
            KINDS[kind],
            size,
            f"{trained.flops / 1e9:.0f}",
            f"{rate:.0f}",
            f"{8 * rate:.0f}",
            f"{8 * rate / trained.repeats:.0f}",
            f"{8 * rate * SHAPE[1]:.0f}",
            f"{8 * rate / DECODED:.0f}",
            shared,
        ]
    )


def rows_of(size: str, kind: str) -> list[str]:
    """All rows of a recipe on InfiniBand; only huge is sharded."""
    strategies = STRATEGIES if size == "huge" else ("ddp",)
    return [row(size, kind, strategy, gpus) for strategy in strategies for gpus in GPUS]


def communication_tables() -> str:
    """InfiniBand, then Ethernet, then the loader."""
    recipes = [(size, kind) for kind in KINDS for size in MODELS]
    lines = ["400 Gb/s of InfiniBand for each GPU:", ""]
    lines += [line(HEADER), "|---|---|---|" + "--:|" * 7 + "---|"]
    lines += [text for one in recipes for text in rows_of(*one)]
    lines += ["", "Efficiency with 25 Gb/s of Ethernet for a machine of 8 GPUs:", ""]
    lines += [line(ETHERNET_HEADER), "|---|---|---|" + "--:|" * len(GPUS)]
    for size, kind in recipes:
        strategies = STRATEGIES if size == "huge" else ("ddp",)
        lines += [ethernet_row(size, kind, strategy) for strategy in strategies]
    lines += ["", "What the loader must deliver if GPUs never wait:", ""]
    lines += [line(LOADER_HEADER), "|---|---|" + "--:|" * (len(LOADER_HEADER) - 2)]
    lines += [loader_row(*one) for one in recipes]
    return "\n".join(lines) + "\n"
