"""Opening a video file safely, and what goes wrong with one."""

import errno
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError

# Containers that hold their media themselves. Playlists and scripts (HLS, DASH, concat, ...) make
# FFmpeg open other files, which a file from the internet must not be able to do.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,ogg,gif,ivf,nut,mxf,rm,dv,"
    "h264,hevc,m4v,obu,yuv4mpegpipe"
)
PYAV = int(av.__version__.split(".")[0])
# Up to 18, a title in another encoding than UTF-8 is an error unless told otherwise.
_ANY_TITLE: dict[str, Any] = {"metadata_errors": "replace"} if PYAV < 19 else {}


class VideoDecodeError(RuntimeError):
    """The file, or the part of it that was asked for, cannot be decoded.

    Attributes:
        path: the file.
        reason: one line, with FFmpeg's message where there is one.
    """

    # Data loaders rebuild a worker's exception from its text alone; hence the default.
    def __init__(self, path: str, reason: str = ""):
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


@contextmanager
def errors_of(path: str) -> Iterator[None]:
    """Turn FFmpeg's errors into a VideoDecodeError. Its log is silent: PyAV's default."""
    try:
        yield
    except FFmpegError as error:
        raise VideoDecodeError(path, str(error.strerror)) from error


def open_container(path: str) -> Any:
    """PyAV's container of a regular local file, which cannot make FFmpeg open another one."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoDecodeError(path, str(error.strerror)) from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoDecodeError(path, "not a file")
    if not status.st_size:
        raise VideoDecodeError(path, "the file is empty")
    allowed = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    try:
        # With a scheme in front, nothing in the name is taken for one ("http:", "concat:").
        return av.open(f"file:{path}", container_options=allowed, **_ANY_TITLE)
    except FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoDecodeError(path, "not one of the video containers read here") from error
        raise


def video_stream(path: str, container: Any) -> Any:
    """The video stream of a container; cover art is none."""
    stream = container.streams.best("video")
    disposition = getattr(stream, "disposition", 0)  # PyAV 15, 16: an enum; 14: unknown
    cover = getattr(disposition, "value", disposition) & 0x400  # AV_DISPOSITION_ATTACHED_PIC
    if stream is None or cover:
        raise VideoDecodeError(path, "it has no video stream")
    if stream.codec_context is None:
        raise VideoDecodeError(path, "this FFmpeg has no decoder for its video stream")
    return stream


def fraction(number: Any) -> Fraction:
    """Normalise PyAV's rationals: None, a Fraction or (from 19) an AVRational; 0 if unset."""
    return Fraction(number.numerator, number.denominator) if number else Fraction(0)


def nearest(number: Fraction) -> int:
    """The nearest integer, halves up."""
    return math.floor(number + Fraction(1, 2))
