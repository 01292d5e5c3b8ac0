"""The classes along videos as files: scores, segments, a timeline, and the video with a caption."""

import csv
import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.clips.windows import window_step
from datamodules.errors import DatasetError
from datamodules.files import atomic_file, write_json
from datamodules.video.decoding import VideoFile
from hiera_video.predicting.along import (
    ScoredWindow,
    Segment,
    SegmentFinder,
    half_width,
    smoothed,
    top_of,
)
from hiera_video.predicting.classifier import Predictor
from hiera_video.predicting.film import Film
from hiera_video.predicting.result_files import check_folder, write_each
from hiera_video.terminal import progress_line
from hiera_video.visualize.caption import caption_overlay
from hiera_video.visualize.timeline import TimelineRow, write_timeline

ACTIVITYNET = "activitynet.json"  # segments of all videos
# Of the files that are written for each video.
SUFFIXES = (".csv", ".jsonl", ".segments.json", ".png", ".mp4")
MOST_PARTS = 1024  # of a timeline's width; windows of a long video share them
DRAWN_CLASSES = 8  # in a timeline


class AlongOptions(NamedTuple):
    """How videos are cut into windows, and what is made of the scores.

    Attributes:
        stride: seconds from window to window.
        window: seconds of a clip; None: as in training.
        spatial: crops of each clip.
        smoothing: seconds over which probabilities are averaged; 0: not at all.
        top: classes in a line of the JSON file, and in a caption.
        threshold: least probability within a segment, in [0, 1].
        min_length: shorter segments are left out, seconds.
    """

    stride: float = 1.0
    window: float | None = None
    spatial: int = 1
    smoothing: float = 0.0
    top: int = 5
    threshold: float = 0.5
    min_length: float = 0.0


def predict_along(
    predictor: Predictor, videos: Sequence[str], out: Path, options: AlongOptions
) -> list[str]:
    """Write the results along videos into a folder; a video that fails is reported and left out.

    A video ``NAME.mp4`` gives five files, which appear when they are complete:

    - ``NAME.csv``, a row for each window: ``start,end``, and the probabilities of all classes;
    - ``NAME.jsonl``, a line for each window: ``{"video", "start", "end", "predictions": [{"label",
      "probability"}, ...]}`` with the most probable classes;
    - ``NAME.segments.json``, a list of ``{"start", "end", "label", "score"}``;
    - ``NAME.png``, the classes with the greatest probabilities over time;
    - ``NAME.mp4``, the video with a caption of the most probable classes, and its sound.

    ``activitynet.json`` has the segments of all of these videos in ActivityNet's form.

    Args:
        predictor: scores classes.
        videos: the video files.
        out: the folder, created if it does not exist.
        options: see `AlongOptions`.

    Returns:
        The videos that did not fail.

    Raises:
        ValueError: as `check_along`; nothing is written.
    """
    check_along(predictor, videos, out, options)
    segments: dict[str, list[Segment]] = {}

    def write(video: str) -> None:
        segments[Path(video).stem] = _predict_file(predictor, video, out, options)

    done = write_each(videos, out, write)
    if done:
        write_json(out / ACTIVITYNET, activitynet(segments), indent=None)
    return done


def check_along(
    predictor: Predictor, videos: Sequence[str], out: Path, options: AlongOptions
) -> None:
    """Check that `predict_along` can begin.

    Args:
        predictor: as in `predict_along`.
        videos: as in `predict_along`.
        out: as in `predict_along`.
        options: as in `predict_along`.

    Raises:
        ValueError: an option is out of its range.
        DatasetError: two videos have the same name, or one would be overwritten.
    """
    window_step(predictor.clip, options.stride, options.window)
    half_width(options.smoothing, options.stride)
    for name in ("spatial", "top"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(options, name)}")
    if not 0 <= options.threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], not {options.threshold}")
    if not options.min_length >= 0:
        raise ValueError(f"min_length must be a number of seconds, not {options.min_length}")
    check_folder(videos, out)
    if (out / ACTIVITYNET).is_dir():
        raise DatasetError(f"{out / ACTIVITYNET} is a folder; name another out=")


def activitynet(segments: dict[str, list[Segment]]) -> dict[str, Any]:
    """Segments in the form that ActivityNet's evaluation of detections reads.

    Args:
        segments: of each video, by its name.
    """
    results = {
        name: [
            {
                "label": s.label,
                "score": round(s.score, 6),
                "segment": [round(s.start, 3), round(s.end, 3)],
            }
            for s in found
        ]
        for name, found in segments.items()
    }
    return {"version": "VERSION 1.3", "results": results, "external_data": {}}


