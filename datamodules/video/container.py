"""Opening a video file safely."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

import av
from av.error import FFmpegError, InvalidDataError

from datamodules.errors import UnreadableVideo, VideoDecodeError
from datamodules.wording import described

# Containers that hold their media themselves. Playlists and scripts (HLS, DASH, concat, ...) make
# FFmpeg open other files; a file from the internet must not be able to do that.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,ogg,gif,ivf,nut,mxf,rm,dv,"
    "h264,hevc,m4v,obu,yuv4mpegpipe"
)
# 8K is the largest frame. A few bytes of a header can claim more, which would cost gigabytes.
LARGEST = {"max_pixels": str(1 << 25)}
# Matrices of H.273 that swscale does not know, or took for another one in earlier releases.
_UNKNOWN_COLOURS = {
    8: "YCgCo",
    10: "BT.2020 of constant luminance",
    11: "Y'D'zD'x",
    12: "chroma-derived",
    13: "chroma-derived of constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
PYAV = int(av.__version__.split(".")[0])
# What the system answers where a file cannot be had, or the storage fails. FFmpeg says some of them
# of damaged files, too.
_OF_FFMPEG_TOO = {errno.ENOENT, errno.EPERM, errno.EIO, errno.ENXIO, errno.EBUSY}
_OF_STORAGE = {
    *(errno.ENOTDIR, errno.EACCES, errno.ENODEV, errno.ESTALE, errno.EREMOTEIO, errno.ENOTCONN),
    *(errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ESHUTDOWN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOLINK),
    *(errno.EMFILE, errno.ENFILE),
}
# Why a file cannot be read now, though it is there.
STORAGE_REASONS = frozenset(map(os.strerror, (_OF_STORAGE | _OF_FFMPEG_TOO) - {errno.ENOENT}))
# Up to PyAV 18, a title that is not UTF-8 is an error by default.
_ANY_TITLE: dict[str, Any] = {"metadata_errors": "replace"} if PYAV < 19 else {}


class Source(Protocol):
    """What can be opened in place of a path: part of a larger file, or an object in a storage."""

    @property
    def name(self) -> str:
        """The name that error messages use."""
        ...

    def open(self) -> BinaryIO:
        """A seekable binary file object that holds the video alone. Its failures are OSErrors."""
        ...


def name_of(source: str | Source) -> str:
    """The name that error messages use: a path, or that of another source."""
    return source if isinstance(source, str) else source.name


def checked_source(source: str | os.PathLike[str] | Source) -> str | Source:
    """A path as text, or a source as it is.

    Raises:
        TypeError: it is neither, such as an array, bytes or an open file.
    """
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(getattr(source, "name", None), str) and callable(getattr(source, "open", None)):
        return source
    raise TypeError(f"expected the path of a video or picture, not {described(source)}")


@contextmanager
def errors_of(path: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into a VideoDecodeError; see `decode_error`.

    Beside errors of FFmpeg and of reading, PyAV raises nearly anything at a file it does not
    expect, such as a ValueError at a kind of side data that is newer than itself.
    """
    try:
        yield
    except VideoDecodeError:
        raise
    except Exception as error:
        raise decode_error(path, error) from error


def decode_error(path: str, error: Exception) -> VideoDecodeError:
    """The error to raise in place of another one: UnreadableVideo if the storage is at fault.

    Args:
        path: of the file, or its name in messages.
        error: from the system, FFmpeg or whatever reads the file.
    """
    if isinstance(error, FFmpegError):
        of_storage = error.errno in _OF_STORAGE or _storage_fails(path)
    else:
        of_storage = isinstance(error, OSError) and error.errno in _OF_STORAGE | _OF_FFMPEG_TOO
    return (UnreadableVideo if of_storage else VideoDecodeError)(path, reason_of(error))


