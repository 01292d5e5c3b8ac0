"""A file of predictions: the probabilities of each view of each video, in Parquet."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hiera_video.errors import PredictionFileError
from hiera_video.metrics.video_judge import VideoJudge

READ_ROWS = 4096  # read at a time

Progress = Callable[[int, int], None]
# Our files have page checksums; a file without them is read unchecked.
CHECKED: dict[str, Any] = {"page_checksum_verification": True}
MOST_VIEWS = 10_000  # of a video; a file with more is damaged

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
KEYS = ("video_id", "temporal_view", "spatial_view")  # by which a file is sorted


class FailedVideo(NamedTuple):
    """A video that could not be decoded.

    Attributes:
        path: of the video.
        video_id: 0 or more.
        label: class id; -1: unknown.
        reason: why, in one line.
    """

    path: str
    video_id: int
    label: int
    reason: str


class Header(NamedTuple):
    """What the rows of a file have in common, stored as JSON in its metadata.

    Attributes:
        class_names: in the order of the class ids.
        temporal_views: clips of each video.
        spatial_views: crops of each clip.
        source: what was evaluated and how, as plain values.
    """

    class_names: tuple[str, ...]
    temporal_views: int
    spatial_views: int
    source: Mapping[str, Any] = {}

    @property
    def views(self) -> tuple[int, int]:
        """Numbers of temporal and spatial views."""
        return self.temporal_views, self.spatial_views

    def schema(self, failed: Iterable[FailedVideo]) -> pa.Schema:
        """The schema of a file with this header and these videos that could not be decoded."""
        values = {**self._asdict(), "failed": [video._asdict() for video in failed]}
        return SCHEMA.with_metadata({key: json.dumps(value) for key, value in values.items()})


class Rows(NamedTuple):
    """Predictions for n views, of one or more videos.

    Attributes:
        video_id: int64 ``(n,)``.
        path: of the videos, ``n``.
        label: int64 ``(n,)``; -1: unknown.
        view: int64 ``(n,)``: ``temporal index * spatial views + spatial index``.
        probabilities: float32 ``(n, classes)``.
    """

    video_id: np.ndarray
    path: Sequence[str]
    label: np.ndarray
    view: np.ndarray
    probabilities: np.ndarray


class PredictionFile:
    """An existing file of predictions, of ours or another program's.

    Args:
        path: the Parquet file.
        progress: called with the rows that have been read and their total.

    Attributes:
        progress: as given, or a function that does nothing.
        header: what its rows have in common.
        failed: videos that could not be decoded.

    Raises:
        PredictionFileError: the file is missing or damaged, or its columns or metadata are not
            those of predictions.
    """

    def __init__(self, path: str | Path, progress: Progress | None = None) -> None:
        self.path, self.progress = Path(path), progress or (lambda done, total: None)
        if not self.path.is_file():
            raise PredictionFileError(f"{path}: no such file")
        try:
            metadata = pq.read_metadata(self.path)
        except (pa.ArrowException, OSError) as error:
            raise PredictionFileError(f"{path}: not a Parquet file, or a damaged one") from error
        try:
            _check_columns(metadata.schema.to_arrow_schema())
            self.header, self.failed = _read_metadata(metadata.metadata or {})
        except ValueError as error:
            raise PredictionFileError(f"{path}: {error}") from error

    def video_ids(self) -> np.ndarray:
        """Ids of all videos, including those that could not be decoded; int64, ascending."""
        with self._readable():
            ids = pq.read_table(self.path, columns=["video_id"], **CHECKED)["video_id"].to_numpy()
        return np.union1d(ids, np.array([video.video_id for video in self.failed], np.int64))

    def rows(self) -> Iterator[Rows]:
        """Read all rows in order, at most `READ_ROWS` at a time; `progress` is told after each.

        Raises:
            PredictionFileError: the file is damaged or a value is out of range; the message gives
                the row's number, from 1.
        """
        first_row = 1
        with self._readable(), pq.ParquetFile(self.path, **CHECKED) as file:
            for batch in file.iter_batches(READ_ROWS, columns=SCHEMA.names):
                yield self._checked_rows(batch, first_row)
                first_row += batch.num_rows
                self.progress(first_row - 1, file.metadata.num_rows)

    def _checked_rows(self, batch: pa.RecordBatch, first_row: int) -> Rows:
        num_classes, (temporal_views, spatial_views) = (
            len(self.header.class_names),
            self.header.views,
        )
        table = pa.Table.from_batches([batch]).cast(SCHEMA).combine_chunks()
        columns = {name: table[name].chunk(0) for name in SCHEMA.names}
        numbers = {n: columns[n].to_numpy(zero_copy_only=False) for n in (*KEYS, "label")}
        lengths = columns["probabilities"].value_lengths().to_numpy(zero_copy_only=False)
        temporal, spatial = numbers["temporal_view"], numbers["spatial_view"]
        faults = {
            f"has not {num_classes} probabilities, one a class": lengths != num_classes,
            "has a label that is no class": ~_in_range(numbers["label"], -1, num_classes),
            f"has a temporal view not below {temporal_views}": ~_in_range(
                temporal, 0, temporal_views
            ),
            f"has a spatial view not below {spatial_views}": ~_in_range(spatial, 0, spatial_views),
            "has no video_id": ~_in_range(numbers["video_id"], 0, np.inf),
        }
        for fault, faulty in faults.items():
            if faulty.any():
                row = first_row + int(faulty.argmax())
                raise PredictionFileError(f"{self.path}: row {row} {fault}")
        values = columns["probabilities"].flatten().to_numpy(zero_copy_only=False)
        return Rows(
            numbers["video_id"],
            columns["path"].to_pylist(),
            numbers["label"],
            temporal.astype(np.int64) * spatial_views + spatial,
            values.reshape(-1, num_classes),  # (rows * classes,) -> (rows, classes)
        )

    def videos(self) -> "Videos":
        """All videos of the file, including those that could not be decoded.

        Raises:
            PredictionFileError: a video has two paths or labels, or lacks one.
        """
        path_and_label = {v.video_id: (v.path, v.label) for v in self.failed}
        columns = ["video_id", "path", "label"]
        with self._readable(), pq.ParquetFile(self.path, **CHECKED) as file:
            for batch in file.iter_batches(READ_ROWS, columns=columns):
                distinct = pa.Table.from_batches([batch]).group_by(columns, use_threads=False)
                for row in distinct.aggregate([]).to_pylist():
                    if None in row.values():
                        raise PredictionFileError(f"{self.path}: a row lacks video, path or label")
                    new = row["path"], row["label"]
                    old = path_and_label.setdefault(row["video_id"], new)
                    if old != new:
                        raise PredictionFileError(
                            f"{self.path}: video {row['video_id']} has two paths or labels: "
                            f"{old} and {new}"
                        )
        ids = sorted(path_and_label)
        labels = np.array([path_and_label[i][1] for i in ids], np.int64)
        return Videos(np.array(ids, np.int64), [path_and_label[i][0] for i in ids], labels)

    def count(self, judge: VideoJudge, ids: np.ndarray | None = None) -> None:
        """Have all views judged, and all videos that could not be decoded.

        Args:
            judge: is updated.
            ids: int64 ``(n,)``, ascending: the judge knows each video by the index of its id here.
                None: by the id itself.
        """
        for rows in self.rows():
            videos = rows.video_id if ids is None else np.searchsorted(ids, rows.video_id)
            columns = (rows.probabilities, rows.label, videos, rows.view)
            judge.update(*(torch.tensor(column) for column in columns))
        for video in self.failed:
            index = video.video_id if ids is None else int(np.searchsorted(ids, video.video_id))
            judge.count_as_wrong(index, video.label)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise PredictionFileError(f"{self.path}: damaged ({reason})") from error


class Videos(NamedTuple):
    """The n videos of a file, in the order of their ids.

    Attributes:
        video_id: int64 ``(n,)``.
        path: of the videos, ``n``.
        label: int64 ``(n,)``; -1: unknown.
    """

    video_id: np.ndarray
    path: list[str]
    label: np.ndarray


def stamped(weights: str | Path | None) -> str:
    """Identify weights: a file by its path, size and time of change, anything else by its name."""
    path = Path(str(weights))
    if not path.is_file():
        return str(weights)
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def _check_columns(columns: pa.Schema) -> None:
    """Raise a ValueError unless the columns are there and can be cast to those of `SCHEMA`."""
    for field in SCHEMA:
        if field.name not in columns.names:
            raise ValueError(f"has no column {field.name}")
        kind = columns.field(field.name).type
        try:  # other programs write wider numbers and longer strings
            pa.array([], kind).cast(field.type)
        except pa.ArrowException as error:
            raise ValueError(f"column {field.name} is {kind}, not {field.type}") from error


def _read_metadata(metadata: Mapping[bytes, bytes]) -> tuple[Header, list[FailedVideo]]:
    """Read what `Header.schema` wrote; a ValueError says what is wrong with it."""
    try:
        texts = {key.decode(): value for key, value in metadata.items()}
        values = {key: json.loads(texts.get(key, "null")) for key in (*Header._fields, "failed")}
        views = int(values["temporal_views"]), int(values["spatial_views"])
        names = tuple(map(str, values["class_names"]))
        header = Header(names, *views, values["source"] or {})
        failed = [
            FailedVideo(str(v["path"]), int(v["video_id"]), int(v["label"]), str(v["reason"]))
            for v in values["failed"] or []
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            "its metadata are not those of predictions (class_names, temporal_views, "
            "spatial_views, failed)"
        ) from error
    if not 1 <= min(views) <= views[0] * views[1] <= MOST_VIEWS or not names:
        raise ValueError(f"{views[0]}x{views[1]} views of {len(names)} classes")
    if len(set(names)) < len(names):
        raise ValueError("two classes have the same name")
    for video in failed:
        if not -1 <= video.label < len(names) or video.video_id < 0:
            raise ValueError(f"failed video {video.path}: its label or video_id is out of range")
    return header, failed


def _in_range(values: np.ndarray, least: float, end: float) -> np.ndarray:
    """Whether each value is in [least, end); a missing value is NaN and thus outside."""
    return (values >= least) & (values < end)
