"""What each process of ``embed`` does: features of one video after another."""

import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

from datamodules.errors import VideoDecodeError
from datamodules.video.container import Source
from datamodules.video.decoding import VideoFile
from datamodules.video.opening import open_media
from datamodules.video.pictures import PictureFile
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.predicting.load import load
from hiera_video.results.embedding_files import Embedding, write_npz, write_table_part


class Video(NamedTuple):
    """A video to embed.

    Attributes:
        path: its name in results and messages.
        source: what `VideoFile` opens.
        target: the file to write.
    """

    path: str
    source: str | Source
    target: Path


@dataclass(frozen=True)
class EmbedVideo:
    """Writes the features of a video; a function for `file_workers.work`.

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

    def __call__(self, video: Video, alive: Callable[[], None]) -> str | None:
        """Write one video; returns why it cannot be read, None if it can.

        Args:
            video: the video.
            alive: is called after every few clips.

        Raises:
            EmbeddingError: a feature is not finite, or too large for the type.
        """
        try:
            with open_media(video.source) as file:
                self._write(video, file, alive)
        except VideoDecodeError as error:
            return error.reason
        return None

    def _write(
        self, video: Video, file: VideoFile | PictureFile, alive: Callable[[], None]
    ) -> None:
        encoder = _encoder(self.run, self.device, self.processes, self.scratch)

        def pieces() -> Iterator[Embedding]:
            for piece in encoder.pieces(file, self.options):
                alive()
                yield piece

        path, target = video.path, video.target
        if self.format == "parquet":
            write_table_part(target, self.scratch, path, pieces(), self.dtype)
            return
        seconds = {"stride": self.options.stride, "window": self.options.window}
        facts = {name: value for name, value in seconds.items() if value is not None}
        if isinstance(file, VideoFile):  # a picture has no time
            facts |= {"fps": float(file.rate), "duration": file.duration}
        target.parent.mkdir(parents=True, exist_ok=True)
        write_npz(target, self.scratch, path, pieces(), self.dtype, facts)


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
