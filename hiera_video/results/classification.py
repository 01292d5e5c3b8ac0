"""Accuracy from files of predictions: of one test, of an ensemble, of two runs compared."""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import torch

from datamodules.suffixes import EITHER
from hiera_video.errors import PredictionFileError
from hiera_video.metrics.outcomes import Outcomes
from hiera_video.metrics.results import Results
from hiera_video.metrics.video_judge import VideoJudge
from hiera_video.metrics.view_groups import (
    ViewGroup,
    label_positions,
    predicted_class,
    view_group,
    view_names,
)
from hiera_video.results.prediction_files import PredictionFile, Videos

ALL_VIEWS = "all"
DRAWS = 10_000  # bootstrap samples


def evaluate_file(file: PredictionFile, views: Sequence[tuple[int, int]] = ()) -> Results:
    """Recompute the results of a test; memory does not grow with views or classes.

    Args:
        file: the test's predictions.
        views: report the accuracy of these numbers of temporal and spatial views, and of all views
            together; by default, of every number that the file allows.

    Raises:
        PredictionFileError: no video has a label, or there are fewer views.
    """
    header, videos = file.header, file.videos()
    _check_labels(file, videos)
    wanted = [_group(file, *pair).name for pair in views]
    judge = VideoJudge(len(videos.path), len(header.class_names), header.views)
    file.count(judge, videos.video_id)
    outcomes = judge.outcomes()  # of places in `videos`
    outcomes = outcomes._replace(video_id=videos.video_id[outcomes.video_id])
    if wanted:
        names = [group.name for group in outcomes.groups]
        chosen = [i for i, name in enumerate(names) if name in wanted or i == len(names) - 1]
        groups = [outcomes.groups[i] for i in chosen]
        outcomes = outcomes._replace(groups=groups, position=outcomes.position[:, chosen])
    return Results(outcomes, header.class_names, videos.path)


def evaluate_ensemble(
    files: Sequence[PredictionFile],
    weights: Sequence[float],
    views: Sequence[tuple[int, int]] = (),
) -> Results:
    """Evaluate the weighted mean of several models' probabilities for each video.

    Each model's probabilities are first averaged over its own views, so the models may have been
    tested with different views. Videos are matched by `video_names`. A video that one of the models
    could not decode counts as wrong.

    Args:
        files: predictions for the same videos and classes.
        weights: a positive weight for each file.
        views: report the accuracy of these numbers of temporal and spatial views, and of all views
            together.

    Raises:
        PredictionFileError: the files differ in videos, labels or classes, or one has fewer views.
    """
    first, videos = files[0], files[0].videos()
    _check_labels(first, videos)
    num_videos, num_classes = len(videos.path), len(first.header.class_names)
    names = [f"{t}x{s}" for t, s in views] + [ALL_VIEWS]
    scores = np.zeros((num_videos, len(names), num_classes))
    failed = np.zeros(num_videos, bool)
    seen = []  # bool (videos, views) of each file
    for file, weight in zip(files, weights, strict=True):
        row_of = _matching_rows(first, videos, file)
        means, file_seen = _view_means(file, row_of, [*views, file.header.views])
        scores += weight * means
        failed[[row_of[video.video_id] for video in file.failed]] = True
        seen.append(file_seen)
    scores[failed] = np.nan
    label, scores = torch.from_numpy(videos.label), torch.from_numpy(scores)
    position = label_positions(scores, label.clamp(min=0))
    position[label < 0] = -1
    outcomes = Outcomes(
        video_id=np.arange(num_videos),
        label=videos.label,
        predicted=predicted_class(scores[:, -1], label, position[:, -1]).numpy(),
        position=position.numpy(),
        failed=failed,
        seen=np.concatenate(seen, 1),
        views=[f"{f.path.name} {name}" for f in files for name in view_names(*f.header.views)],
        groups=[ViewGroup(name, ()) for name in names],
        num_classes=num_classes,
    )
    return Results(outcomes, first.header.class_names, videos.path)


