"""A video file written anew for training: smaller, and quick to enter at any frame.

Three things make it quick: a keyframe every second; three frames in four that no other frame
depends on, so that they can be skipped; and the entropy code that is cheaper to read.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from datamodules.errors import VideoDecodeError
from datamodules.files import atomic_file
from datamodules.video.container import Source, errors_of, name_of
from datamodules.video.decoding import VideoFile
from datamodules.video.in_order import InOrder, Watched, nothing
from datamodules.video.orientation import Orientation, orientation
from datamodules.video.probing import Facts, probe

_BICUBIC = 0x4  # older releases have no name for it
# dB. Another scene or no picture is below this, even pure noise that was coded coarsely above.
_LEAST_PSNR = 15.0
_COMPARED = 3  # frames that are compared with the source
_COLOURS = ("colorspace", "color_range", "color_primaries", "color_trc")


@dataclass(frozen=True)
class Encoding:
    """How files are written. The table in ``docs/data.md`` gives the reasons for the defaults.

    Attributes:
        short_side: pixels; a smaller picture keeps its size.
        gop: greatest number of frames from a keyframe to the next.
        crf: quality of x264, from 0 (lossless) to 51 (worst); 6 more halve the size, about.
        cabac: use the denser and slower entropy code.

    Raises:
        ValueError: a number is out of range.
    """

    short_side: int = 256
    gop: int = 32
    crf: int = 20
    cabac: bool = False

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.gop < 1 or not 0 <= self.crf <= 51:
            raise ValueError(
                f"short side {self.short_side}, GOP {self.gop}, CRF {self.crf}: "
                "expected at least 16, at least 1, and 0 to 51"
            )


def transcode(
    source: str | Source,
    target: Path,
    encoding: Encoding,
    *,
    scratch: Path | None = None,
    alive: Callable[[], None] = nothing,
) -> Facts:
    """Write a file as H.264 (yuv420p, mp4) with the same frames at the same times, without sound.

    Pictures are turned for display and scaled to the short side, with an even width and height;
    colour matrix and range stay, and pixels that are displayed wide or tall are still. The new file
    is decoded to its end and compared with the source before it appears under its name.

    Args:
        source: a local file, or another source that `VideoFile` takes; it is not changed.
        target: the file to write; its folder must exist.
        encoding: how to write it.
        scratch: folder on the same file system for the unfinished file; by default the target's.
        alive: called now and then while files are read.

    Returns:
        Facts of the new file.

    Raises:
        VideoDecodeError: the source is damaged, or the new file differs from it.
        OSError: the target cannot be written.
    """
    with atomic_file(target, scratch) as temporary:
        try:
            starts = _write(source, temporary, encoding, alive)
        except FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
        facts = probe(str(temporary), alive=alive)
        if fault := _fault(Watched(source, alive), temporary, facts, starts):
            raise VideoDecodeError(name_of(source), f"transcoding failed: {fault}")
    return facts


def _write(
    source: str | Source, path: Path, encoding: Encoding, alive: Callable[[], None]
) -> list[Fraction]:
    """Write the file; return when each frame starts, in seconds after the first."""
    with VideoFile(source) as file:
        rate, shape = file.rate, _even_size(file.width, file.height, encoding.short_side)
    with VideoFile(Watched(source, alive)) as file:
        duration = Fraction(file.duration)
    pictures = _Pictures(*shape)
    starts: list[int] = []
    with InOrder(source, alive) as frames, _writer(path) as container:
        stream: Any = None
        packets = _Packets(container)
        for timed in frames:
            starts.append(timed.start)
            with errors_of(name_of(source)):
                picture = pictures(timed.frame)
                if stream is None:
                    stream = _stream(container, picture, rate, frames.time_base, encoding)
                    if frames.pixel_aspect != 1:
                        aspect = _pixel_aspect(frames.pixel_aspect, timed.frame, picture)
                        stream.codec_context.sample_aspect_ratio = aspect
                picture.pts, picture.time_base = timed.start - starts[0], frames.time_base
                picture.pict_type = 0  # else x264 repeats the source's keyframes
                picture.duration = timed.end - timed.start
                encoded = stream.encode(picture)
            packets.write(encoded)
        packets.write(stream.encode(None))
        packets.end(round(duration / frames.time_base))
        return [(start - starts[0]) * frames.time_base for start in starts]


def _writer(path: Path) -> Any:
    # The index goes in front: one read tells where everything is.
    return av.open(os.fspath(path), "w", format="mp4", options={"movflags": "+faststart"})


def _stream(
    container: Any, picture: Any, rate: Fraction, time_base: Fraction, encoding: Encoding
) -> Any:
    # Always three B-frames in a row, none of which is a reference.
    params = f"b-adapt=0:b-pyramid=none:cabac={int(encoding.cabac)}"
    options = {"crf": str(encoding.crf), "g": str(encoding.gop), "bf": "3", "x264-params": params}
    stream = container.add_stream("libx264", rate=rate.limit_denominator(1001), options=options)
    stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
    codec = stream.codec_context
    codec.time_base = time_base
    codec.thread_count = 1
    for name in _COLOURS:
        setattr(codec, name, int(getattr(picture, name)))
    return stream


def _pixel_aspect(stored: Fraction, frame: Any, picture: Any) -> Fraction:
    """Width by height of a pixel of the picture, so that it is displayed in the frame's shape."""
    shape = stored * Fraction(frame.width, frame.height)
    shape = 1 / shape if orientation(frame).transposed else shape
    return (shape * Fraction(picture.height, picture.width)).limit_denominator(4096)


