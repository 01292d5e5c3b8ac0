"""What is wrong with a data set: files that are missing, changed or corrupt."""

import errno
import functools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from datamodules.errors import UnreadableVideo
from datamodules.loading.file_workers import Lost, work
from datamodules.manifests.manifest import Manifest
from datamodules.preparing.journal import stamps
from datamodules.preparing.prepare import Progress
from datamodules.video.container import STORAGE_REASONS, Source
from datamodules.video.probing import Facts, probe
from datamodules.wording import few

_NO_FILE = os.strerror(errno.ENOENT)


class Fault(NamedTuple):
    """Something wrong with a video or with a row of an annotation.

    Attributes:
        kind: ``missing``, ``changed`` or ``corrupt`` of a video, or ``unreadable`` where the
            storage does not give it; ``wrong`` of a row.
        path: the video; of a row, all there is to say.
        detail: what is wrong, one line; may be empty.
    """

    kind: str
    path: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}  {self.path}" + (f": {self.detail}" if self.detail else "")


class Diagnosis(NamedTuple):
    """What was found in one split.

    Attributes:
        faults: errors; training would stop at the first.
        lines: what the annotation holds, for people.
    """

    faults: list[Fault]
    lines: list[str]


def listed(values: Sequence[object]) -> str:
    """How many values there are, and the first of them, for the lines of a diagnosis."""
    return f"{len(values)} ({few(values, 8)})"


def check(
    manifest: Manifest,
    *,
    decode: bool = False,
    every_frame: bool = True,
    processes: int = 1,
    patience: float = 60.0,
    progress: Progress = lambda done, total: None,
) -> list[Fault]:
    """Compare a data set with its manifest.

    Prepared files are compared by size and time of change; those that differ are decoded, to tell
    whether they are corrupt. Of a packed data set, the sizes of the shards are compared. Files
    that were not prepared are all decoded.

    Args:
        manifest: the data set.
        decode: decode unchanged files, too.
        every_frame: decode files to their end; see `probing.probe`.
        processes: number of processes that decode.
        patience: seconds without a sign of life after which a file is given up.
        progress: called after each file that is decoded.

    Returns:
        The faults in the order of the manifest.
    """
    is_prepared = "ok" in manifest.table.column_names
    compare = _compare_shards if "shard" in manifest.table.column_names else _compare_files
    faults = compare(manifest) if is_prepared else {}
    candidates = range(len(manifest)) if decode or not is_prepared else faults
    to_decode = [i for i in candidates if i not in faults or faults[i].kind == "changed"]
    row_of = {manifest.source(i): i for i in reversed(to_decode)}  # a list may repeat a video
    items = [(i, source) for source, i in row_of.items()]
    do = functools.partial(_probe, every_frame=every_frame)
    results = work(do, items, processes=processes, patience=patience)
    for done, ((i, _), facts) in enumerate(results, 1):
        if isinstance(facts, Lost | UnreadableVideo) or not facts.ok:
            faults[i] = _bad(manifest.path(i), facts.reason)
        progress(done, len(items))
    return [faults[i] for i in sorted(faults)]


def _probe(
    item: tuple[int, str | Source], alive: Callable[[], None], every_frame: bool
) -> Facts | UnreadableVideo:
    try:
        return probe(item[1], every_frame, alive)
    except UnreadableVideo as error:
        return error


def _bad(path: str, reason: str) -> Fault:
    if reason == _NO_FILE:
        return Fault("missing", path)
    return Fault("unreadable" if reason in STORAGE_REASONS else "corrupt", path, reason)


def _compare_files(manifest: Manifest) -> dict[int, Fault]:
    """Faults of files that show without decoding, by row."""
    table = manifest.table
    now = stamps(table["path"], manifest.root)
    columns = ("bytes", "modified_ns")
    differs = [now[name].to_numpy() != table[name].to_numpy() for name in columns]
    bad = ~_ok(manifest)
    faults = {}
    for i in np.flatnonzero(differs[0] | differs[1] | bad).tolist():
        path, size = manifest.path(i), now["bytes"][i].as_py()
        if not (differs[0][i] or differs[1][i]):
            faults[i] = _bad(path, table["reason"][i].as_py())
        elif size < 0:
            faults[i] = _bad(path, _why_no_status(path))
        elif differs[0][i]:
            then = table["bytes"][i].as_py()
            faults[i] = Fault("changed", path, f"{size} bytes, {then} when it was prepared")
        else:
            faults[i] = Fault("changed", path, "written to since it was prepared")
    return faults


def _why_no_status(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        return error.strerror or str(error)
    return _NO_FILE  # it has just come back


def _compare_shards(manifest: Manifest) -> dict[int, Fault]:
    """Faults of packed videos that show without decoding, by row."""
    table = manifest.table
    ends = table["offset"].to_numpy() + table["bytes"].to_numpy()
    names = table["shard"].combine_chunks().dictionary_encode()
    shards = names.dictionary.to_pylist()
    sizes = np.array([_size(manifest.folder, shard) for shard in shards] or [0])
    size_of = sizes[names.indices.to_numpy()]
    faults = {}
    for i in np.flatnonzero((ends > size_of) | ~_ok(manifest)).tolist():
        path, shard = manifest.path(i), table["shard"][i].as_py()
        if size_of[i] < 0:
            faults[i] = Fault("missing", path, f"{shard} is gone")
        elif ends[i] > size_of[i]:
            faults[i] = Fault("corrupt", path, f"{shard} is cut off")
        else:
            faults[i] = _bad(path, table["reason"][i].as_py())
    return faults


def _ok(manifest: Manifest) -> np.ndarray:
    """Whether each video could be decoded when it was prepared: bool ``(n,)``."""
    return manifest.table["ok"].fill_null(False).to_numpy()


def _size(folder: str, shard: str) -> int:
    """Bytes of a shard; -1 if there is none."""
    from fsspec.core import url_to_fs  # only where it is needed: it takes a while

    files, path = url_to_fs(shard if "://" in shard else os.path.join(folder, shard))
    try:
        return int(files.size(path))
    except FileNotFoundError:
        return -1
