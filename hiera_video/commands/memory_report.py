"""What ``doctor`` says about the memory that a training needs."""

from collections.abc import Sequence

import torch

from datamodules.wording import counted
from hiera_video.commands.training_memory import GIB, USABLE, training_memory
from hiera_video.running.training_parts import training_parts

CARD = 80  # GiB of the GPU that is assumed where there is none


def memory_report(config: str, words: Sequence[str], memory: float | None, devices: int) -> str:
    """Estimate what a device needs for training, and how many videos fit into it.

    Args:
        config: name or file of the configuration.
        words: ``key=value`` overrides.
        memory: of a device, in GiB; None: that of the GPU here, or `CARD`.
        devices: number of devices.

    Returns:
        Several lines; one that says why, if no estimate can be made.
    """
    try:
        parts = training_parts(config, words)
        estimate = training_memory(
            parts.task,
            parts.precision,
            averages=parts.averages,
            devices=devices,
            sharded=parts.sharded,
            accumulates=parts.sharded and parts.accumulates(devices),
            bucket_view=parts.bucket_view,
            gpu=parts.accelerator != "cpu",
            size=parts.size,
        )
    except Exception as error:  # a task or network of the user's own may do anything on meta
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"memory in training: no estimate ({reason[:200]})"
    batch, repeats = parts.batch_size, parts.repeats
    clips = batch * repeats
    rows = [(size, name) for name, size in estimate.parts(clips).items() if size]
    rows.append((estimate.peak(clips), "peak"))
    of = f", one of {devices} devices" if devices > 1 else ""
    of += ", sharded" if parts.sharded else ""
    lines = [
        f"memory in training, {batch} x {counted(repeats, 'clips')}, {parts.precision}{of} "
        "(estimated):",
        *(f"{size / GIB:9.2f} GiB  {name}" for size, name in rows),
    ]
    assumed = ""
    if memory is None:
        gpu = torch.cuda.is_available()
        memory = torch.cuda.get_device_properties(0).total_memory / GIB if gpu else CARD
        assumed = "" if gpu else " (assumed; set --memory)"
    device = f"{USABLE:.0%} of {memory:.4g} GiB{assumed}"
    largest = estimate.most_clips(memory * GIB) // repeats
    checkpoints = parts.task.model.grad_checkpointing
    return "\n".join([*lines, _verdict(batch, largest, device, checkpoints)])


def _verdict(batch: int, largest: int, device: str, checkpoints: bool) -> str:
    if batch <= largest:
        return f"data.batch_size={batch} fits into {device}; the largest that fits is {largest}"
    advice = f"data.batch_size={largest} fits" if largest else "not even 1 fits"
    if not checkpoints:
        advice += ". model.grad_checkpointing=true saves most of the activations"
    return f"WARNING: data.batch_size={batch} does not fit into {device}; {advice}"
