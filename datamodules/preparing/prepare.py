"""A data set made ready once: every file probed, or written anew, into one manifest file.

What is found is appended to a file of rows, one line a video, before the next result is taken: a
run that is killed goes on where it was, and one over an unchanged source has nothing to do.
"""

import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import json as pa_json

from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.loading.file_workers import Lost, work
from datamodules.manifests.parquet import FACTS, MANIFEST_NAME, ManifestMetadata, pc, read_manifest
from datamodules.manifests.splits import Manifest
from datamodules.preparing.parts import WHOLE, Shard, portable_root, write_prepared
from datamodules.video.probing import Facts, probe, stamp
from datamodules.video.transcoding import Encoding, transcode

Progress = Callable[[int, int], None]  # files done and to do in this run

# A row as it is kept while at work: of which file it is, and as which the manifest names it.
_SOURCE = pa.schema(
    [("source", pa.string()), ("source_bytes", pa.int64()), ("source_modified_ns", pa.int64())]
)
_ROW = pa.unify_schemas([_SOURCE, pa.schema([("path", pa.string())]), FACTS])
_SYNC_SECONDS = 2.0  # of work, at most, that a power cut may cost
# What is wrong with the place to write to, and so with every file.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def prepare(
    manifest: Manifest,
    root: str | Path,
    out: Path,
    *,
    every_frame: bool = True,
    encoding: Encoding | None = None,
    shard: Shard = WHOLE,
    processes: int = 1,
    patience: float = 60.0,
    retry_bad: bool = False,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Probe or transcode the files of a data set and write their manifest.

    Files that an earlier run has done, and that have the same size and time of change, are not
    opened again. A file that cannot be decoded, or that hangs or ends the process that reads it, is
    a row with ``ok`` false and the reason.

    Args:
        manifest: the data set.
        root: folder that all its paths lie below.
        out: folder to write to.
        every_frame: decode every file to its end; see `probing.probe`.
        encoding: write every file anew below ``out``; the manifest then is of the new files.
        shard: which files to do: those whose path's checksum says so.
        processes: that decode.
        patience: seconds without a sign of life after which a file is given up.
        retry_bad: open the files again that were bad.
        progress: called after each file.

    Returns:
        The manifest file.

    Raises:
        DatasetError: a path is not below the root, or another run writes to ``out``.
        OSError: ``out`` cannot be written to.
    """
    root = os.path.abspath(root)
    paths = _relative_paths(manifest, root)
    mine = [i for i, path in enumerate(paths) if shard.has(path)]
    sources = pa.array([paths[i] for i in mine], pa.string())
    settings = {"every_frame": every_frame, "encoding": encoding and asdict(encoding)}
    settings["source_root"] = root if encoding else None
    prepared: dict[str, Any] = {"settings": settings}
    if shard.of > 1:
        prepared |= {"shard": list(shard), "rows": len(paths)}
    new_root = portable_root(os.path.abspath(out) if encoding else root, out)
    metadata = ManifestMetadata(manifest.class_names, new_root, prepared)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out / f".{shard.name('prepare.unfinished')}") as scratch:
        digest = hashlib.sha256(json.dumps([settings, new_root]).encode()).hexdigest()[:12]
        rows = _Rows(scratch / f"rows-{digest}.jsonl", _earlier_rows(out, shard, metadata))
        if encoding is not None:
            _check_targets(paths, sources, rows.of(sources), root, out, scratch / f"began-{digest}")
        todo = rows.missing(sources, stamps(sources, root), encoding and out, retry_bad)
        do = functools.partial(
            _prepare_file, root=root, out=out, scratch=scratch, settings=(every_frame, encoding)
        )
        results = work(do, todo, processes=processes, patience=patience)
        with rows.appending() as append:
            for done, (path, row) in enumerate(results, 1):
                if isinstance(row, Lost):
                    row = _row(path, root, encoding, Facts(reason=row.reason))
                append(row)
                progress(done, len(todo))
        found = rows.of(sources)
        table = _manifest_table(manifest.table["label"].take(mine), found, encoding)
        if shard.of > 1:
            table = table.append_column("row", pa.array(mine, pa.int64()))
        bad = found.filter(pc.invert(found["ok"])).select(["source", "reason"]).to_pylist()
        reasons = {os.path.join(root, row["source"]): row["reason"] for row in bad}
        file = write_prepared(out, table, metadata, sorted(reasons.items()), shard)
        shutil.rmtree(scratch)
    return file


class _Rows:
    """The rows of this run and of earlier ones, the newest of each file first.

    Args:
        file: JSON lines, appended to; the end of one that a killed run left may be half a line.
        earlier: rows of the last run that came to its end.
    """

    def __init__(self, file: Path, earlier: pa.Table) -> None:
        self._file, self._earlier = file, earlier

    def of(self, sources: pa.Array) -> pa.Table:
        """One row for each file, null where there is none."""
        appended = self._read()
        newest_first = appended.take(pa.array(range(len(appended) - 1, -1, -1), pa.int64()))
        rows = pa.concat_tables([newest_first, self._earlier]).combine_chunks()
        return rows.take(pc.index_in(sources, value_set=rows["source"].combine_chunks()))

    def missing(
        self, sources: pa.Array, now: pa.Table, out: Path | None, retry_bad: bool
    ) -> list[str]:
        """The files to do: new ones, changed ones, and those whose new file in ``out`` is."""
        rows = self.of(sources)
        done = pc.and_(
            pc.equal(rows["source_bytes"], now["bytes"]),
            pc.equal(rows["source_modified_ns"], now["modified_ns"]),
        )
        if retry_bad:
            done = pc.and_(done, rows["ok"])
        if out is not None:
            new = stamps(pc.fill_null(rows["path"], ""), out)
            same = pc.and_(
                pc.equal(rows["bytes"], new["bytes"]),
                pc.equal(rows["modified_ns"], new["modified_ns"]),
            )
            done = pc.and_(done, pc.or_(same, pc.invert(rows["ok"])))
        todo = sources.filter(pc.invert(pc.fill_null(done, False).combine_chunks()))
        return pc.unique(todo).to_pylist()

    @contextmanager
    def appending(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Give a function that adds a row: at once for a kill, in seconds for a power cut."""
        with open(self._file, "ab") as file:
            synced = time.monotonic()

            def append(row: dict[str, Any]) -> None:
                nonlocal synced
                file.write(json.dumps(row).encode() + b"\n")
                file.flush()
                if time.monotonic() - synced > _SYNC_SECONDS:
                    os.fsync(file.fileno())
                    synced = time.monotonic()

            yield append

    def _read(self) -> pa.Table:
        raw = self._file.read_bytes() if self._file.exists() else b""
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.truncate(self._file, len(whole))
        if not whole:
            return _ROW.empty_table()
        options = pa_json.ParseOptions(explicit_schema=_ROW)
        try:
            table = pa_json.read_json(pa.BufferReader(whole), parse_options=options)
        except pa.ArrowInvalid as error:
            raise DatasetError(f"{self._file}: damaged ({error}); delete it, run again") from None
        return table.select(_ROW.names)


