"""What torch's CPU allocator hands out, by its own record."""

import json
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

# Convolutions, by the name of what allocates their buffers.
UNFOLDING = {"aten::slow_conv3d_forward", "aten::convolution_backward"}


def most_allocated(work, folder: Path) -> int:
    """The most bytes that the allocator has handed out at once in a function, beyond those before.

    The profiler notes each allocation and release. It knows nothing of tensors, modes or autograd,
    and buffers that kernels use inside are among them; all but those of convolutions, which, on a
    CPU without instructions for bfloat16, unfold the whole input.

    Args:
        work: is called.
        folder: for the profiler's file.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    file = folder / "trace.json"
    profiler.export_chrome_trace(str(file))
    events = sorted(json.loads(file.read_text())["traceEvents"], key=lambda event: event["ts"])
    convolutions = [
        (event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] in UNFOLDING
    ]
    memory = [event for event in events if event["name"] == "[memory]"]
    left_out = _buffers_within(convolutions, memory)
    live, peak = 0, 0
    for index, event in enumerate(memory):
        if index not in left_out:
            live += event["args"]["Bytes"]
            peak = max(peak, live)
    return peak


def _buffers_within(spans: list[tuple[float, float]], memory: list[dict]) -> set[int]:
    """Indices of the allocations that one of the spans of time begins and ends, and of their ends.

    Args:
        spans: begin and end of each.
        memory: the profiler's events, in order.
    """
    found, begun = set(), {}
    for index, event in enumerate(memory):
        address, time = event["args"]["Addr"], event["ts"]
        if event["args"]["Bytes"] > 0:
            span = next((span for span in spans if span[0] <= time <= span[1]), None)
            begun[address] = index, span
        elif address in begun:
            first, span = begun.pop(address)
            if span is not None and time <= span[1]:
                found |= {first, index}
    return found
