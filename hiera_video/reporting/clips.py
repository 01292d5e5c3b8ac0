"""Wrongly classified videos and pictures, each as a small file inside the page."""

import heapq
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datamodules.errors import VideoDecodeError
from datamodules.suffixes import PICTURES
from datamodules.video.pictures import PictureFile
from datamodules.video.playback import Shown, VideoWriter, play
from hiera_video.metrics.results import Results
from hiera_video.reporting.data_uris import QUALITY, data_uri, encoded
from hiera_video.results.classification import by_video
from hiera_video.results.prediction_files import PredictionFile

SECONDS = 6  # from the start of a video
SIDE = 240  # pixels; the shorter side of a clip is not longer
RATE = 15  # frames per second, about, at most
LEAST_GAP = Fraction(9, 10) / RATE  # seconds between frames; times in files are rounded
CRF = 28
BUDGET = 16 * 2**20  # characters of all clips of a page together


class Mistake(NamedTuple):
    """A video that was classified wrongly.

    Attributes:
        path: of the video, as the test named it.
        label: its class.
        predicted: the class that was predicted from all views.
        probability: of the predicted class, in [0, 1].
        label_probability: of its own class, in [0, 1].
    """

    path: str
    label: str
    predicted: str
    probability: float
    label_probability: float


class Clip(NamedTuple):
    """A mistake, and its video.

    Attributes:
        mistake: what went wrong.
        uri: the start of the video, or the picture, as a ``data:`` URI; None if it cannot be shown.
        problem: why it cannot be shown; empty if it can.
    """

    mistake: Mistake
    uri: str | None
    problem: str

    @property
    def is_picture(self) -> bool:
        """Whether `uri` is a picture, not a video."""
        return is_picture_uri(self.uri or "")


def worst_mistakes(file: PredictionFile, results: Results, count: int) -> list[Mistake]:
    """The wrongly classified videos whose predicted class is the most probable.

    Videos that could not be decoded or have no label are not among them.

    Args:
        file: the predictions of a test.
        results: of the same test, from `evaluate_file`.
        count: how many, at most.
    """
    outcomes = results.outcomes
    wrong = (outcomes.position[:, -1] > 0) & (outcomes.predicted >= 0)
    row_of = {int(outcomes.video_id[row]): row for row in wrong.nonzero()[0].tolist()}
    mistakes = (
        _mistake(results, row_of[video_id], probabilities.mean(0))
        for video_id, _, probabilities in by_video(file)
        if video_id in row_of
    )
    return heapq.nlargest(count, mistakes, key=lambda mistake: mistake.probability)


def _mistake(results: Results, row: int, probabilities: np.ndarray) -> Mistake:
    label, predicted = int(results.outcomes.label[row]), int(results.outcomes.predicted[row])
    return Mistake(
        results.paths[row],
        results.class_names[label],
        results.class_names[predicted],
        float(probabilities[predicted]),
        float(probabilities[label]),
    )


def playable(
    mistakes: Iterable[Mistake], folders: Sequence[Path], budget: int = BUDGET
) -> Iterator[Clip]:
    """Write the start of each video as a small file; those over the budget are left out.

    Args:
        mistakes: whose videos are shown.
        folders: in which a relative path may start, tried in this order.
        budget: characters of all URIs together.
    """
    for mistake in mistakes:
        found = existing(mistake.path, folders)
        if found is None:
            yield Clip(mistake, None, "The file is no longer there.")
            continue
        try:
            uri = small_uri(found)
        except (VideoDecodeError, OSError):
            yield Clip(mistake, None, "The file cannot be read.")
            continue
        if len(uri) > budget:
            yield Clip(mistake, None, "Left out, so that the page does not get too large.")
            continue
        budget -= len(uri)
        yield Clip(mistake, uri, "")


def existing(path: str, folders: Sequence[Path]) -> Path | None:
    """The file in the first of the folders that has it; None: in none. A path may be absolute."""
    return next((folder / path for folder in folders if (folder / path).is_file()), None)


def small_uri(file: Path) -> str:
    """A video or a picture, made small, as a ``data:`` URI.

    Raises:
        VideoDecodeError: the file is damaged.
    """
    if not PICTURES.has(file):
        return data_uri("video/mp4", small_clip(file))
    with PictureFile(file) as opened:
        (pixels,) = opened.frames_at([0], min(SIDE, opened.width, opened.height))
    return data_uri("image/jpeg", encoded(Image.fromarray(pixels), "JPEG", quality=QUALITY))


def is_picture_uri(uri: str) -> bool:
    """Whether what `small_uri` returned is a picture."""
    return uri.startswith("data:image/")


def small_clip(video: Path) -> bytes:
    """The first seconds of a video as an H.264 file (mp4) that every browser plays.

    It has at most 6 seconds, about 15 frames per second and 240 pixels along its shorter side.

    Raises:
        VideoDecodeError: the video is damaged within these seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "clip.mp4")
        with VideoWriter(file, Fraction(RATE), CRF) as writer, closing(play(str(video))) as frames:
            for shown in _thinned(frames):
                writer.write(shown._replace(picture=_small(shown.picture)))
        return file.read_bytes()


def _thinned(frames: Iterable[Shown]) -> Iterator[Shown]:
    """Drop frames that come sooner than the rate allows; a kept one stays until the next."""
    held: Shown | None = None
    for shown in frames:
        if shown.start >= SECONDS:
            break
        if held is None:
            held = shown
        elif shown.start - held.start >= LEAST_GAP:
            yield held._replace(end=shown.start)
            held = shown
        else:
            held = held._replace(end=shown.end)
    if held is not None:
        yield held._replace(end=min(held.end, Fraction(SECONDS)))


def _small(picture: np.ndarray) -> np.ndarray:
    """uint8 ``(height, width, 3)``, shrunk if its shorter side is too long."""
    height, width = picture.shape[:2]
    scale = SIDE / min(height, width)
    if scale >= 1:
        return picture
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
