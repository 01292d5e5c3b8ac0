"""The facts of one video file, found out by decoding it to its end."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from datamodules.errors import UnreadableVideo, VideoDecodeError
from datamodules.suffixes import PICTURES
from datamodules.video.container import Source, decode_error, name_of, reason_of
from datamodules.video.decoding import VideoFile
from datamodules.video.frame_folder import FrameFolder
from datamodules.video.in_order import InOrder, Watched, nothing
from datamodules.video.orientation import orientation
from datamodules.video.pictures import PictureFile

_CUT_OFF_FRAMES = 2  # a header may promise this many too many, as in `frame_reader`


class Facts(NamedTuple):
    """What is known about a video or a picture; None is unknown, or does not apply."""

    duration: float | None = None  # seconds
    num_frames: int | None = None  # that are displayed
    rate: float | None = None  # frames per second, on average
    width: int | None = None  # pixels, as displayed
    height: int | None = None  # pixels, as displayed
    rotation: int | None = None  # degrees counterclockwise, from stored to displayed
    codec: str | None = None
    keyframe_spacing: int | None = None  # frames from a keyframe to the next, at most
    ok: bool = False  # nothing is wrong with it
    reason: str = ""  # what is wrong, one line; empty where ok


def probe(
    source: str | Source, every_frame: bool = True, alive: Callable[[], None] = nothing
) -> Facts:
    """Find out about a file. Whatever is wrong with it is in the answer.

    Args:
        source: a local file, a folder of frames, or another source that `VideoFile` takes.
        every_frame: decode all of it. Else, the first frame is decoded and the packets of the rest
            are read: that finds most files that were cut off, but hardly any other damage.
        alive: called now and then while the file is read.

    Raises:
        UnreadableVideo: the storage does not give the file, so nothing is known about it.
    """
    facts: dict[str, Any] = {}
    name = name_of(source)
    try:
        if isinstance(source, str) and os.path.isdir(source):
            return folder_facts(source, every_frame, alive)
        if PICTURES.has(name):
            return picture_facts(source)
        with VideoFile(source) as file:
            facts |= {"rate": float(file.rate), "width": file.width, "height": file.height}
        with VideoFile(Watched(source, alive)) as file:
            facts["duration"] = file.duration  # may read the whole file
        with InOrder(source, alive) as frames:
            facts["codec"], facts["rotation"] = frames.codec, _rotation(next(iter(frames)).frame)
        with InOrder(source, alive) as frames:
            seconds = frames.decode_all() if every_frame else frames.read_packets()
            facts["num_frames"] = frames.num_frames
            facts["keyframe_spacing"] = frames.keyframe_spacing
        if (facts["duration"] - seconds) * facts["rate"] > _CUT_OFF_FRAMES + 0.01:
            raise VideoDecodeError("", f"cut off after {seconds:.2f} s")
    except UnreadableVideo:
        raise
    except VideoDecodeError as error:
        return Facts(**facts, reason=_one_line(error.reason))
    except Exception as error:  # among a million files is one that nobody expected
        if isinstance(unread := decode_error(name, error), UnreadableVideo):
            raise unread from error
        return Facts(**facts, reason=reason_of(error))
    return Facts(**facts, ok=True)


def picture_facts(source: str | Source) -> Facts:
    """Facts of a picture, which is decoded.

    Args:
        source: as of `PictureFile`.

    Raises:
        VideoDecodeError: the file cannot be read.
    """
    with PictureFile(source) as file:
        facts = Facts(
            num_frames=1,
            width=file.width,
            height=file.height,
            rotation=file.rotation,
            codec=file.codec,
            ok=True,
        )
        file.frames_at([0])
    return facts


def folder_facts(path: str, every_frame: bool, alive: Callable[[], None]) -> Facts:
    """Facts of a folder of frames, which does not tell their rate; the arguments are as of `probe`.

    Raises:
        VideoDecodeError: a picture is missing or cannot be read.
    """
    with FrameFolder(path) as folder:
        folder.read(None if every_frame else 1, alive)
        size = folder.width, folder.height
        return Facts(None, folder.num_frames, None, *size, ok=True)


def _rotation(frame: Any) -> int:
    """Degrees counterclockwise by which a frame is turned for display; mirroring is ignored."""
    transposed, upside_down, _ = orientation(frame)
    return (90 if upside_down else 270) if transposed else (180 if upside_down else 0)


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "it cannot be decoded"


def stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size (bytes) and time of change (ns since 1970) of a file; (-1, -1) where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, min(status.st_mtime_ns, 2**63 - 1)  # in the year 2262
