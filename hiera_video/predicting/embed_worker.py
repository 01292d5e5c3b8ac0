"""What each process of ``embed`` does: features of one video, or some pictures, after another."""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, count, groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from datamodules.errors import VideoDecodeError
from datamodules.suffixes import PICTURES
from datamodules.video.container import Source
from datamodules.video.decoding import VideoFile
from datamodules.video.opening import open_media
from datamodules.video.pictures import PictureFile
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.predicting.load import load
from hiera_video.results.embedding_files import (
    Embedding,
    paths_in,
    write_npz,
    write_table_part,
    write_table_rows,
)

PICTURES_TOGETHER = 32  # in a file of the scratch folder, which is written to disk with a wait


class Video(NamedTuple):
    """A video or picture to embed.

    Attributes:
        path: its name in results and messages.
        source: what `VideoFile` opens.
        target: the file to write.
    """

    path: str
    source: str | Source
    target: Path


class Group(NamedTuple):
    """What a process works on before it asks for more: a video, or pictures that share passes.

    Attributes:
        files: the video, or the pictures.
        part: a file for the rows of all pictures; None: each has its target.
    """

    files: tuple[Video, ...]
    part: Path | None = None

    def missing(self) -> list[Video]:
        """The files that have no features yet, or could not be read before."""
        if self.part is None:
            return [file for file in self.files if not file.target.exists()]
        done = paths_in(self.part) if self.part.exists() else ()
        return [file for file in self.files if file.path not in done]

    def written(self) -> list[Path]:
        """The files with features, in order."""
        if self.part is not None and self.part.exists():
            return [self.part]
        return [file.target for file in self.files if file.target.exists()]

    def one_by_one(self) -> list["Group"]:
        """Each file as a group of its own."""
        return [Group((file,)) for file in self.files]


def grouped(files: Iterable[Video], share_parts: bool) -> Iterator[Group]:
    """Put neighbouring pictures together, in a way that depends on the list alone.

    So does every bit of the features, as those of a pass depend on its size.

    Args:
        files: videos and pictures.
        share_parts: the pictures of a group have one file, beside the target of the first.
    """
    for pictures, run in groupby(files, lambda file: PICTURES.has(file.path)):
        while some := tuple(islice(run, PICTURES_TOGETHER if pictures else 1)):
            first = some[0].target
            part = first.with_stem(f"{first.stem}-{len(some)}") if share_parts else None
            yield Group(some, part if len(some) > 1 else None)


@dataclass(frozen=True)
class EmbedGroup:
    """Writes the features of a group; a function for `file_workers.work`.

    Attributes:
        run: what `load` takes; it is loaded once a process.
        options: which features.
        format: ``parquet`` or ``npz``.
        dtype: of the features.
        device: as in `embed_files`.
        processes: number of processes that share the CPU's cores or the GPUs.
        scratch: folder for unfinished files, the same for all processes.
    """

    run: str
    options: EmbeddingOptions
    format: str
    dtype: str
    device: str | None
    processes: int
    scratch: Path

    def __call__(self, group: Group, alive: Callable[[], None]) -> dict[str, VideoDecodeError]:
        """Write one group; returns the errors of files that cannot be read, by path.

        Args:
            group: the files.
            alive: is called after every few clips.

        Raises:
            EmbeddingError: a feature is not finite, or too large for the type.
        """
        video, *others = group.files
        if others:
            return self._write_pictures(group, alive)
        try:
            with open_media(video.source) as file:
                self._write(video, file, alive)
        except VideoDecodeError as error:
            return {video.path: error}
        return {}

    def _encoder(self) -> VideoEncoder:
        return _encoder(self.run, self.device, self.processes, self.scratch)

    def _write(
        self, video: Video, file: VideoFile | PictureFile, alive: Callable[[], None]
    ) -> None:
        encoder = self._encoder()

        def pieces() -> Iterator[Embedding]:
            for piece in encoder.pieces(file, self.options):
                alive()
                yield piece

        if self.format == "parquet":
            write_table_part(video.target, self.scratch, video.path, pieces(), self.dtype)
            return
        seconds = {"stride": self.options.stride, "window": self.options.window}
        facts = {name: value for name, value in seconds.items() if value is not None}
        if isinstance(file, VideoFile):  # a picture has no time
            facts |= {"fps": float(file.rate), "duration": file.duration}
        self._write_npz(video, pieces(), facts)

    def _write_npz(
        self, video: Video, pieces: Iterable[Embedding], facts: dict[str, float]
    ) -> None:
        video.target.parent.mkdir(parents=True, exist_ok=True)
        write_npz(video.target, self.scratch, video.path, pieces, self.dtype, facts)

    def _write_pictures(
        self, group: Group, alive: Callable[[], None]
    ) -> dict[str, VideoDecodeError]:
        encoder = self._encoder()
        good: list[Video] = []
        bad: dict[str, VideoDecodeError] = {}

        def clips(pictures: Iterable[Video]) -> Iterator[np.ndarray]:
            for picture in pictures:
                alive()
                try:
                    with open_media(picture.source) as file:
                        views = encoder.clips_of(file, self.options)
                except VideoDecodeError as error:
                    bad[picture.path] = error
                    continue
                good.append(picture)
                yield views

        missing = group.missing()
        if len(missing) < len(group.files) and not any(True for _ in clips(missing)):
            return bad  # as before: nothing new to compute
        good.clear()
        bad.clear()

        def rows() -> Iterator[tuple[list[Video], Embedding]]:
            done = 0
            for features in encoder.together(clips(group.files), self.options):
                alive()
                start, done, zeros = done, done + len(features), np.zeros(len(features))
                yield good[start:done], Embedding(zeros, zeros, features)

        if group.part is None:
            for pictures, piece in rows():
                for i, picture in enumerate(pictures):
                    if picture in missing:
                        one = Embedding(*(values[i : i + 1] for values in piece))
                        self._write_npz(picture, [one], {})
            return bad
        pieces = (([picture.path for picture in some], piece) for some, piece in rows())
        if first := next(pieces, None):
            write_table_rows(group.part, self.scratch, chain([first], pieces), self.dtype)
        return bad


@cache
def _encoder(run: str, device: str | None, processes: int, scratch: Path) -> VideoEncoder:
    """The model of this process, on a device that the others leave to it."""
    gpus = torch.cuda.device_count()
    if device is None and gpus:
        device = f"cuda:{_free_place(scratch) % gpus}"
    if not gpus or device == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    return load(run, device).encoder


def _free_place(scratch: Path) -> int:
    """The first number from 0 that no other process has; it is free again when this one ends."""
    for place in count():
        lock = os.open(scratch / f"process-{place}", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return place
    raise AssertionError  # the numbers do not end
