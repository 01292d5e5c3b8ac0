"""A data set on disk as one table: which files, with which labels.

The table is Arrow, as forked workers share its memory. Python lists would be copied page by page,
as every look at one of a million strings changes its reference count.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.errors import DatasetError
from datamodules.manifests.byte_range import ByteRange
from datamodules.manifests.lists import NO_LABEL, Row
from datamodules.manifests.parquet import pc
from datamodules.manifests.range_cache import RangeCache


@dataclass(frozen=True)
class Manifest:
    """Videos of one split.

    Attributes:
        table: columns ``path`` (string) and ``label`` (int64, -1 = unknown). From a manifest file,
            it also has the columns of `parquet.FACTS`.
        class_names: name of each label id; empty where nothing is labelled.
        root: folder that relative paths start from and all paths lie below; empty if unknown.
        folder: folder of a manifest file, where the shards of a packed data set lie.
        prepared: settings of `prepare`, which found the facts; empty where there are none.
        missing: rows of a list whose files do not exist; the table has none of them.
        cache: where copies of videos in a storage are kept; None: nowhere.
    """

    table: pa.Table
    class_names: tuple[str, ...]
    root: str = ""
    folder: str = ""
    prepared: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[Row, ...] = ()
    cache: RangeCache | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        """Number of videos."""
        return self.table.num_rows

    def path(self, index: int) -> str:
        """Path of one video: its name in results and messages, packed or not."""
        return os.path.join(self.root, self.table["path"][index].as_py())

    def source(self, index: int) -> str | ByteRange:
        """What `VideoFile` opens for one video: a path, or a range of bytes in a shard."""
        if "shard" not in self.table.column_names:
            return self.path(index)
        shard, offset, size = (
            self.table[name][index].as_py() for name in ("shard", "offset", "bytes")
        )
        url = shard if "://" in shard else os.path.join(self.folder, shard)
        return ByteRange(url, offset, size, self.path(index), self.cache)

    def is_remote(self, index: int) -> bool:
        """Whether a video lies in a storage that is reached by a URL."""
        return "shard" in self.table.column_names and "://" in self.table["shard"][index].as_py()

    def stamp(self, index: int) -> str:
        """A text that changes when a video's bytes do; empty if the file cannot be looked at."""
        if "shard" in self.table.column_names:
            return ":".join(str(self.table[k][index]) for k in ("shard", "offset", "bytes"))
        try:
            return str(os.stat(self.path(index)).st_mtime_ns)
        except OSError:
            return ""

    def label(self, index: int) -> int:
        """Label id of one video; -1 = unknown."""
        return self.table["label"][index].as_py()

    def class_counts(self) -> np.ndarray:
        """Number of videos of each class: int64 ``(classes,)``."""
        labels = self.table["label"].to_numpy()
        return np.bincount(labels[labels >= 0], minlength=len(self.class_names))

    def without_labels(self) -> "Manifest":
        """The same videos, as if their classes were unknown."""
        column = self.table.column_names.index("label")
        unknown = pa.array([NO_LABEL] * len(self), pa.int64())
        table = self.table.set_column(column, "label", unknown)
        return replace(self, table=table, class_names=())

    def without_bad(self) -> "Manifest":
        """The videos without those that `prepare` found to be bad."""
        if "ok" not in self.table.column_names or pc.all(self.table["ok"]).as_py():
            return self
        return replace(self, table=self.table.filter(self.table["ok"]))

    def without_folders(self) -> tuple["Manifest", int]:
        """The videos that are files, and the number of the others: folders of frames."""
        if "shard" in self.table.column_names:
            return self, 0
        is_file = [not os.path.isdir(self.path(i)) for i in range(len(self))]
        return replace(self, table=self.table.filter(pa.array(is_file))), is_file.count(False)

    def spread(self, count: int) -> "Manifest":
        """``count`` videos at equal steps: from all classes, where videos are sorted by class."""
        if count >= len(self):
            return self
        rows = pa.array([i * len(self) // count for i in range(count)])
        return replace(self, table=self.table.take(rows))


def make_manifest(
    paths: Iterable[str],
    labels: Iterable[int] | None = None,
    class_names: Sequence[str] = (),
    root: str = "",
) -> Manifest:
    """Build a manifest from paths and label ids.

    Args:
        paths: absolute path of each video.
        labels: label id of each video; None: all are unknown.
        class_names: name of each label id.
        root: folder that all paths lie below.

    Raises:
        DatasetError: a file name is not UTF-8, or the locale lets Python read none that is.
    """
    try:
        column = pa.array(paths, pa.string())
    except UnicodeEncodeError as error:
        name = os.fsencode(error.object)
        reason, encoding = "the file name is not UTF-8; rename it", sys.getfilesystemencoding()
        if encoding != "utf-8":
            reason = f"this locale has Python read file names as {encoding}; set PYTHONUTF8=1"
        raise DatasetError(f"{name!r}: {reason}") from None
    labels = [NO_LABEL] * len(column) if labels is None else labels
    table = pa.table({"path": column, "label": pa.array(labels, pa.int64())})
    return Manifest(table, tuple(class_names), root)
