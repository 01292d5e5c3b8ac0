"""Time contenders side by side, in rounds, so that all of them see the same machine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

import hiera_video.models.window_attention  # noqa: F401  registers operations counted below

GIB = 2**30


@dataclass
class Contender:
    """Something that is timed.

    Attributes:
        name: as it stands in tables.
        work: what is timed; its calls only start work on the device.
        peak: bytes that it has on the device at most, weights included; 0 on a CPU.
        times: seconds of a call, one for each round.
        difference: of its result from that of the reference, as `difference` measures it.
        error: why it cannot run, such as a lack of memory; empty if it can.
    """

    name: str
    work: Callable[[], Any] = lambda: None
    peak: int = 0
    times: list[float] = field(default_factory=list)
    difference: float | None = None
    error: str = ""

    @property
    def median(self) -> float:
        """Seconds of a call; NaN if it cannot run."""
        return statistics.median(self.times) if self.times else float("nan")

    @property
    def spread(self) -> float:
        """Half of the range of the middle rounds (10 to 90 %), as a share of the median."""
        times = sorted(self.times)
        cut = len(times) // 10
        middle = times[cut : len(times) - cut] or [float("nan")]
        return (middle[-1] - middle[0]) / 2 / self.median


def synchronize() -> None:
    """Wait for the device, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def prepare(name: str, make: Callable[[], Callable[[], Any]], warm_up: int = 3) -> Contender:
    """Build a contender and run it some times, alone, to measure its memory.

    Args:
        name: as it stands in tables.
        make: builds models and inputs and returns the work.
        warm_up: number of calls.
    """
    contender, before = Contender(name), 0
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    try:
        contender.work = make()
        for _ in range(warm_up):
            contender.work()
        synchronize()
    except torch.OutOfMemoryError:
        contender.error = "out of memory"
    except Exception as error:  # a peer's fault must not end the others' measurement
        contender.error = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    if torch.cuda.is_available():
        contender.peak = torch.cuda.max_memory_allocated() - before
    return contender


def interleave(contenders: list[Contender], rounds: int, calls: int, deadline: float) -> None:
    """Time all that can run, in turns.

    Args:
        contenders: their `times` are filled.
        rounds: number of turns of each; fewer, but at least three, if the time is over.
        calls: number of calls in a turn.
        deadline: ``time.monotonic()`` at which the time is over.
    """
    for number in range(rounds):
        if number >= 3 and time.monotonic() > deadline:
            return
        for contender in contenders:
            if contender.error:
                continue
            synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                contender.work()
            synchronize()
            contender.times.append((time.perf_counter() - start) / calls)


def count_flops(work: Callable[[], Any]) -> int:
    """Floating point operations of a call, two for each multiply-add of its matrix products."""
    ours = torch.ops.hiera_video
    formulas = {
        ours.attend_windows: lambda q, k, v, **_: sdpa_flop_count(q, k, v),
        ours.attend_windows_backward: lambda q, k, v, grad, **_: sdpa_backward_flop_count(
            grad, q, k, v
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return counter.get_total_flops()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Norm of the difference as a share of the norm of `b`, both of the same shape."""
    a, b = a.detach().double().flatten(), b.detach().double().flatten()
    return ((a - b).norm() / b.norm()).item()