def _prepare_file(
    path: str,
    alive: Callable[[], None],
    *,
    root: str,
    out: Path,
    scratch: Path,
    settings: tuple[bool, Encoding | None],
) -> dict[str, Any]:
    """Do one file, in a process of its own. Returns its row."""
    every_frame, encoding = settings
    source = os.path.join(root, path)
    row = _row(path, root, encoding, Facts())  # the file may change while it is read
    if encoding is None:
        return row | probe(source, every_frame, alive)._asdict()
    new = out / row["path"]
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        facts = transcode(source, new, encoding, scratch=scratch, alive=alive)
    except VideoDecodeError as error:
        return row | {"reason": error.reason}
    except Exception as error:  # of one file among a million
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        return row | {"reason": f"transcoding failed: {type(error).__name__}: {error}"}
    size, modified_ns = stamp(new)
    return row | facts._asdict() | {"bytes": size, "modified_ns": modified_ns}


def _row(path: str, root: str, encoding: Encoding | None, facts: Facts) -> dict[str, Any]:
    size, modified_ns = stamp(os.path.join(root, path))
    row = {"source": path, "source_bytes": size, "source_modified_ns": modified_ns}
    own = (size, modified_ns) if encoding is None else (-1, -1)
    row |= {"path": _new_name(path) if encoding else path, "bytes": own[0], "modified_ns": own[1]}
    return row | facts._asdict()


