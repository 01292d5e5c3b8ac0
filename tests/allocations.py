"""What torch's CPU allocator hands out, by its own record."""

import json
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def most_allocated(work, folder: Path) -> int:
    """The most bytes that the allocator has handed out at once in a function, beyond those before.

    The profiler notes each allocation and release. It knows nothing of tensors, modes or autograd,
    and buffers that kernels use inside are among them.

    Args:
        work: is called.
        folder: for the profiler's file.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    file = folder / "trace.json"
    profiler.export_chrome_trace(str(file))
    events = [e for e in json.loads(file.read_text())["traceEvents"] if e["name"] == "[memory]"]
    live, peak = 0, 0
    for event in sorted(events, key=lambda event: event["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return peak
