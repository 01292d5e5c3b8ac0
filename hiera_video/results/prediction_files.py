"""Every view's probabilities in a Parquet file, read in pieces of some hundred videos."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hiera_video.errors import PredictionFileError
from hiera_video.metrics.multi_view import MultiViewAccuracy

READ_ROWS = 4096
CHECKED: dict[str, Any] = {
    "page_checksum_verification": True
}  # where the file has such sums, as ours have
MOST_VIEWS = 10_000  # of a video; more are no test but a damaged file

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
            if field.name not in columns.names:
                raise PredictionFileError(f"{path}: has no column {field.name}")
            kind = columns.field(field.name).type
            try:  # other programs write wider numbers and longer strings
                pa.array([], kind).cast(field.type)
            except pa.ArrowException as error:
                raise PredictionFileError(
                    f"{path}: column {field.name} is {kind}, not {field.type}"
                ) from error
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
        if not 1 <= min(views) <= views[0] * views[1] <= MOST_VIEWS or not names:
            raise PredictionFileError(
                f"{path}: {views[0]}x{views[1]} views of {len(names)} classes"
            )
        if len(set(names)) < len(names):
            raise PredictionFileError(f"{path}: two classes have one name")
        for video in self.failed:
            if not -1 <= video.label < len(names) or video.video_id < 0:
                raise PredictionFileError(f"{path}: failed video {video.path} has no such label")

    def video_ids(self) -> np.ndarray:
        """Ids of all videos, failed ones among them; int64, ascending."""
        with self._readable():
            ids = pq.read_table(self.path, columns=["video_id"], **CHECKED)["video_id"].to_numpy()
        return np.union1d(ids, np.array([video.video_id for video in self.failed], np.int64))

    def rows(self) -> Iterator[Rows]:
        """All rows in order, some at a time.

        Raises:
            PredictionFileError: a row that cannot be; the message has its number, from 1.
        """
        header = self.header
        classes, start = len(header.class_names), 0
        with self._readable(), pq.ParquetFile(self.path, **CHECKED) as file:
            for batch in file.iter_batches(READ_ROWS, columns=SCHEMA.names):
                table = pa.Table.from_batches([batch]).cast(SCHEMA).combine_chunks()
                columns = {name: table[name].chunk(0) for name in SCHEMA.names}
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
        with self._readable(), pq.ParquetFile(self.path, **CHECKED) as file:
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

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise PredictionFileError(f"{self.path}: damaged ({reason})") from error


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


def stamped(weights: str | Path | None) -> str:
    """Weights as a test names them: a file with what changes when it is written anew, or a name."""
    path = Path(str(weights))
    if not path.is_file():
        return str(weights)
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def in_range(values: np.ndarray, least: float, end: float) -> np.ndarray:
    """Bool of the same shape; what is missing is NaN, and outside."""
    return (values >= least) & (values < end)
