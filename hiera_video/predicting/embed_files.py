"""Features of many videos or pictures into a folder: in several processes, and resumable.

Each video is a file of its own as soon as it is done, as are some pictures together, so a run that
is killed goes on where it was. The rows of a table come in the order of the videos, and are the
same bit for bit, whatever the number of processes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from datamodules.arguments import check_positive
from datamodules.errors import UnreadableVideo, VideoDecodeError
from datamodules.files import locked_folder, write_json
from datamodules.loading.bad_videos import BadVideos, read_bad_videos
from datamodules.loading.file_workers import Lost, work
from datamodules.loading.outage import check_files
from datamodules.manifests.manifest import Manifest
from datamodules.suffixes import PICTURES, kind_of
from datamodules.video.container import Source
from datamodules.wording import counted
from hiera_video.errors import EmbeddingError, UsageError
from hiera_video.predicting.embed_worker import EmbedGroup, Group, Video, grouped
from hiera_video.predicting.embedding import EmbeddingOptions
from hiera_video.predicting.instances import InstancePredictor
from hiera_video.predicting.load import load
from hiera_video.results.embedding_files import DTYPES, TABLE, join_table

FORMATS = ("parquet", "npz")
RECORD = "embeddings.json"  # what was asked for
SCRATCH = ".embed.unfinished"
BAD = "bad_videos.csv"


class Embedded(NamedTuple):
    """What is in the folder in the end.

    Attributes:
        target: the table, or the folder of the ``.npz`` files.
        done: number of videos with features.
        bad: number of videos that could not be read.
    """

    target: Path
    done: int
    bad: int


def embed_files(
    run: str | Path,
    videos: Manifest,
    out: Path,
    options: EmbeddingOptions = EmbeddingOptions(),  # noqa: B008 -- it cannot be changed
    *,
    format: str = "parquet",
    dtype: str = "float32",
    processes: int | None = None,
    device: str | None = None,
    patience: float = 300.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embedded:
    """Write features of videos or pictures; the same call again continues an interrupted one.

    ``out`` gets ``embeddings.json`` with what was asked for, and either ``embeddings.parquet`` (a
    row for each vector: ``path``, ``start``, ``end``, ``vector``) or a ``NAME.npz`` for each video
    (see `write_npz`), named by its path below the folder that all videos share. Videos that cannot
    be read are left out, logged, and listed in ``bad_videos.csv``; the next call tries them again,
    unless the table is there. There is none while the storage does not give a video that was there
    when this was called.

    Processes are started anew: a script that calls this needs ``if __name__ == "__main__":``.

    Args:
        run: what `load` takes.
        videos: or pictures; paths that occur several times count once.
        out: the folder, created if it does not exist.
        options: which features.
        format: a name in FORMATS.
        dtype: of the features, ``float32`` or ``float16``.
        processes: number of processes, each with a model; None: one a GPU, one without GPUs.
        device: of all processes; None: the GPUs in turn if there are any.
        patience: seconds for loading the model and for eight clips, after which a process is taken
            to hang; the video is then a bad one.
        progress: called with the videos done and in total.

    Raises:
        CheckpointError: the model cannot be read.
        EmbeddingError: the folder holds other features, two videos would share a file, features
            are not finite or too large for float16.
        UsageError: the options contradict each other or the model, or are unknown; or none of the
            videos can be read (exit code 1).
        StorageFailure: videos cannot be read now; all others are done.
        DatasetError: another run writes to ``out``.
    """
    gpus = torch.cuda.device_count()
    devices = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    processes = gpus or 1 if processes is None else processes
    sources = {videos.path(i): videos.source(i) for i in range(len(videos))}
    model = load(run, "cpu")
    if isinstance(model, InstancePredictor):
        raise UsageError(f"{run}: a model of objects has no vector of the whole picture")
    still = next(filter(PICTURES.has, sources), None) if options.stride is not None else None
    if still:
        raise UsageError(f"{still}: a picture has one vector; leave out the stride")
    try:
        for name, names in ((format, FORMATS), (dtype, DTYPES), (device or "cpu", devices)):
            if name not in names:
                raise ValueError(f"expected {' or '.join(names)}, not {name!r}")
        check_positive(processes=processes, patience=patience)
        model.encoder.check(options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    record = _record(run, model.model, [*sources], options, format, dtype)
    if out.exists() and not out.is_dir():
        raise EmbeddingError(f"{out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    with locked_folder(out / SCRATCH) as scratch:
        names = _npz_names([*sources]) if format == "npz" else map("{:08d}.part".format, count())
        folder = out if format == "npz" else scratch
        files = [
            Video(path, source, folder / name)
            for (path, source), name in zip(sources.items(), names, strict=False)
        ]
        groups = list(grouped(files, share_parts=format == "parquet"))
        targets = [file.target for file in files] + [g.part for g in groups if g.part is not None]
        _begin(out / RECORD, record, [out / TABLE, *targets])
        if format == "npz" or not (out / TABLE).exists():
            function = EmbedGroup(str(run), options, format, dtype, device, processes, scratch)
            missing = {path for path, source in sources.items() if _is_missing(source)}
            failed = _work(function, groups, out / BAD, processes, patience, progress)
            check_files([e for e in failed if not (e.is_missing and e.path in missing)], len(files))
            _finish(groups, out, scratch, record)
        shutil.rmtree(scratch)
    bad = len(read_bad_videos(out / BAD))
    return Embedded(out / TABLE if format == "parquet" else out, len(files) - bad, bad)


def _record(
    run: str | Path,
    model: nn.Module,
    paths: Sequence[str],
    options: EmbeddingOptions,
    format: str,
    dtype: str,
) -> dict[str, Any]:
    """All that decides what is written, as plain values of JSON."""
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    record = {
        "model": str(run),
        "weights": weights.hexdigest(),
        "videos": len(paths),
        "list": hashlib.sha256("\0".join(paths).encode()).hexdigest(),
        "format": format,
        "dtype": dtype,
        **options._asdict(),
    }
    return json.loads(json.dumps(record))


def _begin(file: Path, record: dict[str, Any], targets: Iterable[Path]) -> None:
    """Write down what is asked for, or see that it is what was asked for before."""
    if not file.exists():
        if foreign := [target for target in targets if target.exists()]:
            raise EmbeddingError(f"{foreign[0]} exists already; name another folder")
        write_json(file, record)
        return
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
        differing = [key for key in record if key != "model" and record[key] != earlier[key]]
    except (ValueError, KeyError, TypeError):
        raise EmbeddingError(f"{file}: not what `embed` writes; name another folder") from None
    if differing:
        key = differing[0]
        other = {"weights": "other weights", "list": "other videos"}
        what = other.get(key, f"{key}={earlier[key]}, not {record[key]}")
        raise EmbeddingError(
            f"{file.parent} holds the features of another request ({what}); delete it or name "
            "another folder"
        )


def _npz_names(paths: Sequence[str]) -> Iterable[str]:
    """Paths of the files below ``out``, like those of the videos below the folder they share."""
    full = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in full])
    path_of: dict[str, str] = {}
    for path in full:
        name = os.path.splitext(os.path.relpath(path, root))[0] + ".npz"
        other = path_of.setdefault(name, path)
        if other != path:
            raise EmbeddingError(f"{other} and {path} would both be {name}; embed them apart")
    return path_of


def _work(
    function: EmbedGroup,
    groups: Sequence[Group],
    bad_file: Path,
    processes: int,
    patience: float,
    progress: Callable[[int, int], None],
) -> list[UnreadableVideo]:
    """Embed the files that have no features yet, and list those that cannot be read.

    Returns:
        The errors of those that the storage does not give.
    """
    todo = [group for group in groups if group.missing()]
    total = sum(len(group.files) for group in groups)
    done = total - sum(len(group.files) for group in todo)
    bad_file.unlink(missing_ok=True)
    bad, unreadable = BadVideos(bad_file), []
    for group, failures in _results(function, todo, processes, patience):
        for file in group.files:
            if error := failures.get(file.path):
                bad.note(file.path, error.reason)
                unreadable += [error] if isinstance(error, UnreadableVideo) else []
            done += 1
            progress(done, total)
    return unreadable


def _is_missing(source: str | Source) -> bool:
    return isinstance(source, str) and not os.path.exists(source)


def _results(
    function: EmbedGroup, todo: Sequence[Group], processes: int, patience: float
) -> Iterator[tuple[Group, dict[str, VideoDecodeError]]]:
    """Each group, when it is written, with the errors of files that cannot be read."""
    lost: list[Group] = []  # with one that hung or ended its process: which of them is found out
    for group, result in work(function, todo, processes=processes, patience=patience):
        if not isinstance(result, Lost):
            yield group, result
        elif len(group.files) > 1:
            if group.part is not None:
                group.part.unlink(missing_ok=True)  # an earlier call's, and not of all files
            lost += group.one_by_one()
        else:
            yield group, {f.path: VideoDecodeError(f.path, result.reason) for f in group.files}
    if lost:
        yield from _results(function, lost, processes, patience)


def _finish(groups: Sequence[Group], out: Path, scratch: Path, record: dict[str, Any]) -> None:
    """See that there is something, and join the parts of a table."""
    written = [path for group in groups for path in group.written()]
    if not written:
        (out / RECORD).unlink()  # the folder is free for another try
        paths = [file.path for group in groups for file in group.files]
        counts = counted(len(paths), kind_of(paths).noun)
        raise UsageError(f"0 of {counts} can be read: {out / BAD}", 1)
    if record["format"] == "parquet":
        join_table(written, out / TABLE, scratch, record)