def _view_means(
    file: PredictionFile, row_of: dict[int, int], views: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Average a file's probabilities over groups of views.

    Args:
        file: predictions for n videos.
        row_of: the row of each video, by its id.
        views: numbers of temporal and spatial views, one pair for each group.

    Returns:
        float64 ``(n, groups, classes)``, NaN for a group without views and 0 for a video that could
        not be decoded; and bool ``(n, views)``, which views of a video the file has.
    """
    groups = [_group(file, *pair) for pair in views]
    temporal, spatial = file.header.views
    means = np.zeros((len(row_of), len(groups), len(file.header.class_names)))
    seen = np.zeros((len(row_of), temporal * spatial), bool)
    for video_id, view, probabilities in by_video(file):
        row = row_of[video_id]
        seen[row, view] = True
        for i, group in enumerate(groups):
            members = probabilities[np.isin(view, group.views)].astype(np.float64)
            means[row, i] = members.mean(0) if len(members) else np.nan
    return means, seen


class Difference(NamedTuple):
    """Top-k accuracy of one run minus that of another on the same videos.

    Attributes:
        difference: in [-1, 1].
        low: lower bound of its 95 % bootstrap interval.
        high: upper bound.
        first_only: number of videos that only the first run has right.
        second_only: number of videos that only the second run has right.
    """

    difference: float
    low: float
    high: float
    first_only: int
    second_only: int


def paired_difference(first: Results, second: Results, k: int = 1) -> Difference:
    """Compare two runs, with a paired bootstrap interval (Efron & Tibshirani 1993, percentiles).

    The bootstrap draws videos with replacement and takes both runs' outcomes of each. The
    difference depends only on how many of the drawn videos one run alone has right. Those counts
    are multinomial, so they are drawn directly.

    Args:
        first: results of one run.
        second: results of the other.
        k: a video is right if its class is among the first k.

    Raises:
        PredictionFileError: the runs differ in videos or labels.
    """
    names = video_names(first.paths)
    row_of = {name: row for row, name in enumerate(video_names(second.paths))}
    if differing := sorted(set(names) ^ row_of.keys()):
        raise PredictionFileError(f"the runs to compare differ in their videos: {differing[0]}")
    rows = np.array([row_of[name] for name in names])  # of the second run, in the first's order
    label, second_label = first.outcomes.label, second.outcomes.label[rows]
    # Class ids may differ between the runs, so names are compared.
    for name, i, j in zip(names, label, second_label, strict=True):
        a = first.class_names[i] if i >= 0 else ""
        b = second.class_names[j] if j >= 0 else ""
        if a != b:
            raise PredictionFileError(f"the runs to compare label {name} as {a!r} and {b!r}")
    labelled = label >= 0
    right = (first.outcomes.position[:, -1] < k)[labelled]
    second_right = (second.outcomes.position[rows, -1] < k)[labelled]
    first_only, second_only = int((right & ~second_right).sum()), int((second_right & ~right).sum())
    count = len(right)
    shares = [first_only / count, second_only / count, 1 - (first_only + second_only) / count]
    drawn = np.random.default_rng(0).multinomial(count, shares, DRAWS)  # (DRAWS, 3)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, (0.025, 0.975))
    difference = (first_only - second_only) / count
    return Difference(difference, float(low), float(high), first_only, second_only)


def video_names(paths: Sequence[str]) -> list[str]:
    """Name videos by their paths below the folder that all of them share, without suffixes.

    A data set and its prepared copy, ``a.webm.mp4`` of ``a.webm``, thus have the same names. If
    two videos would share a name, the paths are returned as they are.
    """
    folders = {os.path.dirname(path) for path in paths}
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # some paths are absolute, others relative
        return list(paths)
    names = [_without_suffixes(os.path.relpath(path, common or ".")) for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _without_suffixes(path: str) -> str:
    """A path without its suffix, whichever, and those of videos and pictures before it."""
    bare = PurePath(path).with_suffix("")
    while EITHER.has(bare):
        bare = bare.with_suffix("")
    return bare.as_posix()


def by_video(file: PredictionFile) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Collect the rows of one video after another; of a repeated view, the first row counts.

    Yields:
        The video's id, its views int64 ``(n,)``, ascending, and their probabilities float32
        ``(n, classes)``.

    Raises:
        PredictionFileError: the rows are not sorted by video.
    """
    current = -1
    views: list[np.ndarray] = []  # of the current video, whose rows may go on in the next piece
    probabilities: list[np.ndarray] = []
    for rows in file.rows():
        starts = np.flatnonzero(np.diff(rows.video_id, prepend=-1))  # first row of each video
        for start, end in pairwise([*starts, len(rows.video_id)]):
            video_id = int(rows.video_id[start])
            if video_id < current:
                raise PredictionFileError(
                    f"{file.path}: its rows are not sorted by video_id; sort them"
                )
            if video_id > current and views:
                yield current, *_unique_views(views, probabilities)
                views, probabilities = [], []
            current = video_id
            views.append(rows.view[start:end])
            probabilities.append(rows.probabilities[start:end])
    if views:
        yield current, *_unique_views(views, probabilities)


def _unique_views(
    views: list[np.ndarray], probabilities: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    unique, first_rows = np.unique(np.concatenate(views), return_index=True)
    return unique, np.concatenate(probabilities)[first_rows]


def _group(file: PredictionFile, temporal: int, spatial: int) -> ViewGroup:
    try:
        return view_group(temporal, spatial, *file.header.views)
    except ValueError as error:
        raise PredictionFileError(f"{file.path}: {error}") from error


def _check_labels(file: PredictionFile, videos: Videos) -> None:
    if not (videos.label >= 0).any():
        raise PredictionFileError(f"{file.path}: no video has a label")


def _matching_rows(first: PredictionFile, videos: Videos, file: PredictionFile) -> dict[int, int]:
    """Map the video ids of a file to rows of the first file's videos."""
    both = f"{first.path} and {file.path}"
    if file.header.class_names != first.header.class_names:
        raise PredictionFileError(f"{both} have different classes, or order them differently")
    row_of = {name: row for row, name in enumerate(video_names(videos.path))}
    ids, paths, labels = file.videos()
    names = video_names(paths)
    if differing := sorted(set(names) ^ row_of.keys()):
        raise PredictionFileError(
            f"{both} have different videos: {len(differing)} are in one file only, such as "
            f"{differing[0]}"
        )
    rows = [row_of[name] for name in names]
    wrong = np.flatnonzero(videos.label[rows] != labels)
    if len(wrong):
        raise PredictionFileError(f"{both} label {names[wrong[0]]} differently")
    return dict(zip(ids.tolist(), rows, strict=True))
