"""Every view's probabilities in Parquet files: written in parts, joined, read again in pieces.

Nothing here holds more than some hundred videos at a time.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from datamodules.atomic_file import atomic_file
from hiera_video.metrics.multi_view import MultiViewAccuracy

# A part is written when it has so many rows, or after so many seconds: that is lost at most.
PART_ROWS, PART_SECONDS = 4096, 60.0
JOIN_VIDEOS = 512
READ_ROWS = 4096

SCHEMA = pa.schema(
    [
        ("video_id", pa.int64()),
        ("path", pa.string()),
        ("label", pa.int64()),
        ("temporal_view", pa.int32()),
        ("spatial_view", pa.int32()),
        ("probabilities", pa.list_(pa.float32())),
    ]
)
KEYS = ("video_id", "temporal_view", "spatial_view")


class PredictionFileError(ValueError):
    """A file of predictions cannot be used; the message is one line for the user."""


class FailedVideo(NamedTuple):
    """A video that could not be decoded, and why."""

    path: str
    video_id: int
    label: int
    reason: str


class Header(NamedTuple):
    """What the rows of a file have in common; kept as JSON in its metadata.

    Attributes:
        class_names: in the order of the label ids.
        temporal_views: of each video.
        spatial_views: of each of those.
        source: what was evaluated and how: names and plain values.
    """

    class_names: tuple[str, ...]
    temporal_views: int
    spatial_views: int
    source: Mapping[str, Any] = {}

    @property
    def views(self) -> tuple[int, int]:
        """Temporal and spatial views."""
        return self.temporal_views, self.spatial_views

    def schema(self, failed: Iterable[FailedVideo]) -> pa.Schema:
        """The table's, with this and the videos that could not be decoded as metadata."""
        values = {**self._asdict(), "failed": [video._asdict() for video in failed]}
        return SCHEMA.with_metadata({key: json.dumps(value) for key, value in values.items()})


class Rows(NamedTuple):
    """Some views.

    Attributes:
        video_id: int64 ``(n,)``.
        path: names of the videos, ``n``.
        label: int64 ``(n,)``; -1 = unknown.
        view: int64 ``(n,)``: ``temporal index * spatial views + spatial index``.
        probabilities: float32 ``(n, classes)``.
    """

    video_id: np.ndarray
    path: Sequence[str]
    label: np.ndarray
    view: np.ndarray
    probabilities: np.ndarray


class PartWriter:
    """Writes rows to a folder of parts, each a file that is there whole or not at all.

    Args:
        folder: made where it is missing.
        header: of all parts.
        rank: of this process; several may write to one folder.
    """

    def __init__(self, folder: Path, header: Header, rank: int) -> None:
        self.folder, self.header, self.rank = folder, header, rank
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows: list[Rows] = []
        self._failed: list[FailedVideo] = []
        self._count, self._since = 0, time.monotonic()

    def add(self, rows: Rows, failed: Iterable[FailedVideo]) -> None:
        """Add all views of some videos, and videos that could not be decoded."""
        self._rows.append(rows)
        self._failed += failed
        self._count += len(rows.video_id)
        if self._count >= PART_ROWS or time.monotonic() - self._since >= PART_SECONDS:
            self.flush()

    def flush(self, empty: bool = False) -> None:
        """Write what has been added since the last part, if anything or ``empty``."""
        if self._count or self._failed or empty:
            path = self.folder / f"{time.time_ns()}-{self.rank:05d}.parquet"
            schema = self.header.schema(self._failed)
            with atomic_file(path) as temporary, _writer(temporary, schema) as writer:
                for rows in self._rows:
                    writer.write_table(_table(rows, self.header.spatial_views, schema))
        self._rows, self._failed = [], []
        self._count, self._since = 0, time.monotonic()


