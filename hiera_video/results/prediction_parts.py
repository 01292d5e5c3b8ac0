"""Predictions of a test under way: all processes write parts, which are joined at the end."""

import fcntl
import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from datamodules.files import atomic_file
from hiera_video.errors import PredictionFileError
from hiera_video.results.parquet import parquet_writer
from hiera_video.results.prediction_files import (
    CHECKED,
    KEYS,
    SCHEMA,
    FailedVideo,
    Header,
    PredictionFile,
    Rows,
)

# A part is written after so many rows or seconds, whichever comes first. A test that is cut off
# loses no more than that.
PART_ROWS, PART_SECONDS = 4096, 60.0
JOIN_VIDEOS = 512  # joined at a time


class PartWriter:
    """Writes rows to a folder of parts; each part is written whole or not at all.

    Args:
        folder: is created if it is missing; several processes may write to it.
        header: of all parts.
        rank: of this process.
    """

    def __init__(self, folder: Path, header: Header, rank: int) -> None:
        self.folder, self.header, self.rank = folder, header, rank
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows: list[Rows] = []
        self._failed: list[FailedVideo] = []
        self._count, self._since = 0, time.monotonic()

    def add(self, rows: Rows, failed: Iterable[FailedVideo]) -> None:
        """Add all views of one or more videos, and videos that could not be decoded."""
        self._rows.append(rows)
        self.add_failed(failed)
        self._count += len(rows.video_id)
        if self._count >= PART_ROWS or time.monotonic() - self._since >= PART_SECONDS:
            self.flush()

    def add_failed(self, failed: Iterable[FailedVideo]) -> None:
        """Add videos that could not be decoded."""
        self._failed += failed

    def flush(self, empty: bool = False) -> None:
        """Write what was added since the last part; nothing, unless ``empty``, if there is none."""
        if self._count or self._failed or empty:
            path = self.folder / f"{time.time_ns()}-{self.rank:05d}.parquet"
            schema = self.header.schema(self._failed)
            with atomic_file(path) as temporary, parquet_writer(temporary, schema) as writer:
                for rows in self._rows:
                    writer.write_table(_table(rows, self.header.spatial_views, schema))
        self._rows, self._failed = [], []
        self._count, self._since = 0, time.monotonic()


class Parts:
    """What all processes have written of a test so far: its parts, or the file they were joined to.

    Args:
        folder: of the parts, ``FILE.parts`` for the joined ``FILE``.

    Attributes:
        files: the parts and the joined file, as far as they exist.

    Raises:
        PredictionFileError: one of them cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.joined = folder, folder.with_suffix("")
        paths = [self.joined, *sorted(folder.glob("*.parquet"))]
        self.files = [PredictionFile(path) for path in paths if path.exists()]

    def videos(self) -> np.ndarray:
        """Ids of all videos, including those that could not be decoded; int64, ascending."""
        ids = [file.video_ids() for file in self.files]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *ids]))

    def count(self, metric: Any) -> None:
        """Add all rows to a metric, and the videos that could not be decoded."""
        for file in self.files:
            file.count(metric)

    def differs_from(self, header: Header) -> str | None:
        """Name of the first value that a file has otherwise than ``header``; None if all agree."""
        expected = _flat(header)
        for file in self.files:
            actual = _flat(file.header)
            for key, value in expected.items():
                if value != actual.get(key):
                    return key
        return None

    def join(self) -> None:
        """Write one file, sorted by video and view, without repeated views; remove the parts.

        There must be at least one part.
        """
        failed = {video.video_id: video for file in self.files for video in file.failed}
        schema = self.files[0].header.schema([failed[video_id] for video_id in sorted(failed)])
        ids = [file.video_ids() for file in self.files]
        videos = self.videos()
        with atomic_file(self.joined) as temporary, parquet_writer(temporary, schema) as writer:
            for start in range(0, len(videos), JOIN_VIDEOS):
                joined = videos[start : start + JOIN_VIDEOS]
                low, high = joined[0], joined[-1]
                overlapping = [  # few of very many parts
                    str(file.path)
                    for file, file_ids in zip(self.files, ids, strict=True)
                    if len(file_ids) and file_ids[0] <= high and low <= file_ids[-1]
                ]
                writer.write_table(_sorted_rows(overlapping, low, high).cast(schema))
        shutil.rmtree(self.folder, ignore_errors=True)


def lock_folder(folder: Path) -> Any:
    """Create a folder of parts and lock it for this test.

    Returns:
        The open lock file; closing it releases the lock.

    Raises:
        PredictionFileError: another test is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".lock", "w")  # noqa: SIM115  (held until the test ends)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise PredictionFileError(f"{folder}: a test is under way there; wait for it") from error
    except OSError:  # a file system without locks
        pass
    return file


def _flat(header: Header) -> dict[str, Any]:
    """All values of a header, with those of ``source`` beside the others, as JSON keeps them."""
    values = json.loads(json.dumps(header._asdict()))
    source = values.pop("source")
    return {**values, **source}


def _sorted_rows(files: list[str], low: int, high: int) -> pa.Table:
    """Rows of the videos with ids in [low, high], sorted by `KEYS`, each view once."""
    field = ds.field("video_id")
    options = ds.ParquetFragmentScanOptions(**CHECKED)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    table = ds.dataset(files, schema=SCHEMA, format=parquet).to_table(
        filter=(field >= int(low)) & (field <= int(high)),
        use_threads=False,
        batch_readahead=1,
        fragment_readahead=1,
    )
    keys = np.stack([table[key].to_numpy() for key in KEYS])  # (3, rows)
    order = np.lexsort(keys[::-1])
    repeated = (keys[:, order[1:]] == keys[:, order[:-1]]).all(0)
    order = np.concatenate([order[:1], order[1:][~repeated]])
    return table if np.array_equal(order, np.arange(table.num_rows)) else table.take(order)


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
