"""Write the tables of memory in docs/scaling.md. Takes some minutes.

python docs/scaling.py            # after networks, recipes or the estimate were changed
"""

from pathlib import Path

from hiera_video.commands.training_memory import GIB, TrainingMemory, training_memory
from hiera_video.models.names import WIDTHS
from hiera_video.running.training_parts import training_parts

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
CARD = 80  # GiB
KINDS = {"pretrain": "pretraining", "finetune": "fine-tuning"}
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
        parts.task, parts.precision, devices=devices, sharded=sharded, bucket_view=True
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


def line(cells: tuple[str, ...] | list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def tables() -> str:
    """All models on one device; huge on several."""
    lines = [line(HEADER), "|---|---|" + "--:|" * (len(HEADER) - 2)]
    lines += [row(size, kind) for size in WIDTHS for kind in KINDS]
    lines += ["", "Huge with checkpointing, on each of several devices:", ""]
    lines += [line(DEVICES_HEADER), "|---|--:|---|" + "--:|" * (len(DEVICES_HEADER) - 3)]
    lines += [devices_row(kind, *devices) for kind in KINDS for devices in DEVICES]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the tables that belong in it."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
