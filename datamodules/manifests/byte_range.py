"""A video inside a larger file, on this machine or in a storage, read as if it were a file."""

import errno
import io
import os
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from datamodules.manifests.range_cache import RangeCache
from datamodules.manifests.storage import RemoteFile

_BUFFER, _BLOCK = 1 << 16, 1 << 20  # bytes read at once: of a file object, of a storage


@dataclass(frozen=True)
class ByteRange:
    """A video inside a larger file: a `container.Source`.

    Attributes:
        url: the file: a local path, or a URL that fsspec opens ("s3://...", "memory://...").
        offset: bytes before the video.
        size: bytes of the video.
        name: the name that error messages use.
        cache: where copies of videos in a storage are kept; None: nowhere.
    """

    url: str
    offset: int
    size: int
    name: str
    cache: RangeCache | None = field(default=None, compare=False, repr=False)

    def open(self) -> BinaryIO:
        """Return a buffered, seekable file object that holds these bytes alone.

        Raises:
            OSError: the file cannot be opened.
        """
        if "://" not in self.url:
            return io.BufferedReader(_LocalRange(self), _BUFFER)
        copy = self.cache.open(self.url, self.offset, self.size) if self.cache else None
        return copy or io.BufferedReader(_RemoteRange(self), _BUFFER)


class _Range(io.RawIOBase):
    """A file object of part of a file, whose bytes a subclass reads."""

    def __init__(self, part: ByteRange):
        super().__init__()
        self._part = part
        self._position = 0

    def _read(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of the whole file."""
        raise NotImplementedError

    def readinto(self, buffer: Any, /) -> int:
        """Read the next bytes; return how many, 0 at the end of the range."""
        part = self._part
        count = min(len(buffer), part.size - self._position)
        if count <= 0:
            return 0
        start = part.offset + self._position
        data = self._read(start, start + count)
        if not data:
            raise OSError(errno.ENODATA, f"{part.url} is cut off: it has no byte {start}")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to an offset, relative to the start, the position or the end of the range."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._part.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, f"cannot seek to {base + offset}")
        self._position = base + offset
        return self._position

    def readable(self) -> bool:
        """Whether `read` works: yes."""
        return True

    def seekable(self) -> bool:
        """Whether `seek` works: yes."""
        return True


class _LocalRange(_Range):
    def __init__(self, part: ByteRange):
        super().__init__(part)
        try:
            self._descriptor = os.open(part.url, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, f"{part.url}: {error.strerror}") from None

    def _read(self, start: int, end: int) -> bytes:
        return os.pread(self._descriptor, end - start, start)

    def close(self) -> None:
        """Close the file."""
        if not self.closed and hasattr(self, "_descriptor"):
            os.close(self._descriptor)
        super().close()


class _RemoteRange(_Range):
    """Asks for a block at a time, and keeps the last one.

    A `BufferedReader` drops its buffer at a seek relative to the end and at a read past the end. A
    decoder that begins anew does both; it must not cost a request for a video of one block.
    """

    def __init__(self, part: ByteRange):
        super().__init__(part)
        self._file = RemoteFile(part.url)
        self._block, self._block_start = b"", 0

    def _read(self, start: int, end: int) -> bytes:
        if not 0 <= start - self._block_start < len(self._block):
            part = self._part
            end_of_block = min(start + max(_BLOCK, end - start), part.offset + part.size)
            self._block, self._block_start = self._file.read(start, end_of_block), start
        return self._block[start - self._block_start : end - self._block_start]