def _predict_file(
    predictor: Predictor, video: str, out: Path, options: AlongOptions
) -> list[Segment]:
    name, names = Path(video).stem, predictor.class_names
    finder, timeline = SegmentFinder(names, options.threshold, options.min_length), Timeline()
    with ExitStack() as stack:
        file = stack.enter_context(VideoFile(video))
        table, lines, parts, picture, film_path = (
            stack.enter_context(atomic_file(out / f"{name}{suffix}")) for suffix in SUFFIXES
        )
        # A name that is not UTF-8 is escaped, as JSON has it.
        text: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}
        rows = csv.writer(stack.enter_context(open(table, "w", newline="", **text)))
        json_lines = stack.enter_context(open(lines, "w", **text))
        film = stack.enter_context(Film(file, film_path))
        show = stack.enter_context(progress_line(name, "windows"))
        total = math.ceil(file.duration / options.stride)
        rows.writerow(["start", "end", *names])
        windows = predictor.along(file, options.stride, options.window, options.spatial)
        for done, (start, end, scores) in enumerate(
            smoothed(windows, half_width(options.smoothing, options.stride)), 1
        ):
            window = ScoredWindow(start, end, scores)
            rows.writerow([f"{start:.3f}", f"{end:.3f}", *(f"{p:.6f}" for p in scores)])
            best = top_of(scores, names, options.top)
            json_lines.write(json.dumps(_record(name, window, best), ensure_ascii=False) + "\n")
            finder.add(window)
            timeline.add(window)
            until = math.inf if end >= file.duration else end
            film.draw(until, lambda width, height, b=best: caption_overlay(width, height, b))
            show(done, max(done, total))
        segments = finder.finish()
        _draw(picture, Path(video).name, timeline, segments, options, names)
        parts.write_text(
            json.dumps([_described(s) for s in segments], indent=1, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )
    return segments


def _record(name: str, window: ScoredWindow, best: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """A line of ``NAME.jsonl``; see `predict_along`."""
    predictions = [{"label": label, "probability": round(p, 6)} for label, p in best]
    times = {"start": round(window.start, 3), "end": round(window.end, 3)}
    return {"video": name, **times, "predictions": predictions}


def _described(segment: Segment) -> dict[str, Any]:
    """An entry of ``NAME.segments.json``; see `predict_along`."""
    start, end, label, score = segment
    times = {"start": round(start, 3), "end": round(end, 3)}
    return {**times, "label": label, "score": round(score, 6)}


class Timeline:
    """The scores of a video in at most `MOST_PARTS` parts, each the greatest of its windows.

    So its size depends on the number of classes only. A peak of a single window stays visible.
    """

    def __init__(self) -> None:
        self._each = 1  # windows that share a part
        self._in_last = 0  # windows in the last part so far
        self._starts: list[float] = []
        self._scores: list[np.ndarray] = []
        self._end = 0.0

    def add(self, window: ScoredWindow) -> None:
        """Take the window that follows."""
        if self._scores and self._in_last < self._each:
            np.maximum(self._scores[-1], window.probabilities, out=self._scores[-1])
        else:
            self._in_last = 0
            self._starts.append(window.start)
            self._scores.append(window.probabilities.astype(np.float32))
        self._in_last, self._end = self._in_last + 1, window.end
        if len(self._scores) == MOST_PARTS and self._in_last == self._each:
            pairs = zip(self._scores[::2], self._scores[1::2], strict=True)
            self._scores = [np.maximum(*pair) for pair in pairs]
            self._starts, self._each = self._starts[::2], 2 * self._each
            self._in_last = self._each

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The parts so far; there is at least one.

        Returns:
            Their starts and the end of the last one, float64 ``(parts + 1,)``, seconds; the scores,
            float32 ``(parts, classes)``.
        """
        return np.array([*self._starts, self._end]), np.stack(self._scores)


def _draw(
    path: Path,
    video: str,
    timeline: Timeline,
    segments: Sequence[Segment],
    options: AlongOptions,
    names: Sequence[str],
) -> None:
    """Draw the classes that reach the greatest scores, the greatest first."""
    edges, scores = timeline.parts()
    rows = []
    order: list[int] = np.argsort(-scores.max(0), kind="stable").tolist()
    for i in order[:DRAWN_CLASSES]:
        spans = [(s.start, s.end) for s in segments if s.label == names[i]]
        rows.append(TimelineRow(names[i], scores[:, i], spans))
    write_timeline(path, video, edges, rows, options.threshold)
