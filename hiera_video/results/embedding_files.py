"""Features of videos as files: one Parquet table, or an ``.npz`` for each video.

Both are written piece by piece, so that memory does not grow with the length of a video.
"""

import json
import math
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files import atomic_file
from datamodules.manifests.walking import files_below
from hiera_video.errors import EmbeddingError
from hiera_video.results.parquet import parquet_writer

TABLE = "embeddings.parquet"  # its name in a folder
DTYPES = ("float32", "float16")
GROUP_ROWS, GROUP_BYTES = 4096, 64 << 20  # of a row group and of a block that is read, at most


class Embedding(NamedTuple):
    """Features of parts of a video, in the order of time.

    Attributes:
        start: seconds from the start of the video, float64 ``(N,)``.
        end: the same.
        features: float ``(N, C)``, or maps ``(N, T', H', W', C)``.
    """

    start: np.ndarray
    end: np.ndarray
    features: np.ndarray


class Block(NamedTuple):
    """Consecutive rows of written features.

    Attributes:
        first: number of the first row, from 0.
        paths: of the video of each row.
        start: seconds from the start of the video, float64 ``(n,)``.
        end: the same.
        vectors: float32 ``(n, D)``; maps are flattened.
    """

    first: int
    paths: list[str]
    start: np.ndarray
    end: np.ndarray
    vectors: np.ndarray


def write_table_part(
    target: Path, scratch: Path, path: str, pieces: Iterable[Embedding], dtype: str
) -> None:
    """Write the rows of one video, whole or not at all; `join_table` joins them.

    Args:
        target: the file.
        scratch: folder for the unfinished file.
        path: of the video, for the column ``path``.
        pieces: the features, at least one piece.
        dtype: a name in DTYPES.

    Raises:
        EmbeddingError: a feature is not finite, or too large for the type.
    """
    write_table_rows(target, scratch, (([path] * len(p.start), p) for p in pieces), dtype)


def write_table_rows(
    target: Path, scratch: Path, pieces: Iterable[tuple[Sequence[str], Embedding]], dtype: str
) -> None:
    """The same for rows of several files.

    Args:
        target: as in `write_table_part`.
        scratch: as there.
        pieces: the path and the features of each row, at least one piece.
        dtype: as there.

    Raises:
        EmbeddingError: as there.
    """
    with atomic_file(target, scratch) as temporary, ExitStack() as stack:
        writer = None
        for paths, piece in pieces:
            stored = _stored(piece, paths, dtype)
            shape = stored.shape[1:]
            values = pa.array(stored.reshape(-1))
            vector = pa.FixedSizeListArray.from_arrays(values, math.prod(shape))
            columns = [pa.array(paths), pa.array(piece.start), pa.array(piece.end)]
            table = pa.table([*columns, vector], names=["path", "start", "end", "vector"])
            table = table.replace_schema_metadata({"shape": json.dumps(shape)})
            writer = writer or stack.enter_context(parquet_writer(temporary, table.schema))
            writer.write_table(table)


def paths_in(part: Path) -> set[str]:
    """The files whose rows are in what `write_table_part` or `write_table_rows` wrote."""
    return set(pq.read_table(part, columns=["path"])["path"].to_pylist())


def join_table(
    parts: Sequence[Path], target: Path, scratch: Path, metadata: Mapping[str, Any]
) -> None:
    """Join parts, in their order, to one table.

    Args:
        parts: at least one file from `write_table_part`.
        target: the file.
        scratch: folder for the unfinished file.
        metadata: kept in the file as JSON, beside ``shape``, that of a row's features.
    """
    schema = pq.read_schema(parts[0])
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    schema = schema.with_metadata({**(schema.metadata or {}), **texts})
    rows = _rows_at_once(schema.field("vector").type)
    with atomic_file(target, scratch) as temporary, parquet_writer(temporary, schema) as writer:
        group: list[pa.RecordBatch] = []
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(rows):
                    group.append(batch)
                    if sum(b.num_rows for b in group) >= rows:
                        writer.write_table(pa.Table.from_batches(group).cast(schema))
                        group = []
        if group:
            writer.write_table(pa.Table.from_batches(group).cast(schema))


