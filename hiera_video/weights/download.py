"""Download published weights: once, and resumed after a lost connection."""

import fcntl
import hashlib
import os
import re
import ssl
import time
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import torch

from hiera_video.errors import CheckpointError
from hiera_video.terminal import progress_line

BASE_URL = "https://dl.fbaipublicfiles.com/hiera/"
LICENCE = "published Hiera weights are CC-BY-NC 4.0: not for commercial use"
# SHA-256 by name. The publisher gives none, so only the size is checked; of names in here, both.
SHA256: dict[str, str] = {}
SCHEMES = ("https",)
TIMEOUT = 60.0  # seconds without an answer
TRIES = 5  # in a row without a new byte
PAUSE = 1.0  # seconds after the first of them; doubles each time
CHUNK = 1 << 20

Progress = Callable[[int, int], None]


class Interrupted(ConnectionError):
    """The answer was incomplete; its usable bytes are in the partial file."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirections to another scheme, even in the middle of a chain."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str):
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# Errors that may be gone at the next try.
PASSING = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def published_file(name: str, quiet: bool = False) -> Path:
    """Path of published weights in torch's cache (``TORCH_HOME``); downloaded if they are missing.

    Args:
        name: one of `names.CHECKPOINTS`.
        quiet: show no progress.

    Raises:
        CheckpointError: the download failed; the message says where to put the file by hand.
    """
    url = f"{BASE_URL}{name}.pth"
    path = Path(torch.hub.get_dir(), "checkpoints", f"{name}.pth")
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext(_silent) if quiet else progress_line(name, "MB") as show:
            download(url, path, show, SHA256.get(name))
    except (OSError, HTTPException, ValueError) as error:
        raise CheckpointError(
            f"{name}: cannot download ({_reason(error)}); put {url} at {path} yourself ({LICENCE})"
        ) from error
    return path


def download(url: str, path: Path, show: Progress, sha256: str | None = None) -> None:
    """Download a file; `path` exists only once it is complete.

    Until then its bytes are in ``path.part``. ``path.part.version`` holds the server's name of this
    version of the file, so that a later call resumes if the server still has the same. Several
    processes may call this at once: one downloads, the others wait for it.

    Args:
        url: of the file; only https, also after redirections.
        path: where to put it.
        show: called with the megabytes done and in total.
        sha256: hexadecimal digest of the file, or the beginning of it.

    Raises:
        OSError: the network, the server or the disk failed.
        ValueError: another digest, a URL that is not https, or a server that does not say how large
            the file is.
    """
    part = path.with_name(path.name + ".part")
    version = part.with_name(part.name + ".version")
    with open(part, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        if path.exists():  # another process was faster
            part.unlink(missing_ok=True)
            return
        if not _is_at(part, file):  # the one that had the lock has taken its file away
            raise OSError("another process tried at the same time and gave up")
        try:
            _fetch_with_retries(url, file, version, show)
        except BaseException:
            if not file.seek(0, os.SEEK_END):
                part.unlink()
            raise
        if sha256 is not None and not (digest := _sha256(part)).startswith(sha256):
            part.unlink()
            version.unlink(missing_ok=True)
            raise ValueError(f"its SHA-256 is {digest}, not {sha256}; deleted it")
        os.fsync(file.fileno())
        part.replace(path)
        version.unlink(missing_ok=True)


def digest_in_name(url: str) -> str | None:
    """The beginning of the SHA-256, in hexadecimal, with which names of torchvision's files end."""
    match = re.search(r"-([0-9a-f]{8,64})\.pth$", urlsplit(url).path)
    return match and match[1]


def _fetch_with_retries(url: str, file: Any, version: Path, show: Progress) -> None:
    failures, restarts, begun = 0, 0, False
    while True:
        before = file.seek(0, os.SEEK_END)
        try:
            _fetch(url, file, version, show)
            return
        except PASSING as error:
            size = file.seek(0, os.SEEK_END)
            progressed = size > before
            restarts += size < before  # of a file that changes all the time
            begun |= progressed or isinstance(error, Interrupted)
            failures = 1 if progressed else failures + 1
            busy = isinstance(error, HTTPError) and (error.code in (408, 429) or error.code >= 500)
            # Without any network, nobody should have to wait for that answer.
            if not (begun or busy) or max(failures, restarts) >= TRIES:
                raise
            time.sleep(PAUSE * min(2.0 ** (failures - 1), 30.0))


def _fetch(url: str, file: Any, version: Path, show: Progress) -> None:
    """Make one request: append what the file lacks, or begin it anew."""
    have = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "hiera-video"}
    validator = version.read_text(encoding="utf-8") if version.exists() else ""
    if have and validator:
        # The server sends the rest of this version, or all of another one.
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    _check_scheme(url)
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code != 416 or not have:
            raise
        file.truncate(0)
        raise Interrupted("the server has no bytes after those that were downloaded") from error
    with response:
        if have and response.status == 206 and _is_of_another_version(response, validator):
            file.truncate(0)
            raise Interrupted("the server sent the rest of another version")
        start, total = _extent(response, have)
        if start == 0:
            file.truncate(0)
            version.write_text(_version_of(response), encoding="utf-8")
        done = start
        while chunk := response.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            megabytes = -(-total // 10**6)
            show(min(done, total) * megabytes // total, megabytes)
    file.flush()
    if done != total:
        if done > total:
            file.truncate(0)
        raise Interrupted(f"the connection ended after {done} of {total} bytes")


def _extent(response: Any, have: int) -> tuple[int, int]:
    """Position of the answer's first byte, and the size of the complete file."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            raise URLError(f"the server sent {response.headers.get('Content-Range')!r}")
        return have, int(match[2])
    length = response.headers.get("Content-Length", "")
    if not re.fullmatch(r"[0-9]{1,18}", length) or not int(length):
        # Without it a lost connection looks like the end of the file.
        raise ValueError("the server does not say how large the file is")
    return 0, int(length)


def _version_of(response: Any) -> str:
    """A strong ETag or the time of the last change; empty if none, and it is not resumed."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _is_of_another_version(response: Any, validator: str) -> bool:
    current = response.headers.get("ETag" if validator.startswith('"') else "Last-Modified")
    return current is not None and current != validator


def _is_at(path: Path, file: Any) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _check_scheme(url: str) -> None:
    if urlsplit(url).scheme not in SCHEMES:
        raise ValueError(f"{url} is not https")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _silent(done: int, total: int) -> None:
    pass
