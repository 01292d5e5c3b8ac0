"""A data set on disk as one table: which files, with which labels.

The table is Arrow, as forked workers share its memory. Python lists would be copied page by page,
as every look at one of a million strings changes its reference count.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamodules.errors import DatasetError
from datamodules.manifests.byte_range import ByteRange
from datamodules.manifests.lists import NO_LABEL, VIDEO_SUFFIXES, label_ids, read_list
from datamodules.manifests.parquet import find_manifest, pc, read_manifest

__all__ = ["DatasetError", "Manifest", "list_split", "list_videos", "make_manifest", "read_split"]

log = logging.getLogger(__name__)

LIST_SUFFIXES = frozenset((".csv", ".txt", ".json"))


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
    """

    table: pa.Table
    class_names: tuple[str, ...]
    root: str = ""
    folder: str = ""
    prepared: Mapping[str, Any] = field(default_factory=dict)

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
        return ByteRange(url, offset, size, self.path(index))

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

    def spread(self, count: int) -> "Manifest":
        """``count`` videos at equal steps: from all classes, where videos are sorted by class."""
        if count >= len(self):
            return self
        rows = pa.array([i * len(self) // count for i in range(count)])
        return replace(self, table=self.table.take(rows))


def make_manifest(
    paths: Iterable[str], labels: Iterable[int], class_names: Sequence[str], root: str = ""
) -> Manifest:
    """Build a manifest from paths and label ids.

    Args:
        paths: absolute path of each video.
        labels: label id of each video.
        class_names: name of each label id.
        root: folder that all paths lie below.

    Raises:
        DatasetError: a file name is not UTF-8.
    """
    try:
        column = pa.array(paths, pa.string())
    except UnicodeEncodeError as error:
        name = os.fsencode(error.object)
        raise DatasetError(f"{name!r}: the file name is not UTF-8; rename it") from None
    table = pa.table({"path": column, "label": pa.array(labels, pa.int64())})
    return Manifest(table, tuple(class_names), root)


def read_split(source: Path, root: Path, class_names: Sequence[str] | None) -> Manifest:
    """Read one split of a data set.

    Args:
        source: a manifest file or a folder that holds one (see `parquet`), or what `list_split`
            takes.
        root: as in `list_split`; a manifest file records its own.
        class_names: the known classes in the order of their ids. None: those found, sorted.

    Raises:
        DatasetError: the source is missing, empty or wrong; names the file and the row.
    """
    file = find_manifest(source)
    if file is None:
        return list_split(source, root, class_names)
    table, metadata = read_manifest(file)
    if not table.num_rows:
        raise DatasetError(f"{file}: no rows")
    folder, names = os.path.abspath(file.parent), tuple(metadata.class_names)
    if "shard" in table.column_names:
        _check_storage(file, table["shard"])
    if class_names is not None and names and names != tuple(class_names):
        table, names = _relabelled(file, table, names, tuple(class_names)), tuple(class_names)
    if "shard" not in table.column_names and not os.path.isdir(metadata.root):
        raise DatasetError(f"{file}: the videos' folder {metadata.root} is gone; prepare it again")
    return Manifest(table, names, metadata.root, folder, metadata.prepared)


def _check_storage(file: Path, shards: pa.ChunkedArray) -> None:
    """See that the libraries are installed that the shards' URLs need."""
    kinds = {shard.partition("://")[0] for shard in pc.unique(shards).to_pylist() if "://" in shard}
    for kind in kinds:
        from fsspec import get_filesystem_class  # imported only where needed: it takes a while

        try:
            get_filesystem_class(kind)
        except (ImportError, ValueError) as error:
            raise DatasetError(f"{file}: its shards are at {kind}://: {error}") from None


def _relabelled(
    file: Path, table: pa.Table, names: tuple[str, ...], known: tuple[str, ...]
) -> pa.Table:
    """The table with its label ids changed to those of the ``known`` classes."""
    if names == tuple(map(str, range(len(names)))) and len(names) <= len(known):
        return table  # its classes have ids only, no names
    if missing := [name for name in names if name not in known]:
        raise DatasetError(
            f"{file}: class {missing[0]!r} is not one of the {len(known)} known ones"
        )
    ids = pa.array([known.index(name) for name in names], pa.int64())
    labels = table["label"]
    new = pc.if_else(pc.less(labels, 0), labels, ids.take(pc.max_element_wise(labels, 0)))
    return table.set_column(table.column_names.index("label"), "label", new)


def list_split(source: Path, root: Path, class_names: Sequence[str] | None) -> Manifest:
    """List the videos of one split from folders or a text file; a manifest there is ignored.

    Args:
        source: a folder with one folder of videos per class, or a text file: a CSV with the columns
            ``path,label`` (header optional) or lines ``path label``, as PySlowFast writes them.
            A folder of videos and a file of paths alone have no labels.
        root: folder that relative paths of a text file start from and that no path may leave.
        class_names: the known classes in the order of their ids. None: those found, sorted.

    Raises:
        DatasetError: the source is missing, empty or wrong; names the file and the row.
    """
    if source.is_dir():
        return _read_class_folders(source, class_names)
    if not source.exists():
        raise DatasetError(f"{source}: no such folder or file; set data.root and the split's name")
    rows = read_list(source, root)
    labels, names = label_ids(source, rows, class_names)
    return make_manifest([row.video for row in rows], labels, names, os.path.abspath(root))


def list_videos(
    sources: Sequence[str | Path], read_annotation: Callable[[Path], Manifest]
) -> Manifest:
    """Unlabelled videos, for prediction: files as given, and all videos below folders, sorted.

    A source may be a manifest file or a folder that holds one. If its videos are packed, it must be
    the only source.

    Args:
        sources: files and folders.
        read_annotation: reads a source that is a text file (LIST_SUFFIXES).

    Raises:
        DatasetError: a path does not exist, or no video is found.
    """
    if not sources:
        raise DatasetError("no videos to predict; name files or folders")
    paths: list[str] = []
    for source in map(Path, sources):
        if not source.exists():
            raise DatasetError(f"{source}: no such file or folder")
        is_list = source.suffix.lower() in LIST_SUFFIXES and source.is_file()
        if is_list or find_manifest(source):
            manifest = read_annotation(source) if is_list else read_split(source, Path(), None)
            if len(sources) == 1:
                return manifest.without_labels()
            if "shard" in manifest.table.column_names:
                raise DatasetError(f"{source}: its videos are packed; predict them alone")
            paths += [manifest.path(i) for i in range(len(manifest))]
            continue
        videos = [str(path) for path in (_videos_below(source) if source.is_dir() else [source])]
        if source.is_dir():
            _report_skipped(source, videos)
        paths += videos
    if not paths:
        raise DatasetError(f"{', '.join(map(str, sources))}: no video files found")
    return make_manifest(paths, [NO_LABEL] * len(paths), ())


def _videos_below(folder: Path) -> list[Path]:
    """Video files at any depth, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)


def _report_skipped(folder: Path, videos: Iterable[str]) -> None:
    """Say in one line how many files below a folder are not used, but for hidden ones."""
    used, skipped = set(videos), []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (os.path.join(parent, name) for name in names if not name.startswith("."))
        skipped += [path for path in paths if path not in used]
    if skipped:
        files = "1 file is" if len(skipped) == 1 else f"{len(skipped)} files are"
        log.warning(f"{folder}: {files} skipped, such as {min(skipped)}")


def _read_class_folders(folder: Path, class_names: Sequence[str] | None) -> Manifest:
    """Videos of a folder with one folder per class; unlabelled if it holds none but videos."""
    folder = Path(os.path.abspath(folder))
    if odd := [n for n in class_names or () if n in ("", ".", "..") or "/" in n or "\0" in n]:
        raise DatasetError(f"{folder}: class {odd[0]!r} cannot be the name of a folder")
    folders = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    names = tuple(class_names) if class_names is not None else tuple(folders)
    if unknown := [name for name in folders if name not in names]:
        raise DatasetError(
            f"{folder / unknown[0]}: not one of the {len(names)} known classes; "
            "remove the folder or extend data.class_names"
        )
    if not folders and (flat := [str(path) for path in _videos_below(folder)]):
        _report_skipped(folder, flat)
        return make_manifest(flat, [NO_LABEL] * len(flat), (), str(folder))
    videos = [
        (str(path), i) for i, name in enumerate(names) for path in _videos_below(folder / name)
    ]
    if not videos:
        raise DatasetError(f"{folder}: no videos; expected one folder of videos per class")
    paths, labels = zip(*videos, strict=True)
    _report_skipped(folder, paths)
    return make_manifest(paths, labels, names, str(folder))
