"""Video files for tests, written through PyAV."""

import os
import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def moving_frames(count: int, height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    """A smooth texture that drifts and changes: uint8 (count, height, width, 3), all different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    t = np.arange(count, dtype=np.float32)[:, None, None]
    channels = []
    for _ in range(3):
        fx, fy, speed = rng.uniform(0.05, 0.3, 3)
        wave = np.sin(fx * x + fy * y + 3 * speed * t) + np.sin(fy * x - fx * y - 2 * speed * t)
        channels.append(127 + 55 * wave)
    frames = np.stack(channels, axis=-1) + rng.normal(0, 2, (count, height, width, 1))
    return frames.clip(0, 255).astype(np.uint8)


def encode(
    frames: Iterable[np.ndarray | av.VideoFrame],
    stream: Any,
    pts: Sequence[int] | None = None,
) -> list[av.Packet]:
    """All packets of some frames; ``pts`` in ticks of the stream's rate, by default 0, 1, 2, ..."""
    packets = []
    for i, frame in enumerate(frames):
        if not isinstance(frame, av.VideoFrame):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        if frame.format.name != stream.pix_fmt:
            frame = frame.reformat(format=stream.pix_fmt)
        frame.pts = i if pts is None else pts[i]
        frame.time_base = stream.codec_context.time_base
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def write_video(
    path: str | Path,
    frames: Sequence[np.ndarray | av.VideoFrame] | np.ndarray,
    rate: int | Fraction = 30,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] | None = None,
    start: int = 0,
    rotation: int = 0,
    tags: dict[str, int] | None = None,
    format: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write frames, RGB uint8 (n, H, W, 3) or PyAV's own, to a video file.

    Args:
        pts: when each frame starts, in frames (1 / rate seconds); by default one after another.
        start: frames by which all timestamps of the finished packets are moved. Below 0, an MP4
            file gets an edit list that hides what comes before 0.
        rotation: degrees counterclockwise by which the file asks to turn frames for display.
        tags: attributes of the codec context, such as ``colorspace`` and ``color_range``.
        format: of the container; by default as the file's name ends.
    """
    first = frames[0]
    height, width = (
        (first.height, first.width) if isinstance(first, av.VideoFrame) else first.shape[:2]
    )
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = 1 / Fraction(rate)
        stream.codec_context.thread_count = 1
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for packet in encode(frames, stream, pts):
            shift = int(start / (Fraction(rate) * packet.time_base))
            packet.pts += shift
            packet.dts += shift
            container.mux(packet)
    if codec == "libsvtav1" and sys.platform == "linux":
        # For root, this encoder makes the calling thread a real-time one. PyTorch's threads, which
        # inherit that, then wait for each other by spinning, for minutes or for ever.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return Path(path)