class Parts:
    """The parts that are in a folder now, of whichever processes.

    Raises:
        PredictionFileError: one of them cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = [PredictionFile(path) for path in sorted(folder.glob("*.parquet"))]

    def videos(self) -> np.ndarray:
        """Ids of the videos that are in them, failed ones among them; int64, ascending."""
        ids = [np.array([v.video_id for f in self.files for v in f.failed], np.int64)]
        ids += [np.unique(file.column("video_id")) for file in self.files]
        return np.unique(np.concatenate(ids))

    def differs_from(self, header: Header) -> str | None:
        """Name of something in which they are not of this header; None where all is the same."""
        wanted = json.loads(json.dumps(header._asdict()))
        for file in self.files:
            found = json.loads(json.dumps(file.header._asdict()))
            wanted_flat, found_flat = ({**h, **h["source"]} for h in (wanted, found))
            for key in wanted_flat:
                if key != "source" and wanted_flat[key] != found_flat.get(key):
                    return key
        return None

    def join(self, path: Path) -> None:
        """Write one file sorted by video and view, each once; then remove the parts.

        There is one part at least.
        """
        failed = {video.video_id: video for file in self.files for video in file.failed}
        by_id = [failed[video_id] for video_id in sorted(failed)]
        schema = self.files[0].header.schema(by_id)
        table: Any = ds.dataset([str(file.path) for file in self.files], schema=SCHEMA)
        videos = self.videos()
        field = ds.field("video_id")
        one_by_one = {"use_threads": False, "batch_readahead": 1, "fragment_readahead": 1}
        with atomic_file(path) as temporary, _writer(temporary, schema) as writer:
            for start in range(0, len(videos), JOIN_VIDEOS):
                some = videos[start : start + JOIN_VIDEOS]
                here = (field >= int(some[0])) & (field <= int(some[-1]))
                rows = table.to_table(filter=here, **one_by_one)
                keys = np.stack([rows[key].to_numpy() for key in KEYS])
                order = np.lexsort(keys[::-1])
                again = (keys[:, order[1:]] == keys[:, order[:-1]]).all(0)
                order = np.concatenate([order[:1], order[1:][~again]])
                if not np.array_equal(order, np.arange(rows.num_rows)):
                    rows = rows.take(order)
                writer.write_table(rows.replace_schema_metadata(schema.metadata))
        shutil.rmtree(self.folder)


class PredictionFile:
    """A file of predictions, opened.

    Args:
        path: the Parquet file.

    Attributes:
        header: what its rows have in common.
        failed: videos that could not be decoded.

    Raises:
        PredictionFileError: it is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise PredictionFileError(f"{path}: no such file")
        try:
            metadata = pq.read_metadata(self.path)
        except (pa.ArrowException, OSError) as error:
            raise PredictionFileError(f"{path}: not a Parquet file, or a damaged one") from error
        columns = metadata.schema.to_arrow_schema()
        for field in SCHEMA:
            if field.name not in columns.names or columns.field(field.name).type != field.type:
                raise PredictionFileError(f"{path}: has no column {field.name} of {field.type}")
        try:
            values = {k.decode(): v for k, v in (metadata.metadata or {}).items()}
            read = {key: json.loads(values.get(key, "null")) for key in (*Header._fields, "failed")}
            views = int(read["temporal_views"]), int(read["spatial_views"])
            names = tuple(map(str, read["class_names"]))
            self.header = Header(names, *views, read["source"] or {})
            self.failed = [
                FailedVideo(str(v["path"]), int(v["video_id"]), int(v["label"]), str(v["reason"]))
                for v in read["failed"] or []
            ]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PredictionFileError(
                f"{path}: its metadata are not those of predictions (class_names, temporal_views, "
                "spatial_views, failed)"
            ) from error
        if min(views) < 1 or not names:
            raise PredictionFileError(f"{path}: has no views or no classes")

    def column(self, name: str) -> np.ndarray:
        """One column of numbers, whole."""
        return pq.read_table(self.path, columns=[name])[name].to_numpy()

    def rows(self) -> Iterator[Rows]:
        """All rows in order, some at a time.

        Raises:
            PredictionFileError: a row that cannot be; the message has its number, from 1.
        """
        header = self.header
        classes, start = len(header.class_names), 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(READ_ROWS, columns=SCHEMA.names):
                columns = {name: batch.column(name) for name in SCHEMA.names}
                numbers = {n: columns[n].to_numpy(zero_copy_only=False) for n in (*KEYS, "label")}
                lists = columns["probabilities"]
                lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
                temporal, spatial = numbers["temporal_view"], numbers["spatial_view"]
                faults = {
                    f"has not {classes} probabilities, one a class": lengths != classes,
                    "has a label that is no class": ~in_range(numbers["label"], -1, classes),
                    f"has a temporal view not below {header.temporal_views}": ~in_range(
                        temporal, 0, header.temporal_views
                    ),
                    f"has a spatial view not below {header.spatial_views}": ~in_range(
                        spatial, 0, header.spatial_views
                    ),
                    "has no video_id": ~in_range(numbers["video_id"], 0, np.inf),
                }
                for fault, rows in faults.items():
                    if rows.any():
                        row = start + int(rows.argmax()) + 1
                        raise PredictionFileError(f"{self.path}: row {row} {fault}")
                values = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, classes)
                view = temporal.astype(np.int64) * header.spatial_views + spatial
                paths = columns["path"].to_pylist()
                yield Rows(numbers["video_id"], paths, numbers["label"], view, values)
                start += batch.num_rows

    def videos(self) -> "Videos":
        """All videos of the file, failed ones among them.

        Raises:
            PredictionFileError: a video has two names or labels, or a label that is no class.
        """
        known: dict[int, tuple[str, int]] = {v.video_id: (v.path, v.label) for v in self.failed}
        columns = ["video_id", "path", "label"]
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(READ_ROWS, columns=columns):
                table = pa.Table.from_batches([batch]).group_by(columns, use_threads=False)
                for row in table.aggregate([]).to_pylist():
                    facts = row["path"], row["label"]
                    if None in row.values():
                        raise PredictionFileError(f"{self.path}: a row lacks video, path or label")
                    before = known.setdefault(row["video_id"], facts)
                    if before != facts:
                        raise PredictionFileError(
                            f"{self.path}: video {row['video_id']} has two names or labels: "
                            f"{before} and {facts}"
                        )
        ids = sorted(known)
        labels = np.array([known[i][1] for i in ids], np.int64)
        return Videos(np.array(ids, np.int64), [known[i][0] for i in ids], labels)

    def count(self, metric: MultiViewAccuracy, ids: np.ndarray | None = None) -> None:
        """Add all views and all failed videos to a metric.

        Args:
            metric: it.
            ids: int64, ascending: the metric's videos are places in it; None: the ids themselves.
        """
        for rows in self.rows():
            videos = rows.video_id if ids is None else np.searchsorted(ids, rows.video_id)
            columns = (rows.probabilities, rows.label, videos, rows.view)
            metric.update(*(torch.tensor(column) for column in columns))
        for video in self.failed:
            place = video.video_id if ids is None else int(np.searchsorted(ids, video.video_id))
            metric.count_as_wrong(place, video.label)


class Videos(NamedTuple):
    """Videos of a file, in the order of their ids.

    Attributes:
        video_id: int64 ``(n,)``.
        path: names, ``n``.
        label: int64 ``(n,)``; -1 = unknown.
    """

    video_id: np.ndarray
    path: list[str]
    label: np.ndarray


def in_range(values: np.ndarray, least: float, end: float) -> np.ndarray:
    """Bool of the same shape; what is missing is NaN, and outside."""
    return (values >= least) & (values < end)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # A dictionary of probabilities would only cost time: hardly any comes twice.
    return pq.ParquetWriter(path, schema, use_dictionary=["path"])  # pyright: ignore


def _table(rows: Rows, spatial_views: int, schema: pa.Schema) -> pa.Table:
    count, classes = rows.probabilities.shape
    values = pa.array(np.ascontiguousarray(rows.probabilities, np.float32).reshape(-1))
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * classes)
    arrays = [
        pa.array(rows.video_id),
        pa.array(rows.path, pa.string()),
        pa.array(rows.label),
        pa.array((rows.view // spatial_views).astype(np.int32)),
        pa.array((rows.view % spatial_views).astype(np.int32)),
        pa.ListArray.from_arrays(offsets, values),
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
