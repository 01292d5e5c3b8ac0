"""The videos of a split: from a manifest file, class folders, or a list."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from datamodules.errors import DatasetError
from datamodules.manifests.finding import Find, describe_missing, find_by_path, missing_videos
from datamodules.manifests.labels import class_ids, label_ids
from datamodules.manifests.lists import Row, rows_by_video
from datamodules.manifests.manifest import Manifest, make_manifest
from datamodules.manifests.parquet import find_manifest, pc, read_manifest
from datamodules.manifests.text_lists import read_list
from datamodules.manifests.walking import entries, files_below
from datamodules.suffixes import EITHER, PICTURES, VIDEOS, Media, kind_of
from datamodules.wording import counted, did_you_mean

log = logging.getLogger(__name__)

__all__ = ["Manifest", "list_split", "list_videos", "locate", "make_manifest", "read_split"]

LIST_SUFFIXES = frozenset((".csv", ".tsv", ".txt", ".json"))
# A folder with folders of both kinds holds splits, not classes.
TRAINING_FOLDERS = ("train", "training")
_NAMED = 3  # skipped files in a message
OTHER_FOLDERS = ("val", "valid", "validate", "validation", "test", "testing")


def read_split(
    source: Path, root: Path, class_names: Sequence[str] | None, media: Media = VIDEOS
) -> Manifest:
    """Read one split of a data set.

    Args:
        source: a manifest file or a folder that holds one (see `parquet`), or what `list_split`
            takes.
        root: as in `list_split`; a manifest file records its own.
        class_names: the known classes in the order of their ids. None: those found, sorted.
        media: the kind of file that folders are searched for.

    Raises:
        DatasetError: the source is missing, empty or wrong; names the file and the row.
    """
    file = find_manifest(source)
    if file is None:
        return list_split(source, root, class_names, media)
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
    id_of = class_ids(names, known)
    if missing := [name for name in names if name not in id_of]:
        raise DatasetError(
            f"{file}: class {missing[0]!r} is not one of the {len(known)} known ones"
        )
    ids = pa.array([id_of[name] for name in names], pa.int64())
    labels = table["label"]
    new = pc.if_else(pc.less(labels, 0), labels, ids.take(pc.max_element_wise(labels, 0)))
    return table.set_column(table.column_names.index("label"), "label", new)


def list_split(
    source: Path, root: Path, class_names: Sequence[str] | None, media: Media = VIDEOS
) -> Manifest:
    """List the videos of one split from folders or a text file; a manifest there is ignored.

    Args:
        source: a folder with one folder of videos per class, or a text file that
            `text_lists.read_list` reads. A folder of videos and a file of paths alone have no
            labels.
        root: folder that relative paths of a text file start from and that no path may leave.
        class_names: the known classes in the order of their ids. None: those found, sorted.
        media: the kind of file that folders are searched for.

    Returns:
        The videos. Those of a list that do not exist are left out, and their number is logged.

    Raises:
        DatasetError: the source is missing, empty or wrong; names the file and the row.
    """
    if source.is_dir():
        return _read_class_folders(source, class_names, media)
    if not source.exists():
        raise DatasetError(_describe_absent(source))
    if EITHER.has(source):
        what, noun = ("an image", "images") if PICTURES.has(source) else ("a video", "videos")
        raise DatasetError(
            f"{source}: {what}, not a list; name a list, or a folder with one folder of {noun} per "
            "class"
        )
    rows = read_list(source, root)
    rows_by_video(source, rows)  # see that none has two labels; a list may repeat a video
    manifest = locate(source, root, rows, find_by_path, class_names)
    if manifest.missing:
        missing = missing_videos("", source, root, manifest.missing)
        noun = kind_of(row.video for row in rows).noun
        message = describe_missing(source, missing, len(rows), [root], noun)
        if not len(manifest):
            raise DatasetError(f"{message}; is that their root?")
        log.warning(message)
    return manifest


def locate(
    source: Path,
    root: str | Path,
    rows: Sequence[Row],
    find: Find,
    class_names: Sequence[str] | None,
) -> Manifest:
    """The videos of the rows of an annotation file; rows without a file are in ``missing``.

    Args:
        source: the annotation file, for messages.
        root: folder that all paths lie below.
        rows: all rows of the file that count.
        find: finds their videos.
        class_names: the known classes in the order of their ids. None: those of the rows.

    Raises:
        DatasetError: a label is not one of the classes, or a video cannot be looked for.
    """
    labels, names = label_ids(source, rows, class_names)
    paths = find(source, rows)
    existing = [(path, label) for path, label in zip(paths, labels, strict=True) if path]
    missing = tuple(row for row, path in zip(rows, paths, strict=True) if not path)
    paths, labels = zip(*existing, strict=True) if existing else ((), ())
    manifest = make_manifest(paths, labels, names, os.path.abspath(root))
    return replace(manifest, missing=missing)


def split_folders(folder: Path) -> list[Path]:
    """The folders train, val, test and the like, in this order, if a folder holds splits.

    If it holds classes, which may have such a name, too, there are none.
    """
    folders = {name.lower(): folder / name for name in class_folders(folder)}
    training = [folders[name] for name in TRAINING_FOLDERS if name in folders]
    others = [folders[name] for name in OTHER_FOLDERS if name in folders]
    splits = training + others
    nothing_else = len(splits) == len(folders)
    is_nested = len(splits) == 1 and bool(class_folders(splits[0]))
    is_split = (training and others) or (nothing_else and (len(splits) > 1 or is_nested))
    return splits if is_split else []


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return tuple(entry.name for entry in entries(folder)[1])


def list_videos(
    sources: Sequence[str | Path],
    read_annotation: Callable[[Path], Manifest],
    media: Media = VIDEOS,
) -> Manifest:
    """Unlabelled videos, for prediction: files as given, and all videos below folders, sorted.

    A source may be a manifest file or a folder that holds one. If its videos are packed, it must be
    the only source.

    Args:
        sources: files and folders.
        read_annotation: reads a source that is a text file (LIST_SUFFIXES).
        media: the kind of file that folders are searched for.

    Raises:
        DatasetError: a path does not exist, or no video is found.
    """
    if not sources:
        raise DatasetError(f"no {media.noun} to predict; name files or folders")
    paths: list[str] = []
    holds_frames = False
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
        if not source.is_dir():
            paths.append(str(source))
            continue
        files = files_below(source)
        _report_skipped(source, _others(files, media))
        paths += filter(media.has, files)
        holds_frames |= media is VIDEOS and any(map(PICTURES.has, files))
    if not paths:
        hint = "; pictures are not read as the frames of a video here: encode them as a video file"
        raise DatasetError(
            f"{', '.join(map(str, sources))}: no {media.noun[:-1]} files found{hint * holds_frames}"
        )
    return make_manifest(paths)


def _others(files: Iterable[str], media: Media) -> list[str]:
    """The files that are not of a kind."""
    return [path for path in files if not media.has(path)]


def _report_skipped(folder: Path, skipped: Sequence[str], beside: Sequence[str] = ()) -> None:
    """Say in one line how many files below a folder are not used: of each suffix, name one.

    Args:
        folder: the folder.
        skipped: files of another kind.
        beside: files beside the folders of the classes.
    """
    if number := len(skipped) + len(beside):
        of_suffix = {os.path.splitext(path)[1].lower(): path for path in sorted(skipped)[::-1]}
        named = sorted(of_suffix.values())[:_NAMED]
        named += [f"{min(beside)} beside the folders of the classes"] if beside else []
        verb = "is" if number == 1 else "are"
        log.warning(f"{folder}: {counted(number, 'files')} {verb} skipped, such as {_list(named)}")


def _list(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _describe_absent(source: Path) -> str:
    """What is wrong with a split that is not there, and what to do."""
    source = Path(os.path.abspath(source))
    root, advice = source.parent, "set data.root and the split's name"
    if not root.exists():
        return f"{source}: there is no {root}; {advice}"
    text = f"{source}: no such folder or file; {advice}"
    if root.is_dir() and class_folders(root):
        text += f"; if {root} holds a folder for each class, datamodules.split_folder splits it"
    return text


def _read_class_folders(folder: Path, class_names: Sequence[str] | None, media: Media) -> Manifest:
    """Files of a folder with one folder per class; unlabelled if it holds none but such files."""
    folder = Path(os.path.abspath(folder))
    if odd := [n for n in class_names or () if n in ("", ".", "..") or "/" in n or "\0" in n]:
        raise DatasetError(f"{folder}: class {odd[0]!r} cannot be the name of a folder")
    folders = class_folders(folder)
    splits = [split.name for split in split_folders(folder)]
    if not set(splits) <= set(class_names or ()):
        raise DatasetError(
            f"{folder}: {', '.join(splits)} are splits, not classes; name one of these folders"
        )
    names = tuple(class_names) if class_names is not None else folders
    if unknown := [name for name in folders if name not in names]:
        raise DatasetError(
            f"{folder / unknown[0]}: not one of the {len(names)} known classes; "
            f"rename the folder, or extend data.class_names{did_you_mean(unknown[0], names)}"
        )
    direct = [entry.path for entry in entries(folder)[0]]
    if not folders and (flat := list(filter(media.has, direct))):
        _report_skipped(folder, _others(direct, media))
        return make_manifest(flat, root=str(folder))
    below = [(path, i) for i, name in enumerate(names) for path in files_below(folder / name)]
    videos = [(path, i) for path, i in below if media.has(path)]
    if not videos:
        beside = sum(map(media.has, direct))
        found = f"{counted(beside, media.noun)} directly in it, none in its folders"
        raise DatasetError(
            f"{folder}: {found if beside else f'no {media.noun}'}; expected one folder of "
            f"{media.noun} per class"
        )
    paths, labels = zip(*videos, strict=True)
    _report_skipped(folder, _others((path for path, _ in below), media), direct)
    return make_manifest(paths, labels, names, str(folder))
