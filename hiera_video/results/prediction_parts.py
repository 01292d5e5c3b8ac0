"""A test's predictions on their way to one file: written in parts by all processes, then joined."""

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
import pyarrow.parquet as pq

from datamodules.files import atomic_file
from hiera_video.errors import PredictionFileError
from hiera_video.results.prediction_files import (
    CHECKED,
    KEYS,
    SCHEMA,
    FailedVideo,
    Header,
    PredictionFile,
    Rows,
)

# A part is written when it has so many rows, or after so many seconds: that is lost at most.
PART_ROWS, PART_SECONDS = 4096, 60.0
JOIN_VIDEOS = 512


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
    """What there is of a test, of whichever processes: parts in a folder, or all of it joined.

    Args:
        folder: of the parts; beside the file, with its name and ``.parts``.

    Attributes:
        files: the parts, opened.

    Raises:
        PredictionFileError: one of them cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.joined = folder, folder.with_suffix("")
        paths = [
            *([self.joined] if self.joined.exists() else []),
            *sorted(folder.glob("*.parquet")),
        ]
        self.files = [PredictionFile(path) for path in paths]

    def videos(self) -> np.ndarray:
        """Ids of the videos that are in them, failed ones among them; int64, ascending."""
        ids = [file.video_ids() for file in self.files]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *ids]))

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

    def join(self) -> None:
        """Write one file sorted by video and view, each once; then remove the parts.

        There is one part at least.
        """
        failed = {video.video_id: video for file in self.files for video in file.failed}
        schema = self.files[0].header.schema([failed[video_id] for video_id in sorted(failed)])
        ids = [file.video_ids() for file in self.files]
        videos = self.videos()
        with atomic_file(self.joined) as temporary, _writer(temporary, schema) as writer:
            for start in range(0, len(videos), JOIN_VIDEOS):
                some = videos[start : start + JOIN_VIDEOS]
                low, high = some[0], some[-1]
                # Of very many parts, few have any of these.
                near = [
                    str(file.path)
                    for file, here in zip(self.files, ids, strict=True)
                    if len(here) and here[0] <= high and low <= here[-1]
                ]
                writer.write_table(_sorted_rows(near, low, high).cast(schema))
        shutil.rmtree(self.folder, ignore_errors=True)


def lock_folder(folder: Path) -> Any:
    """Make a folder of parts and keep other tests out of it until what is returned is closed.

    Raises:
        PredictionFileError: a test writes there now.
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


def _sorted_rows(files: list[str], low: int, high: int) -> pa.Table:
    """Rows of the videos from low to high, each (video, view) once."""
    field = ds.field("video_id")
    options = ds.ParquetFragmentScanOptions(**CHECKED)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    table = ds.dataset(files, schema=SCHEMA, format=parquet).to_table(
        filter=(field >= int(low)) & (field <= int(high)),
        use_threads=False,
        batch_readahead=1,
        fragment_readahead=1,
    )
    keys = np.stack([table[key].to_numpy() for key in KEYS])
    order = np.lexsort(keys[::-1])
    again = (keys[:, order[1:]] == keys[:, order[:-1]]).all(0)
    order = np.concatenate([order[:1], order[1:][~again]])
    return table if np.array_equal(order, np.arange(table.num_rows)) else table.take(order)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # A dictionary of probabilities would only cost time: hardly any comes twice.
    return pq.ParquetWriter(
        path,
        schema,
        use_dictionary=["path"],  # pyright: ignore
        write_page_checksum=True,
    )


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
