"""What `prepare` leaves in its folder: a manifest, a summary, a list of the bad videos.

Several machines may each prepare a part of a data set; `merge` joins what they wrote. (A part is
the command line's ``--shard I/N``. The *shards* of a packed data set are tar files: see `packing`.)
"""

import csv
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datamodules.errors import DatasetError
from datamodules.files import atomic_file, write_json
from datamodules.manifests.parquet import (
    MANIFEST_NAME,
    ManifestMetadata,
    pc,
    read_manifest,
    write_manifest,
)

_LISTED = 8  # most frequent values that a summary lists


class Part(NamedTuple):
    """Part ``number`` (from 1 to ``of``) of a data set that several machines prepare."""

    number: int = 1
    of: int = 1

    def has(self, path: str) -> bool:
        """Whether a file belongs to this part. Its path alone decides, not which others exist."""
        return zlib.crc32(path.encode()) % self.of == self.number - 1

    def name(self, file: str) -> str:
        """A file's name in this part: ``manifest-00001-of-00004.parquet``; plain if it is whole."""
        stem, dot, suffix = file.rpartition(".")
        infix = f"-{self.number:05d}-of-{self.of:05d}" if self.of > 1 else ""
        return f"{stem}{infix}{dot}{suffix}"


WHOLE = Part()


def write_prepared(
    out: Path,
    table: pa.Table,
    metadata: ManifestMetadata,
    bad: Sequence[tuple[str, str]],
    part: Part = WHOLE,
) -> Path:
    """Write ``bad_videos.csv``, ``summary.json`` and, last of all, the manifest.

    Args:
        out: the folder.
        table: the manifest's rows, with the columns of FACTS.
        metadata: the manifest's metadata.
        bad: path and reason of each bad video.
        part: the part of the data set that these rows are; it shows in the files' names.

    Returns:
        The manifest file.
    """
    with (
        atomic_file(out / part.name("bad_videos.csv")) as file,
        open(file, "w", newline="", encoding="utf-8") as f,
    ):
        csv.writer(f).writerows([("path", "reason"), *bad])
    write_json(out / part.name("summary.json"), summary(table, metadata))
    manifest = out / part.name(MANIFEST_NAME)
    write_manifest(manifest, table, metadata)
    return manifest


def summary(table: pa.Table, metadata: ManifestMetadata) -> dict[str, Any]:
    """Counts and most frequent values of the facts of a data set, ready for JSON.

    Facts of bad videos are left out.

    Args:
        table: the manifest's rows, with the columns of FACTS.
        metadata: the manifest's metadata.
    """
    good = table.filter(table["ok"])
    sizes = pc.binary_join_element_wise(
        good["width"].cast(pa.string()), good["height"].cast(pa.string()), "x"
    )
    spacing = pc.quantile(good["keyframe_spacing"], [0.5, 1.0]).to_pylist()
    reasons = table.filter(pc.invert(table["ok"]))["reason"]
    return {
        "videos": table.num_rows,
        "ok": good.num_rows,
        "bad": table.num_rows - good.num_rows,
        "reasons": _most_frequent(pc.replace_substring_regex(reasons, r"\d+(\.\d+)?", "N")),
        "classes": len(metadata.class_names),
        "hours": round((pc.sum(good["duration"]).as_py() or 0.0) / 3600, 4),
        "frames": pc.sum(good["num_frames"]).as_py() or 0,
        "bytes": pc.sum(good["bytes"]).as_py() or 0,
        "codecs": _most_frequent(good["codec"]),
        "sizes": _most_frequent(sizes),
        "rates": _most_frequent(pc.round(pc.drop_null(good["rate"]), 2)),
        "rotated": pc.sum(pc.not_equal(good["rotation"], 0)).as_py() or 0,
        "keyframe_spacing": dict(zip(("median", "largest"), spacing, strict=True)),
        "prepared": dict(metadata.prepared),
    }


def _most_frequent(values: Any) -> dict[str, int]:
    """Values and their counts, most frequent first; the rest is summed up as ``other``."""
    counts = [(str(v["values"]), v["counts"]) for v in pc.value_counts(values).to_pylist()]
    counts.sort(key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in counts[_LISTED:])
    return dict(counts[:_LISTED]) | ({"other": rest} if rest else {})


def merge(folders: Sequence[Path], out: Path) -> list[Path]:
    """Join the parts that several machines prepared, to what one machine would have written.

    Args:
        folders: the ``out`` of each `prepare`; parts may share one. Manifests may lie at any depth,
            as those of several splits do.
        out: the folder to write to, at the same depth.

    Returns:
        The manifest files, one a split.

    Raises:
        DatasetError: a part is missing, is given twice, or belongs to another data set; ``out`` has
            the manifest of another one, or one that took more work.
    """
    files_of_split: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(map(os.path.abspath, folders)):
        if not os.path.isdir(folder):
            raise DatasetError(f"{folder}: no such folder")
        for file in sorted(Path(folder).rglob("manifest-*-of-*.parquet")):
            split = os.path.relpath(file.parent, folder)
            files_of_split.setdefault(split, []).append(file)
    if not files_of_split:
        names = ", ".join(map(str, folders))
        raise DatasetError(f"{names}: no manifest-*-of-*.parquet; `prepare --shard` writes them")
    return [_merge(files, out / split) for split, files in files_of_split.items()]


