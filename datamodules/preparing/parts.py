"""What `prepare` leaves in its folder: the manifest, a summary, the bad videos; joining shards."""

import csv
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datamodules.errors import DatasetError
from datamodules.files import atomic_file
from datamodules.manifests.parquet import (
    MANIFEST_NAME,
    ManifestMetadata,
    pc,
    read_manifest,
    write_manifest,
)

_COMMON = 8  # of the commonest values that a summary lists


class Shard(NamedTuple):
    """Part ``number`` (1 to ``of``) of a data set that several machines prepare."""

    number: int = 1
    of: int = 1

    def has(self, path: str) -> bool:
        """Whether a file is in this part: by its path alone, whatever other files there are."""
        return zlib.crc32(path.encode()) % self.of == self.number - 1

    def name(self, file: str) -> str:
        """``manifest-00001-of-00004.parquet``; the plain name where there is but one part."""
        stem, dot, suffix = file.rpartition(".")
        part = f"-{self.number:05d}-of-{self.of:05d}" if self.of > 1 else ""
        return f"{stem}{part}{dot}{suffix}"


WHOLE = Shard()


def write_prepared(
    out: Path,
    table: pa.Table,
    metadata: ManifestMetadata,
    bad: Sequence[tuple[str, str]],
    shard: Shard = WHOLE,
) -> Path:
    """Write ``bad_videos.csv``, ``summary.json`` and, last of all, the manifest.

    Args:
        out: the folder.
        table: rows of the manifest with their facts.
        metadata: of the manifest.
        bad: path and reason of each bad video.
        shard: which part this is; part of the files' names.

    Returns:
        The manifest file.
    """
    with (
        atomic_file(out / shard.name("bad_videos.csv")) as file,
        open(file, "w", newline="", encoding="utf-8") as f,
    ):
        csv.writer(f).writerows([("path", "reason"), *bad])
    with atomic_file(out / shard.name("summary.json")) as file:
        file.write_text(json.dumps(summary(table, metadata), indent=2) + "\n")
    manifest = out / shard.name(MANIFEST_NAME)
    write_manifest(manifest, table, metadata)
    return manifest


def summary(table: pa.Table, metadata: ManifestMetadata) -> dict[str, Any]:
    """Counts and common values of the facts of a data set; those of bad videos are left out."""
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
        "reasons": _common(pc.replace_substring_regex(reasons, r"\d+(\.\d+)?", "N")),
        "classes": len(metadata.class_names),
        "hours": round((pc.sum(good["duration"]).as_py() or 0.0) / 3600, 4),
        "frames": pc.sum(good["num_frames"]).as_py() or 0,
        "bytes": pc.sum(good["bytes"]).as_py() or 0,
        "codecs": _common(good["codec"]),
        "sizes": _common(sizes),
        "rates": _common(pc.round(good["rate"], 2)),
        "rotated": pc.sum(pc.not_equal(good["rotation"], 0)).as_py() or 0,
        "keyframe_spacing": dict(zip(("median", "largest"), spacing, strict=True)),
        "prepared": dict(metadata.prepared),
    }


def _common(values: Any) -> dict[str, int]:
    counts = [(str(v["values"]), v["counts"]) for v in pc.value_counts(values).to_pylist()]
    counts.sort(key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in counts[_COMMON:])
    return dict(counts[:_COMMON]) | ({"other": rest} if rest else {})


def merge(folders: Sequence[Path], out: Path) -> list[Path]:
    """Join the parts that several machines prepared; equal to preparing all on one.

    Args:
        folders: what was given as ``out`` to each; parts may share one.
        out: the folder to write to. Splits that are folders of their own stay so.

    Returns:
        The manifest files.

    Raises:
        DatasetError: parts are missing, twice there, or not of one data set.
    """
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(map(os.path.abspath, folders)):
        if not os.path.isdir(folder):
            raise DatasetError(f"{folder}: no such folder")
        for file in sorted(Path(folder).rglob("manifest-*-of-*.parquet")):
            found.setdefault(os.path.relpath(file.parent, folder), []).append(file)
    if not found:
        names = ", ".join(map(str, folders))
        raise DatasetError(f"{names}: no manifest-*-of-*.parquet; `prepare --shard` writes them")
    return [_merge(files, out / name) for name, files in found.items()]


def _merge(files: Sequence[Path], out: Path) -> Path:
    parts = [read_manifest(file) for file in files]
    prepared = [dict(metadata.prepared) for _, metadata in parts]
    shards = [Shard(*p.pop("shard", (0, 0))) for p in prepared]
    first, names = prepared[0], parts[0][1].class_names
    for file, (table, metadata), one in zip(files, parts, prepared, strict=True):
        if one != first or metadata.class_names != names or "row" not in table.column_names:
            raise DatasetError(f"{file}: not a part of the same data set as {files[0]}")
    expected = [Shard(i + 1, shards[0].of) for i in range(shards[0].of)]
    if sorted(shards) != expected:
        missing = ", ".join(f"{s.number}/{s.of}" for s in expected if s not in shards)
        fault = f"part {missing} is missing" if missing else "a part is there twice"
        raise DatasetError(f"{files[0].parent}: {fault}")
    root = os.path.commonpath([metadata.root for _, metadata in parts])
    tables = [_below(table, os.path.relpath(metadata.root, root)) for table, metadata in parts]
    table = pa.concat_tables(tables).sort_by("row")
    rows = first.pop("rows")
    if not table["row"].combine_chunks().equals(pa.array(range(rows), pa.int64())):
        raise DatasetError(f"{files[0].parent}: the source changed between parts; prepare again")
    bad = [pair for file in files for pair in read_bad(file)]
    out.mkdir(parents=True, exist_ok=True)
    metadata = ManifestMetadata(names, portable_root(root, out), first)
    return write_prepared(out, table.drop_columns("row").combine_chunks(), metadata, sorted(bad))


def _below(table: pa.Table, folder: str) -> pa.Table:
    """The table with paths relative to a higher root."""
    if folder == ".":
        return table
    paths = pc.binary_join_element_wise(pa.scalar(folder), table["path"], "/")
    return table.set_column(table.column_names.number("path"), "path", paths)


def beside(manifest: Path, name: str) -> Path:
    """``bad_videos.csv`` or ``summary.json`` of a manifest, be it of a part or of the whole."""
    stem, _, suffix = name.rpartition(".")
    part = manifest.stem.removeprefix(Path(MANIFEST_NAME).stem)
    return manifest.with_name(f"{stem}{part}.{suffix}")


def read_bad(manifest: Path) -> list[tuple[str, str]]:
    """Path and reason of the bad videos of a manifest that was prepared."""
    with open(beside(manifest, "bad_videos.csv"), newline="", encoding="utf-8") as rows:
        return [(row["path"], row["reason"]) for row in csv.DictReader(rows)]


def portable_root(root: str, out: Path) -> str:
    """The root as a manifest in ``out`` records it: relative if it lies there, so both can move."""
    out_folder = os.path.abspath(out)
    inside = os.path.commonpath([root, out_folder]) == out_folder
    return os.path.relpath(root, out_folder) if inside else root
