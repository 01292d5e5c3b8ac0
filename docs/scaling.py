"""Write the tables of docs/scaling.md, after networks, recipes or an estimate were changed.

python -m docs.scaling                  # takes some minutes
python -m docs.scaling communication    # only the tables of communication; seconds
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from docs.communication import KINDS, communication_tables, line
from hiera_video.commands.training_memory import GIB, TrainingMemory, training_memory
from hiera_video.models.names import WIDTHS
from hiera_video.running.training_parts import training_parts

PAGE = Path(__file__).with_suffix(".md")
CARD = 80  # GiB
WITHOUT_RECIPE = ("tiny", "small")  # they take that of base
DEVICES = ((1, False), (8, False), (8, True), (64, True))  # number, sharded
HEADER = (
    "model", "task", "batch", "weights, gradients, optimiser", "activations of a clip (MiB)",
    "peak", "largest batch", "activations of a clip, checkpointing (MiB)", "peak", "largest batch",
)  # fmt: skip
DEVICES_HEADER = (
    "task", "devices", "", "weights, gradients, optimiser", "gathered", "peak", "largest batch",
)  # fmt: skip


def estimate(
    size: str, kind: str, checkpointing: bool, devices: int = 1, sharded: bool = False
) -> tuple[int, TrainingMemory]:
    """Clips on a device in the recipe of Kinetics-400, and the memory of its training.

    Args:
        size: a name in `WIDTHS`.
        kind: ``pretrain`` or ``finetune``.
        checkpointing: recompute blocks in the backward pass.
        devices: number of them.
        sharded: they share weights, gradients and optimiser state.
    """
    recipe = "base" if size in WITHOUT_RECIPE else size
    words = [f"model.name=hiera_{size}_16x224", f"model.grad_checkpointing={checkpointing}"]
    parts = training_parts(f"kinetics400/{kind}_{recipe}", words)
    memory = training_memory(
        parts.task,
        parts.precision,
        devices=devices,
        sharded=sharded,
        accumulates=parts.batch_size * devices < parts.task.budget.batch,
        bucket_view=True,
    )
    return parts.batch_size * parts.repeats, memory


def fixed(memory: TrainingMemory) -> str:
    """Weights, gradients and optimiser state in GiB."""
    return f"{(memory.weights + memory.gradients + memory.optimizer) / GIB:.1f}"


def row(size: str, kind: str) -> str:
    """The row of a model: without checkpointing, then with it."""
    cells = [size, KINDS[kind]]
    for checkpointing in (False, True):
        clips, memory = estimate(size, kind, checkpointing)
        cells += [] if checkpointing else [str(clips), fixed(memory)]
        cells += [
            f"{int(memory.activations.per_clip.max()) / 2**20:.0f}",
            f"{memory.peak(clips) / GIB:.1f}",
            f"{memory.most_clips(CARD * GIB)}",
        ]
    return line(cells)


def devices_row(kind: str, devices: int, sharded: bool) -> str:
    """The row of huge with checkpointing on several devices."""
    clips, memory = estimate("huge", kind, True, devices, sharded)
    how = "sharded" if sharded else "DDP" if devices > 1 else ""
    return line(
        [
            KINDS[kind],
            str(devices),
            how,
            fixed(memory),
            f"{memory.gathered / GIB:.1f}",
            f"{memory.peak(clips) / GIB:.1f}",
            f"{memory.most_clips(CARD * GIB)}",
        ]
    )


def memory_tables() -> str:
    """All models on one device; huge on several."""
    lines = [line(HEADER), "|---|---|" + "--:|" * (len(HEADER) - 2)]
    lines += [row(size, kind) for size in WIDTHS for kind in KINDS]
    lines += ["", "Huge with checkpointing, on each of several devices:", ""]
    lines += [line(DEVICES_HEADER), "|---|--:|---|" + "--:|" * (len(DEVICES_HEADER) - 3)]
    lines += [devices_row(kind, *devices) for kind in KINDS for devices in DEVICES]
    return "\n".join(lines) + "\n"


TABLES = {"memory": memory_tables, "communication": communication_tables}


def page(names: Sequence[str]) -> str:
    """The page with new tables between the markers of these `TABLES`."""
    text = PAGE.read_text()
    for name in names:
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{TABLES[name]()}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(sys.argv[1:] or list(TABLES)))