def _merge(files: Sequence[Path], out: Path) -> Path:
    """Join the parts of one split."""
    manifests = [read_manifest(file) for file in files]
    class_names = manifests[0][1].class_names
    prepared = [dict(metadata.prepared) for _, metadata in manifests]
    parts = [Part(*p.pop("shard", (0, 0))) for p in prepared]
    common = prepared[0]  # all but which part it is
    for file, (table, metadata), own in zip(files, manifests, prepared, strict=True):
        same = own == common and metadata.class_names == class_names
        if not same or "row" not in table.column_names:
            raise DatasetError(f"{file}: not a part of the same data set as {files[0]}")
    _check_complete(files[0].parent, parts)
    root = os.path.commonpath([metadata.root for _, metadata in manifests])
    table = pa.concat_tables(
        _below(table, os.path.relpath(metadata.root, root)) for table, metadata in manifests
    ).sort_by("row")
    num_rows = common.pop("rows")
    if not table["row"].combine_chunks().equals(pa.array(range(num_rows), pa.int64())):
        raise DatasetError(f"{files[0].parent}: the source changed between parts; prepare again")
    table = table.drop_columns("row").combine_chunks()
    if (earlier := out / MANIFEST_NAME).is_file():
        settings = common.get("settings") or {}
        source_root = settings.get("source_root") or root
        check_replaceable(earlier, *read_manifest(earlier), source_root, _sources(table), settings)
    bad = [row for file in files for row in read_bad(file)]
    out.mkdir(parents=True, exist_ok=True)
    metadata = ManifestMetadata(class_names, portable_root(root, out), common)
    return write_prepared(out, table, metadata, sorted(bad))


def check_replaceable(
    file: Path,
    table: pa.Table,
    metadata: ManifestMetadata,
    root: str,
    sources: pa.Array,
    settings: Mapping[str, Any],
) -> None:
    """See that no manifest, which may have taken hours, is replaced by mistake.

    Args:
        file: the manifest, for the message.
        table: its rows.
        metadata: its metadata.
        root: folder that the files of the next manifest lie below.
        sources: their paths below it.
        settings: with which they are prepared.

    Raises:
        DatasetError: the manifest is of other files, or took more work than the next.
    """
    old = metadata.prepared.get("settings") or {}
    source_root = old.get("source_root") or metadata.root
    copies = "transcoded copies of " if old.get("encoding") else ""
    advice = "set another --out" if copies else "set another --out, or remove it"
    if os.path.realpath(source_root) != os.path.realpath(root):
        raise DatasetError(
            f"{file}: describes {copies}files below {source_root}, not below {root}; {advice}"
        )
    known = _sources(table)
    if len(known) and len(sources) and not pc.any(pc.is_in(sources, value_set=known)).as_py():
        raise DatasetError(f"{file}: describes {copies}other files below {root}; {advice}")
    if copies and not settings.get("encoding"):
        raise DatasetError(
            f"{file}: describes transcoded copies; add --transcode to renew it, or set another "
            "--out"
        )
    if old.get("every_frame") and not settings.get("every_frame"):
        raise DatasetError(
            f"{file}: was found by decoding every frame; leave out --quick, as only what is new or "
            "changed is opened, or set another --out"
        )


def _sources(table: pa.Table) -> pa.Array:
    """The files that the rows of a manifest are about; a file that is no copy is its own source."""
    return table["source" if "source" in table.column_names else "path"].combine_chunks()


def _check_complete(folder: Path, parts: Sequence[Part]) -> None:
    expected = [Part(i + 1, parts[0].of) for i in range(parts[0].of)]
    if sorted(parts) != expected:
        missing = ", ".join(f"{p.number}/{p.of}" for p in expected if p not in parts)
        fault = f"part {missing} is missing" if missing else "a part was given twice"
        raise DatasetError(f"{folder}: {fault}")


def _below(table: pa.Table, folder: str) -> pa.Table:
    """The table with paths from a higher root, below which its own is ``folder``."""
    if folder == ".":
        return table
    paths = pc.binary_join_element_wise(pa.scalar(folder), table["path"], "/")
    return table.set_column(table.column_names.index("path"), "path", paths)


def beside(manifest: Path, name: str) -> Path:
    """Path of ``bad_videos.csv`` or ``summary.json`` beside a manifest, of a part or the whole."""
    stem, _, suffix = name.rpartition(".")
    infix = manifest.stem.removeprefix(Path(MANIFEST_NAME).stem)
    return manifest.with_name(f"{stem}{infix}.{suffix}")


def read_bad(manifest: Path) -> list[tuple[str, str]]:
    """Path and reason of each bad video of a manifest that `prepare` wrote."""
    with open(beside(manifest, "bad_videos.csv"), newline="", encoding="utf-8") as f:
        return [(row["path"], row["reason"]) for row in csv.DictReader(f)]


def portable_root(root: str, out: Path) -> str:
    """A root as a manifest in ``out`` records it: relative if it lies there, so both can move."""
    out_folder = os.path.abspath(out)
    inside = os.path.commonpath([root, out_folder]) == out_folder
    return os.path.relpath(root, out_folder) if inside else root
