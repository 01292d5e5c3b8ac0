"""Bytes of files in a storage that fsspec reaches, asked for again where it fails, and counted."""

import errno
import secrets
import time
from collections import Counter
from typing import Any

RETRY_SECONDS = (0.5, 2.0, 8.0)  # least wait before each new attempt; up to twice as long
_FINAL = (ImportError, ValueError, FileNotFoundError, PermissionError)
_FINAL_NAMES = {"NoCredentialsError", "PartialCredentialsError"}  # of botocore
# Forked processes share the state of `random`, and would all ask again at the same moment.
_random = secrets.SystemRandom()

# What this process has asked for since it began: `requests` for bytes, `retries` among them, the
# `bytes` of the answers, and of a cache, `hits` and `misses`.
traffic: Counter[str] = Counter()


class StorageError(OSError):
    """A storage does not give the bytes of a file."""


class RemoteFile:
    """A file in a storage.

    A storage that is busy (HTTP 503, "slow down") or cuts a connection says nothing of the video,
    so it is asked up to three more times, after 0.5, 2 and 8 seconds; each wait is drawn between
    once and twice that. The library behind fsspec may have tried again before, without a count.

    Args:
        url: as fsspec opens it ("s3://...", "memory://...").
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: tuple[Any, str] | None = None  # the file system, and the path there

    def read(self, start: int, end: int) -> bytes:
        """Read the bytes ``start`` to ``end`` of the file, or the first of them: at least one.

        Raises:
            StorageError: the storage refuses, fails four times, or the file is shorter.
        """
        data = self._ask_patiently(start, end)
        traffic["bytes"] += len(data)
        if not data:
            raise StorageError(errno.ENODATA, f"{self.url} is cut off: it has no byte {start}")
        if len(data) > end - start:
            raise StorageError(errno.EIO, f"{self.url}: the storage cannot read parts of files")
        return data

    def _ask_patiently(self, start: int, end: int) -> bytes:
        for seconds in (*RETRY_SECONDS, None):
            try:
                return self._ask(start, end)
            except Exception as error:  # from whatever library serves this kind of URL
                name = type(error).__name__
                if seconds is None or _is_final(error):
                    reason = str(error).partition("\n")[0]
                    raise StorageError(errno.EIO, f"{self.url}: {name}: {reason}") from error
                time.sleep(seconds * _random.uniform(1, 2))
                traffic["retries"] += 1
        raise AssertionError

    def _ask(self, start: int, end: int) -> bytes:
        if self._opened is None:
            from fsspec.core import url_to_fs  # imported only where needed: it takes a while

            self._opened = url_to_fs(self.url)
        files, path = self._opened
        traffic["requests"] += 1
        return files.cat_file(path, start=start, end=end)


def _is_final(error: Exception) -> bool:
    """Whether asking again does not help."""
    past_the_end = isinstance(error, OSError) and error.errno == errno.EINVAL
    return past_the_end or isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES
