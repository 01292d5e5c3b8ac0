"""A data set made ready once: every file probed, or transcoded, and described in one manifest.

Each result is written to a journal before the next one is taken. So a run that is killed goes on
where it was, and one over an unchanged source has nothing to do.
"""

import errno
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamodules.errors import DatasetError, UnreadableVideo, VideoDecodeError
from datamodules.files import locked_folder
from datamodules.loading.file_workers import Lost, work
from datamodules.loading.outage import check_files
from datamodules.manifests.manifest import Manifest
from datamodules.manifests.parquet import FACTS, MANIFEST_NAME, ManifestMetadata, pc
from datamodules.preparing.journal import SOURCE, Journal, earlier_rows, stamps
from datamodules.preparing.parts import WHOLE, Part, portable_root, write_prepared
from datamodules.suffixes import PICTURES
from datamodules.video.container import STORAGE_REASONS
from datamodules.video.probing import Facts, probe, stamp
from datamodules.video.resizing import resize_picture
from datamodules.video.transcoding import Encoding, transcode

Progress = Callable[[int, int], None]  # files done and to do in this run

# These concern the folder that is written to, and so every file: the run ends.
_DISK_ERRORS = {os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}
_DISK_ERRORS |= STORAGE_REASONS


def prepare(
    manifest: Manifest,
    root: str | Path,
    out: Path,
    *,
    every_frame: bool = True,
    encoding: Encoding | None = None,
    part: Part = WHOLE,
    processes: int = 1,
    patience: float = 60.0,
    retry_bad: bool = False,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Probe or transcode the files of a data set and write their manifest.

    Files that an earlier run has done are not opened again if their size and time of change are the
    same. A file that cannot be decoded, or that hangs or crashes the process that reads it, gets a
    row with ``ok`` false and the reason. One that the storage does not give has no row, unless it
    was missing before: it is opened again when this is called again.

    Args:
        manifest: the data set.
        root: folder that all its paths lie below.
        out: folder to write to.
        every_frame: decode every file to its end; see `probing.probe`.
        encoding: transcode every file to a new one below ``out``, which the manifest then
            describes. Of pictures, only its short side counts.
        part: which of the files to do.
        processes: number of processes that decode.
        patience: seconds without a sign of life after which a file is given up.
        retry_bad: open bad files again.
        progress: called after each file.

    Returns:
        The manifest file.

    Raises:
        DatasetError: a path is not below the root, a new file would take the place of another file,
            ``out`` has the manifest of another data set or one that took more work, or another run
            writes to it.
        StorageFailure: files cannot be read; all others are done, but there is no manifest yet.
        WorkerFailure: the machine ends processes that decode before they get any work.
        OSError: ``out`` cannot be written to.
    """
    root = os.path.abspath(root)
    paths = _relative_paths(manifest, root)
    rows_of_part = [row for row, path in enumerate(paths) if part.has(path)]
    sources = pa.array([paths[row] for row in rows_of_part], pa.string())
    metadata = _metadata(manifest, root, out, every_frame, encoding, part)
    out.mkdir(parents=True, exist_ok=True)
    with locked_folder(out / f".{part.name('prepare.unfinished')}") as scratch:
        digest = _digest(metadata)
        earlier = earlier_rows(out / part.name(MANIFEST_NAME), root, sources, metadata)
        journal = Journal(scratch / f"rows-{digest}.jsonl", earlier)
        if encoding is not None:
            began = scratch / f"began-{digest}"
            _check_targets(paths, sources, journal.rows(sources), root, out, began)
        now = stamps(sources, root)
        todo = journal.missing(sources, now, encoding and out, retry_bad)
        missing = set(sources.filter(pc.less(now["bytes"], 0)).to_pylist())
        do = functools.partial(
            _prepare_file, root=root, out=out, scratch=scratch, settings=(every_frame, encoding)
        )
        results = work(do, todo, processes=processes, patience=patience)
        unreadable: list[UnreadableVideo] = []
        with journal.appending() as append:
            for done, (path, row) in enumerate(results, 1):
                if isinstance(row, Lost) or (
                    isinstance(row, UnreadableVideo) and row.is_missing and path in missing
                ):
                    row = _row(path, root, encoding, Facts(reason=row.reason))
                if isinstance(row, UnreadableVideo):
                    unreadable.append(row)
                else:
                    append(row)
                progress(done, len(todo))
        check_files(unreadable, len(todo))
        rows = journal.rows(sources)
        table = _manifest_table(manifest, rows_of_part, rows, encoding, part)
        file = write_prepared(out, table, metadata, _bad_videos(rows, root), part)
        shutil.rmtree(scratch)
    return file


def _relative_paths(manifest: Manifest, root: str) -> list[str]:
    """Paths of all videos relative to the root."""
    base, prefix = os.path.abspath(manifest.root), root.rstrip("/") + "/"
    full = [os.path.normpath(os.path.join(base, p)) for p in manifest.table["path"].to_pylist()]
    for path in full:
        if not path.startswith(prefix):
            raise DatasetError(f"{path}: lies outside {root}; set a higher --root")
    return [path[len(prefix) :] for path in full]


def _metadata(
    manifest: Manifest,
    root: str,
    out: Path,
    every_frame: bool,
    encoding: Encoding | None,
    part: Part,
) -> ManifestMetadata:
    """What the new manifest says of all its rows; rows found with other settings do not count."""
    settings = {
        "every_frame": every_frame,
        "encoding": encoding and asdict(encoding),
        "source_root": root if encoding else None,
    }
    prepared: dict[str, Any] = {"settings": settings}
    if part.of > 1:
        prepared |= {"shard": list(part), "rows": len(manifest)}
    new_root = portable_root(os.path.abspath(out) if encoding else root, out)
    return ManifestMetadata(manifest.class_names, new_root, prepared)


def _digest(metadata: ManifestMetadata) -> str:
    """Part of the journal's name: only runs with the same settings share one."""
    text = json.dumps([metadata.prepared["settings"], metadata.root])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_targets(
    paths: list[str], sources: pa.Array, rows: pa.Table, root: str, out: Path, began: Path
) -> None:
    """See that no new file can replace an original, another new file, or anything else.

    Args:
        paths: all files of the data set.
        sources: those of this part.
        rows: what earlier runs with the same settings found out about them.
        root: folder that all paths lie below.
        out: folder of the new files.
        began: marks that an earlier run has passed this check. Such a run may have written files
            without coming to note them, so what lies in ``out`` is not looked at again. Made here.
    """
    folders = {os.path.dirname(path) for path in paths}
    originals = {os.path.realpath(os.path.join(root, folder)) for folder in folders}
    new = {os.path.realpath(os.path.join(out, folder)) for folder in folders}
    if shared := originals & new:
        raise DatasetError(
            f"{min(shared)}: holds originals, and new files never go beside them; set another --out"
        )
    path_of_target = {_new_name(path): path for path in paths}
    if len(path_of_target) < len(unique := set(paths)):
        path = min(unique - set(path_of_target.values()))
        raise DatasetError(f"{path}: two videos would get the name {_new_name(path)}")
    if not began.exists():
        targets = pa.array(map(_new_name, sources.to_pylist()), pa.string())
        exists = pc.greater_equal(stamps(targets, out)["bytes"], 0)
        ours = pc.fill_null(pc.and_(rows["ok"], pc.equal(rows["path"], targets)), False)
        if (index := pc.index(pc.and_not(exists, ours), True).as_py()) >= 0:
            raise DatasetError(f"{out / targets[index].as_py()}: exists already; set another --out")
        began.touch()


def _prepare_file(
    path: str,
    alive: Callable[[], None],
    *,
    root: str,
    out: Path,
    scratch: Path,
    settings: tuple[bool, Encoding | None],
) -> dict[str, Any] | UnreadableVideo:
    """Do one file, in a process of its own, and return its row, or why there is none."""
    every_frame, encoding = settings
    source = os.path.join(root, path)
    row = _row(path, root, encoding, Facts())  # stamped first: the file may change while it is read
    try:
        if encoding is None:
            return row | probe(source, every_frame, alive)._asdict()
        new = out / row["path"]
        new.parent.mkdir(parents=True, exist_ok=True)
        if PICTURES.has(source):
            facts = resize_picture(source, new, encoding.short_side, scratch)
        else:
            facts = transcode(source, new, encoding, scratch=scratch, alive=alive)
    except UnreadableVideo as error:
        return error
    except VideoDecodeError as error:
        return row | {"reason": error.reason}
    except Exception as error:  # whatever one file among a million can cause
        if isinstance(error, OSError) and error.strerror in _DISK_ERRORS:
            raise
        return row | {"reason": f"transcoding failed: {type(error).__name__}: {error}"}
    size, modified_ns = stamp(new)
    return row | facts._asdict() | {"bytes": size, "modified_ns": modified_ns}


def _row(path: str, root: str, encoding: Encoding | None, facts: Facts) -> dict[str, Any]:
    """A row of the journal; where there is a new file, its size and time are still unknown."""
    size, modified_ns = stamp(os.path.join(root, path))
    row = {"source": path, "source_bytes": size, "source_modified_ns": modified_ns}
    if encoding is None:
        row |= {"path": path, "bytes": size, "modified_ns": modified_ns}
    else:
        row |= {"path": _new_name(path), "bytes": -1, "modified_ns": -1}
    return row | facts._asdict()


def _new_name(path: str) -> str:
    """Name of a new file: the old suffix stays, as ``a.avi`` and ``a.mkv`` may coexist."""
    suffixes = (".jpg", ".jpeg") if PICTURES.has(path) else (".mp4",)
    return path if path.lower().endswith(suffixes) else path + suffixes[0]


def _manifest_table(
    manifest: Manifest,
    rows_of_part: list[int],
    rows: pa.Table,
    encoding: Encoding | None,
    part: Part,
) -> pa.Table:
    """The new manifest's table; a part also numbers its rows, for `merge` to put them in order."""
    row_numbers = pa.array(rows_of_part, pa.int64())  # a part of few videos may have none
    labels = manifest.table["label"].take(row_numbers)
    table = rows.select(["path", *FACTS.names]).add_column(1, "label", labels)
    if encoding is not None:
        for name in SOURCE.names:
            table = table.append_column(name, rows[name])
    table = table.combine_chunks()
    if part.of > 1:
        table = table.append_column("row", row_numbers)
    return table


def _bad_videos(rows: pa.Table, root: str) -> list[tuple[str, str]]:
    """Path and reason of each bad file, once, sorted."""
    bad = rows.filter(pc.invert(rows["ok"])).select(["source", "reason"]).to_pylist()
    return sorted({os.path.join(root, row["source"]): row["reason"] for row in bad}.items())