def _storage_fails(path: str) -> bool:
    """Whether a file exists and its first and last bytes cannot be read now.

    One that does not exist may be a name in a packed data set.
    """
    try:
        with open(path, "rb") as file:
            file.read(1)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            file.read(1)
    except OSError as error:
        return error.errno in (_OF_STORAGE | _OF_FFMPEG_TOO) - {errno.ENOENT, errno.ENOTDIR}
    return False


def reason_of(error: Exception) -> str:
    """What went wrong, one line."""
    if isinstance(error, FFmpegError | OSError):
        return " ".join(str(error.strerror or error).split()) or type(error).__name__
    return " ".join(f"{type(error).__name__}: {error}".split())


def open_container(
    source: str | Source, file: BinaryIO | None = None
) -> tuple[Any, BinaryIO | None]:
    """Open a regular local file, or a source, so that FFmpeg cannot be made to open another one.

    Args:
        source: a path or a source.
        file: what an earlier call returned for this source, to read again; it is closed if that
            fails.

    Returns:
        PyAV's container, and the file object that it reads; close that after the container. It is
        None where the source is a path.

    Raises:
        VideoDecodeError: not a regular file, empty, or no container that holds a video itself.
        UnreadableVideo: there is no such path.
        OSError, FFmpegError: the file cannot be opened or read; see `errors_of`.
    """
    if not isinstance(source, str):
        file = file or source.open()
        try:
            if not file.seek(0, os.SEEK_END):
                raise VideoDecodeError(source.name, "the file is empty")
            file.seek(0)
            return _open(_Named(source.name, file), source.name, "none"), file
        except BaseException:
            file.close()
            raise
    try:
        status = os.stat(source)
    except OSError as error:
        raise decode_error(source, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoDecodeError(source, "not a file")
    if not status.st_size:
        raise VideoDecodeError(source, "the file is empty")
    # With this scheme in front, nothing in the name is taken for one ("http:", "concat:").
    return _open(f"file:{source}", source, "file"), None


class _Named:
    """A file object as PyAV wants it. All that its name tells FFmpeg is the suffix."""

    def __init__(self, name: str, file: BinaryIO):
        self.name = f"file:{os.path.basename(name)}"
        self._read, self.seek, self.tell = file.read, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; PyAV would write more than that past its buffer."""
        content = self._read(size)
        if len(content) > size:
            raise OSError(f"{len(content)} bytes were read, and {size} asked for")
        return content


def _open(file: Any, path: str, protocols: str) -> Any:
    allowed = {"protocol_whitelist": protocols, "format_whitelist": _CONTAINERS}
    try:
        return av.open(file, options=LARGEST, container_options=allowed, **_ANY_TITLE)
    except FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoDecodeError(path, "not one of the video containers read here") from error
        if isinstance(error, InvalidDataError) and not _storage_fails(path):
            raise VideoDecodeError(path, "not a video, or cut off before its index") from error
        raise


def video_stream(path: str, container: Any) -> Any:
    """The video stream of a container; a picture of the cover does not count.

    Raises:
        VideoDecodeError: there is none, no decoder for it, or its frames are too large.
    """
    stream = container.streams.best("video")
    if stream is None or int(stream.disposition) & 0x400:  # AV_DISPOSITION_ATTACHED_PIC
        raise VideoDecodeError(path, "it has no video stream")
    if stream.codec_context is None:
        raise VideoDecodeError(path, "this FFmpeg has no decoder for its video stream")
    if not stream.codec_context.width:
        raise VideoDecodeError(path, "the frame size is missing, or beyond 8K (2^25 pixels)")
    stream.codec_context.options = LARGEST
    return stream


def check_colours(path: str, frame: Any) -> None:
    """Raise a VideoDecodeError if a decoded frame's colours cannot be converted to RGB."""
    name = _UNKNOWN_COLOURS.get(int(frame.colorspace))
    if name and not frame.format.is_rgb:
        raise VideoDecodeError(path, f"its colours are {name}, which is not read; convert it")
