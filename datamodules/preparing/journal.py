"""What a run of `prepare` finds out, kept on disk row by row until the manifest is written."""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import json as pa_json

from datamodules.errors import DatasetError
from datamodules.files import naming
from datamodules.manifests.parquet import FACTS, ManifestMetadata, pc, read_manifest
from datamodules.preparing.parts import check_replaceable
from datamodules.video.container import STORAGE_REASONS
from datamodules.video.probing import stamp

# The file that a row is about, as it was when it was read.
SOURCE = pa.schema(
    [("source", pa.string()), ("source_bytes", pa.int64()), ("source_modified_ns", pa.int64())]
)
# A row of the journal: the source, then what the manifest will say of the file to train on.
ROW = pa.unify_schemas([SOURCE, pa.schema([("path", pa.string())]), FACTS])
_SYNC_SECONDS = 2.0  # of work, at most, that a power cut may cost
_STAT_THREADS, _STAT_CHUNK = 16, 1000  # files whose status is asked for at once


class Journal:
    """The rows of this run and of earlier ones, of which the newest row of a file counts.

    Args:
        file: JSON lines, appended to. A run that was killed may leave half a line at its end.
        earlier: rows of the last run that came to its end, with the schema ROW.
    """

    def __init__(self, file: Path, earlier: pa.Table) -> None:
        self._file, self._earlier = file, earlier

    def rows(self, sources: pa.Array) -> pa.Table:
        """The row of each file, with the schema ROW; null where there is none."""
        appended = self._read()
        newest_first = appended.take(pa.array(range(len(appended) - 1, -1, -1), pa.int64()))
        rows = pa.concat_tables([newest_first, self._earlier]).combine_chunks()
        # `index_in` gives the first of several.
        return rows.take(pc.index_in(sources, value_set=rows["source"].combine_chunks()))

    def missing(
        self, sources: pa.Array, now: pa.Table, out: Path | None, retry_bad: bool
    ) -> list[str]:
        """The files that have no row that still holds, each once.

        Args:
            sources: the files, string.
            now: their `stamps`.
            out: folder of the new files, if there are any: one that was changed or removed there
                is missing, too.
            retry_bad: a row with ``ok`` false does not hold.
        """
        rows = self.rows(sources)
        done = pc.and_(
            pc.equal(rows["source_bytes"], now["bytes"]),
            pc.equal(rows["source_modified_ns"], now["modified_ns"]),
        )
        if retry_bad:
            done = pc.and_(done, rows["ok"])
        # Earlier versions kept what says nothing about the file.
        unread = pc.is_in(rows["reason"], pa.array(sorted(STORAGE_REASONS)))
        done = pc.and_not(done, unread)
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
        """Give a function that adds a row. No kill loses one; a power cut loses two seconds."""
        with naming(self._file), open(self._file, "ab") as file:
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
        """The appended rows, oldest first; half a line at the end is cut off the file."""
        raw = self._file.read_bytes() if self._file.exists() else b""
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.truncate(self._file, len(whole))
        if not whole:
            return ROW.empty_table()
        options = pa_json.ParseOptions(explicit_schema=ROW)
        try:
            table = pa_json.read_json(pa.BufferReader(whole), parse_options=options)
        except pa.ArrowInvalid as error:
            raise DatasetError(
                f"{self._file}: damaged ({error}); delete it and run again"
            ) from None
        return table.select(ROW.names)


def stamps(paths: pa.Array | pa.ChunkedArray, root: str | Path) -> pa.Table:
    """Size and time of change of many files below a folder.

    Args:
        paths: string, relative to the folder.
        root: the folder.

    Returns:
        ``bytes`` and ``modified_ns``, int64, in the order of the paths; -1 where there is no file.
    """
    # Many at once: on a network disk each is a long wait.
    names = [os.path.join(root, path) for path in paths.to_pylist()]
    chunks = [names[i : i + _STAT_CHUNK] for i in range(0, len(names), _STAT_CHUNK)]
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        pairs = [s for chunk in pool.map(lambda c: [stamp(n) for n in c], chunks) for s in chunk]
    columns = zip(*pairs, strict=True) if pairs else ([], [])
    arrays = [pa.array(column, pa.int64()) for column in columns]
    return pa.table(arrays, names=["bytes", "modified_ns"])


def earlier_rows(file: Path, root: str, sources: pa.Array, metadata: ManifestMetadata) -> pa.Table:
    """Rows of the manifest that this run will replace, if they were found with the same settings.

    Args:
        file: the manifest.
        root: folder that the files of this run lie below.
        sources: their paths below it.
        metadata: of the manifest to come.

    Raises:
        DatasetError: as `check_replaceable`.
    """
    if not file.is_file():
        return ROW.empty_table()
    table, old = read_manifest(file)
    settings = metadata.prepared["settings"]
    check_replaceable(file, table, old, root, sources, settings)
    same_root = old.root == os.path.abspath(file.parent / metadata.root)
    if not same_root or old.prepared.get("settings") != settings:
        return ROW.empty_table()
    if "source" not in table.column_names:  # not transcoded: the file is its own source
        for name, same in zip(SOURCE.names, ("path", "bytes", "modified_ns"), strict=True):
            table = table.append_column(name, table[same])
    return table.select(ROW.names)
