"""The classes along a video of any length: scores window by window, smoothed, and as segments."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from datamodules.clips.format import ClipFormat
from datamodules.clips.windows import sliding_windows
from datamodules.video.decoding import VideoFile
from hiera_video.metrics.top_classes import Prediction
from hiera_video.predicting.batches import CLIPS_AT_ONCE, ClipNetwork, batches


class ScoredWindow(NamedTuple):
    """What is predicted for a part of a video.

    Attributes:
        start: seconds from the start of the video.
        end: the same; the start of the next part, or the end of the video.
        probabilities: of all classes, float64 ``(classes,)``; the sum is 1.
    """

    start: float
    end: float
    probabilities: np.ndarray


def top_of(probabilities: np.ndarray, class_names: Sequence[str], top: int) -> list[Prediction]:
    """The most probable classes, in falling order.

    Args:
        probabilities: of all classes, float ``(classes,)``.
        class_names: in the same order.
        top: greatest number of classes to return.
    """
    order: list[int] = np.argsort(-probabilities, kind="stable")[:top].tolist()
    return [Prediction(class_names[i], float(probabilities[i])) for i in order]


class Segment(NamedTuple):
    """A time for which a class stays at or above a threshold.

    Attributes:
        start: seconds from the start of the video.
        end: the same.
        label: name of the class.
        score: mean of its probabilities over the windows, in [0, 1].
    """

    start: float
    end: float
    label: str
    score: float


def scored_windows(
    network: ClipNetwork,
    file: VideoFile,
    clip: ClipFormat,
    stride: float,
    length: float | None,
    spatial: int,
) -> Iterator[ScoredWindow]:
    """Score the `sliding_windows` of a video; few of them are in memory at a time.

    Args:
        network: a classifier.
        file: the video.
        clip: what the network sees of a video.
        stride: as in `sliding_windows`.
        length: as in `sliding_windows`.
        spatial: crops of each window, whose probabilities are averaged.

    Raises:
        VideoDecodeError, ValueError: as `sliding_windows`.
    """
    windows = sliding_windows(file, clip, stride, length, spatial)
    while group := list(islice(windows, max(1, CLIPS_AT_ONCE // spatial))):
        clips = np.concatenate([w.clips for w in group])  # (windows * spatial, T, H, W, 3)
        logits = torch.cat([network.logits(batch) for _, batch in batches(clips)])
        crops = (
            logits.softmax(1).double().unflatten(0, (-1, spatial))
        )  # (windows, spatial, classes)
        for window, probabilities in zip(group, crops.mean(1).numpy(), strict=True):
            yield ScoredWindow(window.start, window.end, probabilities)


def half_width(smoothing: float, stride: float) -> int:
    """Windows on each side that `smoothed` averages: those up to half of ``smoothing`` away.

    Args:
        smoothing: seconds; 0: no smoothing.
        stride: seconds from window to window.

    Raises:
        ValueError: ``smoothing`` is negative or not finite.
    """
    if not (smoothing >= 0 and math.isfinite(smoothing)):
        raise ValueError(f"smoothing must be a number of seconds from 0 on, not {smoothing}")
    return int(smoothing / (2 * stride) + 1e-6)


def smoothed(windows: Iterable[ScoredWindow], half: int) -> Iterator[ScoredWindow]:
    """Average the probabilities of each window with those of its neighbours.

    Args:
        windows: in the order of time.
        half: number of neighbours on each side; at both ends of the video there are fewer.

    Yields:
        The same windows with the averages; ``2 * half + 1`` of them are in memory.
    """
    recent: deque[ScoredWindow] = deque(maxlen=2 * half + 1)
    number = 0  # of windows so far
    for number, window in enumerate(windows, 1):
        recent.append(window)
        if number > half:
            yield _averaged(recent, len(recent) - 1 - half)
    # The last ones have no more neighbours to wait for.
    for left in range(min(half, number), 0, -1):
        first = max(0, len(recent) - left - half)
        yield _averaged(list(recent)[first:], len(recent) - left - first)


def _averaged(windows: Sequence[ScoredWindow], index: int) -> ScoredWindow:
    mean = np.mean([window.probabilities for window in windows], axis=0)
    return windows[index]._replace(probabilities=mean)


class SegmentFinder:
    """Collects segments, window by window.

    Args:
        class_names: in the order of the probabilities.
        threshold: least probability within a segment, in [0, 1].
        min_length: shorter segments are left out, seconds.
    """

    def __init__(
        self, class_names: Sequence[str], threshold: float, min_length: float = 0.0
    ) -> None:
        self._names, self._threshold, self._min_length = class_names, threshold, min_length
        self._open: dict[int, _Span] = {}  # by class
        self._closed: list[Segment] = []

    def add(self, window: ScoredWindow) -> None:
        """Take the window that follows."""
        above = set(np.flatnonzero(window.probabilities >= self._threshold).tolist())
        for index in [index for index in self._open if index not in above]:
            self._close(index)
        for index in above:
            span = self._open.setdefault(index, _Span(window.start))
            span.end, span.windows = window.end, span.windows + 1
            span.total += float(window.probabilities[index])

    def finish(self) -> list[Segment]:
        """End the segments that are open; returns all, by start, then by falling score."""
        for index in list(self._open):
            self._close(index)
        return sorted(self._closed, key=lambda s: (s.start, -s.score))

    def _close(self, index: int) -> None:
        span = self._open.pop(index)
        if span.end - span.start >= self._min_length - 1e-6:
            score = span.total / span.windows
            self._closed.append(Segment(span.start, span.end, self._names[index], score))


@dataclass
class _Span:
    """A segment that may go on; ``total`` is the sum of the class's probabilities."""

    start: float
    end: float = 0.0
    total: float = 0.0
    windows: int = 0