def write_npz(
    target: Path,
    scratch: Path,
    path: str,
    pieces: Iterable[Embedding],
    dtype: str,
    facts: Mapping[str, float],
) -> None:
    """Write the features of one video as arrays, whole or not at all.

    The names are those that ActionFormer (EPIC-Kitchens) and OpenTAD read: ``feats`` ``(N, C)``,
    with maps ``(N, T', H', W', C)``. Beside it are ``start`` and ``end`` ``(N,)``, seconds,
    ``path``, a text, and the facts, one number each.

    Args:
        target: the file; its folder must exist.
        scratch: folder for unfinished files.
        path: of the video.
        pieces: the features, at least one piece.
        dtype: of ``feats``, a name in DTYPES.
        facts: further numbers by name.

    Raises:
        EmbeddingError: a feature is not finite, or too large for the type.
    """
    start, end, shape = [], [], ()
    # The header of an array says how many rows follow, so they wait in a file of their own.
    with atomic_file(target, scratch) as temporary, TemporaryFile(dir=scratch) as rows:
        for piece in pieces:
            stored = _stored(piece, [path] * len(piece.start), dtype)
            rows.write(stored.tobytes())
            # Not as arrays: kept between the large ones of the network, they fragment memory.
            start += piece.start.tolist()
            end += piece.end.tolist()
            shape = stored.shape[1:]
        rows.seek(0)
        header = {
            "descr": np.dtype(dtype).str,
            "fortran_order": False,
            "shape": (len(start), *shape),
        }
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open("feats.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                shutil.copyfileobj(rows, member)
            for name, value in {"start": start, "end": end, "path": path, **facts}.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def read_blocks(source: str | Path) -> Iterator[Block]:
    """Read features block by block.

    Args:
        source: a table, or a folder with one or with ``.npz`` files at any depth, which are read
            in the order of their names.

    Raises:
        EmbeddingError: there are no such files, or one cannot be read.
    """
    source = Path(source)
    file = source / TABLE if source.is_dir() else source
    try:
        if file.is_file():
            yield from _table_blocks(file)
        elif archives := [Path(path) for path in files_below(source) if path.endswith(".npz")]:
            yield from _npz_blocks(archives)
        else:
            raise EmbeddingError(f"{source}: no {TABLE} and no .npz files, as `embed` writes them")
    except (pa.ArrowException, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise EmbeddingError(f"{source}: cannot be read as features ({error})") from error


def _table_blocks(path: Path) -> Iterator[Block]:
    first = 0
    with pq.ParquetFile(path) as file:
        vector = file.schema_arrow.field("vector").type
        for batch in file.iter_batches(_rows_at_once(vector)):
            values = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            vectors = values.reshape(len(batch), vector.list_size).astype(np.float32)  # (n, D)
            start, end = batch["start"].to_numpy(), batch["end"].to_numpy()
            yield Block(first, batch["path"].to_pylist(), start, end, vectors)
            first += len(batch)


def _npz_blocks(paths: Iterable[Path]) -> Iterator[Block]:
    first = 0
    for path in paths:
        with np.load(path) as arrays:
            features, start, end = arrays["feats"], arrays["start"], arrays["end"]
            video = str(arrays["path"])
        for i in range(0, len(start), GROUP_ROWS):
            rows = slice(i, i + GROUP_ROWS)
            vectors = features[rows].reshape(len(start[rows]), -1).astype(np.float32)  # (n, D)
            yield Block(first + i, [video] * len(vectors), start[rows], end[rows], vectors)
        first += len(start)


def _stored(piece: Embedding, paths: Sequence[str], dtype: str) -> np.ndarray:
    """The features of a piece, whose rows are of these files, in the type of the file."""
    with np.errstate(over="ignore"):  # is found below
        stored = piece.features.astype(dtype)
    finite = np.isfinite(stored).reshape(len(stored), -1).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        worst = np.abs(piece.features[row]).max()
        where = f"{paths[row]}, second {piece.start[row]:g}"
        if not np.isfinite(worst):
            raise EmbeddingError(f"{where}: the model computes numbers that are not finite")
        raise EmbeddingError(f"{where}: {dtype} cannot hold {worst:g}; use float32")
    return np.ascontiguousarray(stored)


def _rows_at_once(vector: pa.DataType) -> int:
    bytes_of_row = vector.list_size * vector.value_type.bit_width // 8
    return max(1, min(GROUP_ROWS, GROUP_BYTES // bytes_of_row))
