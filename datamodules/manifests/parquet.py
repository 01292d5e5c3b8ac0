"""A manifest as a Parquet file: one row per video, with what was found out about it.

Its columns are ``path`` and ``label`` and, from `prepare`, those of FACTS. A packed data set also
has ``shard`` and ``offset``, and ``bytes`` is then the length in the shard, a tar file. The file's
metadata holds, as JSON, ``class_names``, ``root``, ``version`` and ``prepared`` (with which
settings the facts were found). The same rows and metadata give the same bytes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from datamodules.errors import DatasetError
from datamodules.files import atomic_file

pc: Any = pyarrow.compute  # its functions are made at run time, where no type checker sees them

MANIFEST_NAME = "manifest.parquet"
VERSION = 1
# fsspec's URLs that lead to files of this machine, or through one file system to another.
_INDIRECT = (
    r"::|^(file|local|asynclocal|reference|dir|zip|tar|libarchive|git|data|generic|cached|dask|"
    r"blockcache|filecache|simplecache|async_?wrapper|jlab|jupyter|pyscript)://"
)
_URL = r"^[a-z][a-z0-9+.-]*://"

# What `prepare` finds out; null where a bad file does not tell it.
FACTS = pa.schema(
    [
        ("bytes", pa.int64()),  # -1: there is no such file
        ("modified_ns", pa.int64()),  # of the file, nanoseconds since 1970
        ("duration", pa.float64()),  # seconds
        ("num_frames", pa.int64()),  # that are displayed
        ("rate", pa.float64()),  # frames per second, on average
        ("width", pa.int32()),  # pixels, as displayed
        ("height", pa.int32()),  # pixels, as displayed
        ("rotation", pa.int32()),  # degrees counterclockwise, from stored to displayed
        ("codec", pa.string()),
        ("keyframe_spacing", pa.int32()),  # frames from a keyframe to the next, at most
        ("ok", pa.bool_()),  # the file can be decoded
        ("reason", pa.string()),  # why not, one line; empty where ok
    ]
)
_KNOWN = pa.unify_schemas(
    [
        pa.schema([("path", pa.string()), ("label", pa.int64())]),
        FACTS,
        pa.schema([("shard", pa.string()), ("offset", pa.int64())]),
    ]
)


@dataclass(frozen=True)
class ManifestMetadata:
    """What a manifest file says about all its rows.

    Attributes:
        class_names: name of each label id.
        root: folder that paths are relative to: absolute, or relative to the manifest's own folder.
        prepared: settings of `prepare`, which found the facts; empty where there are none.
    """

    class_names: Sequence[str]
    root: str
    prepared: Mapping[str, Any] = field(default_factory=dict)


def find_manifest(source: Path) -> Path | None:
    """The manifest file that ``source`` is, or holds if it is a folder; None if there is none."""
    if source.is_dir():
        source = source / MANIFEST_NAME
        return source if source.is_file() else None
    return source if source.suffix == ".parquet" and source.is_file() else None


def write_manifest(path: Path, table: pa.Table, metadata: ManifestMetadata) -> None:
    """Write a manifest file, whole or not at all.

    Args:
        path: the file; its folder must exist.
        table: ``path`` (string, POSIX, below the root), ``label`` (int64), and further columns.
        metadata: stored in the file's own metadata.
    """
    texts = {
        "class_names": list(metadata.class_names),
        "root": metadata.root,
        "version": VERSION,
        "prepared": dict(metadata.prepared),
    }
    table = table.replace_schema_metadata({k: json.dumps(v) for k, v in texts.items()})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_manifest(path: Path) -> tuple[pa.Table, ManifestMetadata]:
    """Read a manifest file.

    Returns:
        All its columns, and its metadata with ``root`` made absolute.

    Raises:
        DatasetError: not a manifest, a column has another type, or a path leaves the root.
    """
    try:
        table = pq.ParquetFile(path).read()
        texts = {key.decode(): json.loads(value) for key, value in _metadata(table).items()}
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DatasetError(f"{path}: not a readable manifest ({reason})") from None
    if not {"class_names", "root", "version"} <= texts.keys():
        raise DatasetError(f"{path}: not a manifest; write one with `hiera-video prepare`")
    if texts["version"] != VERSION:
        raise DatasetError(
            f"{path}: version {texts['version']}; only version {VERSION} can be read"
        )
    names, root = texts["class_names"], texts["root"]
    if not isinstance(root, str) or not all(isinstance(name, str) for name in names):
        raise DatasetError(f"{path}: its root or class names are not text")
    root = os.path.abspath(path.parent / root)
    _check_columns(path, table, len(names), root)
    metadata = ManifestMetadata(tuple(names), root, texts.get("prepared", {}))
    return table.replace_schema_metadata(None), metadata


def _metadata(table: pa.Table) -> dict[bytes, bytes]:
    ours = (b"class_names", b"root", b"version", b"prepared")
    return {k: v for k, v in (table.schema.metadata or {}).items() if k in ours}


def _check_columns(path: Path, table: pa.Table, classes: int, root: str) -> None:
    names = table.column_names
    if len(set(names)) < len(names) or not {"path", "label"} <= set(names):
        raise DatasetError(f"{path}: expected one column `path` and one `label`, not {names}")
    for column in table.schema:
        if column.name in _KNOWN.names and column.type != (t := _KNOWN.field(column.name).type):
            raise DatasetError(f"{path}: column {column.name} is {column.type}, not {t}")
    if (row := _first(_escapes(table["path"], root))) is not None:
        video = repr(table["path"][row].as_py())
        raise DatasetError(f"{path}, row {row}: {video} is not a path below the root {root}")
    wrong = pc.or_(pc.less(table["label"], -1), pc.greater_equal(table["label"], classes))
    if (row := _first(wrong)) is not None:
        label = table["label"][row].as_py()
        raise DatasetError(f"{path}, row {row}: label {label} is not one of its {classes} classes")
    if "shard" not in names:
        return
    if not {"offset", "bytes"} <= set(names):
        raise DatasetError(f"{path}: column shard needs the columns offset and bytes")
    wrong = pc.if_else(
        pc.match_substring(table["shard"], "://"),
        pc.invert(is_storage(table["shard"])),
        _escapes(table["shard"], os.path.abspath(path.parent)),
    )
    if (row := _first(wrong)) is not None:
        shard = repr(table["shard"][row].as_py())
        raise DatasetError(
            f"{path}, row {row}: shard {shard} does not lie beside the manifest, and is not the "
            "URL of a storage"
        )


def is_storage(urls: Any) -> Any:
    """Which URLs lead to a storage, and not to a file of this machine.

    Args:
        urls: a scalar or column of strings.

    Returns:
        Boolean, of the same kind and length.
    """
    direct = pc.invert(pc.match_substring_regex(urls, _INDIRECT))
    return pc.and_(pc.match_substring_regex(urls, _URL), direct)


def _escapes(paths: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    """Which POSIX paths are null, empty, or lead out of the folder; boolean."""
    odd = pc.match_substring_regex(paths, r"^$|\x00|(^|/)\.\.(/|$)")
    below = pc.starts_with(paths, folder.rstrip("/") + "/")
    absolute = pc.and_(pc.starts_with(paths, "/"), pc.invert(below))
    return pc.fill_null(pc.or_(odd, absolute), True)


def _first(flags: pa.ChunkedArray) -> int | None:
    """Index of the first flag that is true or null; None if there is none."""
    row = pc.index(pc.fill_null(flags, True), True).as_py()
    return None if row < 0 else row