def _new_name(path: str) -> str:
    """What a file is called when it was written anew: the old ending stays, before its own."""
    return path if path.lower().endswith(".mp4") else path + ".mp4"


def _relative_paths(manifest: Manifest, root: str) -> list[str]:
    base, prefix = os.path.abspath(manifest.root), root.rstrip("/") + "/"
    full = [os.path.normpath(os.path.join(base, p)) for p in manifest.table["path"].to_pylist()]
    for path in full:
        if not path.startswith(prefix):
            raise DatasetError(f"{path}: lies outside {root}; set a higher --root")
    return [path[len(prefix) :] for path in full]


def _check_targets(
    paths: list[str], sources: pa.Array, rows: pa.Table, root: str, out: Path, began: Path
) -> None:
    """See that no new file can replace an original, another new file, or anything else.

    Args:
        paths: of the whole data set.
        sources: those of this part.
        rows: what earlier runs of the same settings did of them.
        root: folder that all paths lie below.
        out: folder of the new files.
        began: a file that says that an earlier run has passed this: it may have written a file
            without coming to note it. Made here.
    """
    folders = {os.path.dirname(path) for path in paths}
    originals = {os.path.realpath(os.path.join(root, folder)) for folder in folders}
    new = {os.path.realpath(os.path.join(out, folder)) for folder in folders}
    if shared := originals & new:
        raise DatasetError(
            f"{min(shared)}: holds originals, and new files never go beside them; set another --out"
        )
    targets = {_new_name(path): path for path in paths}
    if len(targets) < len(unique := set(paths)):
        name = min(unique - set(targets.values()))
        raise DatasetError(f"{name}: two videos would get the name {_new_name(name)}")
    if not began.exists():
        mine = pa.array(map(_new_name, sources.to_pylist()), pa.string())
        there = pc.greater_equal(stamps(mine, out)["bytes"], 0)
        ours = pc.fill_null(pc.and_(rows["ok"], pc.equal(rows["path"], mine)), False)
        if (index := pc.index(pc.and_not(there, ours), True).as_py()) >= 0:
            raise DatasetError(f"{out / mine[index].as_py()}: is there already; set another --out")
        began.touch()


def _manifest_table(labels: Any, found: pa.Table, encoding: Encoding | None) -> pa.Table:
    table = found.select(["path", *FACTS.names]).add_column(1, "label", labels)
    if encoding is not None:
        for name in _SOURCE.names:
            table = table.append_column(name, found[name])
    return table.combine_chunks()


def _earlier_rows(out: Path, shard: Shard, metadata: ManifestMetadata) -> pa.Table:
    """Rows of the manifest in ``out``, if they were found in the same way."""
    file = out / shard.name(MANIFEST_NAME)
    if not file.is_file():
        return _ROW.empty_table()
    table, old = read_manifest(file)
    same_root = old.root == os.path.abspath(out / metadata.root)
    if not same_root or old.prepared.get("settings") != metadata.prepared["settings"]:
        return _ROW.empty_table()
    if "source" not in table.column_names:
        for name, of in zip(_SOURCE.names, ("path", "bytes", "modified_ns"), strict=True):
            table = table.append_column(name, table[of])
    return table.select(_ROW.names)


def stamps(paths: pa.Array | pa.ChunkedArray, root: str | Path) -> pa.Table:
    """``bytes`` and ``modified_ns`` of many files below a folder; -1 where there is none."""
    # Many at once: on a network disk each is a long wait.
    names = [os.path.join(root, path) for path in paths.to_pylist()]
    chunks = [names[i : i + 1000] for i in range(0, len(names), 1000)]
    with ThreadPoolExecutor(16) as pool:
        found = [s for chunk in pool.map(lambda c: [stamp(n) for n in c], chunks) for s in chunk]
    columns = zip(*found, strict=True) if found else ([], [])
    arrays = [pa.array(column, pa.int64()) for column in columns]
    return pa.table(arrays, names=["bytes", "modified_ns"])


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """A folder for what is unfinished, of this run alone; what a killed run left of files goes."""
    folder.mkdir(exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{folder.parent}: another run is writing here") from None
        for left in folder.glob(".*.unfinished"):
            left.unlink()
        yield folder
    finally:
        os.close(lock)