class _Packets:
    """Writes packets, the last of which tells when the video ends.

    The header of an MP4 adds up the times from each decoding to the next. Where the rate varies,
    and pictures are reordered, these are not the times for which frames are on display.
    """

    def __init__(self, container: Any) -> None:
        self._container = container
        self._last: Any = None
        self._first_dts = 0

    def write(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            if self._last is None:
                self._first_dts = packet.dts
            else:
                self._container.mux(self._last)
            self._last = packet

    def end(self, duration: int) -> None:
        """Write the last packet; the video lasts so many ticks."""
        self._last.duration = max(1, self._first_dts + duration - self._last.dts)
        self._container.mux(self._last)


class _Pictures:
    """Turns decoded frames into what is encoded: yuv420p, turned, scaled, in the same colours.

    Args:
        width: of the new pictures, pixels, even.
        height: of the new pictures, pixels, even.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._reformatter = VideoReformatter()
        self._turn: Orientation | None = None

    def __call__(self, frame: Any) -> Any:
        turn = self._turn = self._turn or orientation(frame)
        transposed, upside_down, mirrored = turn
        size = (self.height, self.width) if transposed else (self.width, self.height)
        colours: dict[str, Any] = {}
        if frame.format.is_rgb:  # RGB has no matrix that could be kept
            colours = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG}
        # Turned as it is, subsampled chroma would be up to a pixel beside where it belongs.
        pixels = "yuv444p" if any(turn) else "yuv420p"
        picture = self._reformatter.reformat(
            frame, *size, pixels, interpolation=_BICUBIC, **colours, threads=1
        )
        if not any(turn):
            return picture
        planes: np.ndarray = picture.to_ndarray()  # (3, height, width)
        planes = planes.swapaxes(1, 2) if transposed else planes
        planes = planes[:, :: -1 if upside_down else 1, :: -1 if mirrored else 1]
        turned = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), "yuv444p")
        for name in _COLOURS:
            setattr(turned, name, getattr(picture, name))
        return turned.reformat(format="yuv420p", interpolation=_BICUBIC, threads=1)


def _even_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height, both even; the short side is at most about ``short_side``, in pixels."""
    scale = min(Fraction(1), Fraction(short_side, min(width, height)))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _fault(source: Source, path: Path, facts: Facts, starts: list[Fraction]) -> str:
    """What is wrong with the new file, one line; empty if nothing is."""
    if not facts.ok:
        return facts.reason
    if facts.num_frames != len(starts):
        return f"the new file has {facts.num_frames} of {len(starts)} frames"
    times = [
        float(starts[i * (len(starts) - 1) // max(1, _COMPARED - 1)]) for i in range(_COMPARED)
    ]
    with VideoFile(source) as old, VideoFile(path) as new:
        last_frames = 2 / min(old.rate, new.rate)
        if abs(old.duration - new.duration) > last_frames:
            return f"it lasts {new.duration:.2f} s, the source {old.duration:.2f} s"
        expected = old.frames_at(times, size=(new.height, new.width))
        written = new.frames_at(times)
    psnr = min(map(peak_signal_to_noise, expected, written))
    return f"the PSNR of a frame is only {psnr:.1f} dB" if psnr < _LEAST_PSNR else ""


def peak_signal_to_noise(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR in dB of two uint8 arrays of one shape; infinite where they are equal."""
    error = np.square(one.astype(np.float64) - other).mean()
    return 10 * math.log10(255**2 / error) if error else math.inf
