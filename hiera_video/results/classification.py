"""Numbers out of files of predictions: of one, of several averaged, of two compared."""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch

from hiera_video.errors import PredictionFileError
from hiera_video.metrics.multi_view import MultiViewAccuracy, Outcomes
from hiera_video.metrics.results import Results
from hiera_video.metrics.view_groups import (
    ViewGroup,
    label_positions,
    predicted_class,
    view_group,
    view_names,
)
from hiera_video.results.prediction_files import PredictionFile, Videos

ALL_VIEWS = "all"


def evaluate_file(file: PredictionFile, views: Sequence[tuple[int, int]] = ()) -> Results:
    """What a test says, from its file; memory does not grow with views or classes.

    Args:
        file: it.
        views: numbers of temporal and spatial views to tell the accuracy of; none: all.

    Raises:
        PredictionFileError: the file has no label, or not so many views.
    """
    header, videos = file.header, file.videos()
    _check_labels(file, videos)
    wanted = [_group(file, *pair).name for pair in views]
    metric = MultiViewAccuracy(len(videos.path), len(header.class_names), header.views)
    file.count(metric, videos.video_id)
    outcomes = metric.outcomes()
    if wanted:
        places = [i for i, group in enumerate(outcomes.groups) if group.name in wanted]
        places.append(len(outcomes.groups) - 1)
        chosen = list(dict.fromkeys(places))
        groups = [outcomes.groups[i] for i in chosen]
        outcomes = outcomes._replace(groups=groups, position=outcomes.position[:, chosen])
    return Results(outcomes, header.class_names, videos.path)


def evaluate_ensemble(
    files: Sequence[PredictionFile],
    weights: Sequence[float],
    views: Sequence[tuple[int, int]] = (),
) -> Results:
    """What several models say together: for each video, the weighted mean of theirs.

    Each model's probabilities are averaged over its own views first, so that files may have
    different numbers of views. Videos are the same where their paths below the folder that all
    videos of a file share are, but for the suffix. One that a model could not decode is wrong.

    Args:
        files: of the same videos and classes.
        weights: of the files, positive.
        views: numbers of temporal and spatial views to tell the accuracy of, beside that of all.

    Raises:
        PredictionFileError: the files are not of the same videos, labels and classes.
    """
    first, videos = files[0], files[0].videos()
    _check_labels(first, videos)
    names = video_names(videos.path)
    row_of = {name: row for row, name in enumerate(names)}
    count, classes = len(names), len(first.header.class_names)
    kinds = [f"{t}x{s}" for t, s in views] + [ALL_VIEWS]
    totals = np.zeros((count, len(kinds), classes))
    failed = np.zeros(count, bool)
    seen: list[np.ndarray] = []
    for file, weight in zip(files, weights, strict=True):
        rows = _matching_rows(first, file, row_of, videos.label)
        groups = [_group(file, *pair) for pair in views]
        groups.append(_group(file, *file.header.views))
        here = np.zeros((count, groups[-1].views[-1] + 1), bool)
        for video_id, view, probabilities in by_video(file):
            row = rows[video_id]
            here[row, view] = True
            for i, group in enumerate(groups):
                some = probabilities[np.isin(view, group.views)].astype(np.float64)
                totals[row, i] += weight * (some.mean(0) if len(some) else np.nan)
        for video in file.failed:
            failed[rows[video.video_id]] = True
        seen.append(here)
    totals[failed] = np.nan
    label, scores = torch.from_numpy(videos.label), torch.from_numpy(totals)
    position = label_positions(scores, label.clamp(min=0))
    position[label < 0] = -1
    all_views = predicted_class(scores[:, -1], label, position[:, -1])
    outcomes = Outcomes(
        video_id=np.arange(count),
        label=videos.label,
        predicted=all_views.numpy(),
        position=position.numpy(),
        failed=failed,
        seen=np.concatenate(seen, 1),
        views=[f"{f.path.name} {name}" for f in files for name in view_names(*f.header.views)],
        groups=[ViewGroup(kind, ()) for kind in kinds],
        num_classes=classes,
    )
    return Results(outcomes, first.header.class_names, videos.path)


class Difference(NamedTuple):
    """Top-k of one run minus that of another on the same videos.

    Attributes:
        difference: in [-1, 1].
        low, high: bounds of its bootstrap interval.
        first_only, second_only: videos that one has right and the other has not.
    """

    difference: float
    low: float
    high: float
    first_only: int
    second_only: int


def paired_difference(
    first: Results,
    second: Results,
    k: int = 1,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Difference with its paired bootstrap interval (Efron & Tibshirani 1993, percentiles).

    Videos are drawn with replacement, both runs' outcomes together. The difference depends only on
    how many drawn videos one run has right and the other has not, so those counts are drawn.

    Raises:
        PredictionFileError: the runs are not of the same videos and labels.
    """
    places = {name: row for row, name in enumerate(video_names(second.paths))}
    names = video_names(first.paths)
    if set(names) != set(places):
        example = sorted(set(names) ^ set(places))[0]
        raise PredictionFileError(f"the runs to compare are not of the same videos: {example}")
    rows = np.array([places[name] for name in names])
    label, other = first.outcomes.label, second.outcomes.label[rows]
    named = [first.class_names[i] if i >= 0 else "" for i in label]
    other_named = [second.class_names[i] if i >= 0 else "" for i in other]
    for name, a, b in zip(names, named, other_named, strict=True):
        if a != b:
            raise PredictionFileError(f"the runs to compare label {name} as {a!r} and {b!r}")
    known = label >= 0
    right = (first.outcomes.position[:, -1] < k)[known]
    other_right = (second.outcomes.position[rows, -1] < k)[known]
    count = len(right)
    only = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    shares = [only[0] / count, only[1] / count, 1 - sum(only) / count]
    drawn = np.random.default_rng(seed).multinomial(count, shares, draws)
    differences = (drawn[:, 0] - drawn[:, 1]) / count
    tail = (1 - level) / 2
    low, high = np.quantile(differences, (tail, 1 - tail))
    return Difference((only[0] - only[1]) / count, float(low), float(high), *only)


def video_names(paths: Sequence[str]) -> list[str]:
    """Paths below the folder that all of them share, without suffix.

    So a data set and what `prepare` made of it have the same names. Where they would not be
    different for different videos, the paths stay whole.
    """
    folders = {os.path.dirname(path) for path in paths}
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # absolute and relative ones
        return list(paths)
    names = [PurePath(os.path.relpath(p, common or ".")).with_suffix("").as_posix() for p in paths]
    return names if len(set(names)) == len(names) else list(paths)


def by_video(file: PredictionFile) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Id, views int64 ``(n,)`` and probabilities float32 ``(n, classes)`` of each video in turn.

    A view that comes twice is given once.

    Raises:
        PredictionFileError: the rows are not sorted by video.
    """
    waiting: list[Any] = [np.zeros(0, np.int64)] * 2 + [np.zeros((0, len(file.header.class_names)))]
    last = -1
    for rows in file.rows():
        columns = (rows.video_id, rows.view, rows.probabilities)
        ids, views, values = (np.concatenate(p) for p in zip(waiting, columns, strict=True))
        if (np.diff(ids) < 0).any() or (len(ids) and ids[0] <= last):
            raise PredictionFileError(
                f"{file.path}: its rows are not sorted by video_id; sort them"
            )
        starts = [0, *(np.diff(ids).nonzero()[0] + 1).tolist()]
        for start, end in pairwise(starts):
            last = int(ids[start])
            yield last, *_once(views[start:end], values[start:end])
        waiting = [column[starts[-1] :] for column in (ids, views, values)]
    if len(waiting[0]):
        yield int(waiting[0][0]), *_once(waiting[1], waiting[2])


def _once(views: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, places = np.unique(views, return_index=True)
    return unique, values[places]


def _group(file: PredictionFile, temporal: int, spatial: int) -> ViewGroup:
    try:
        return view_group(temporal, spatial, *file.header.views)
    except ValueError as error:
        raise PredictionFileError(f"{file.path}: {error}") from error


def _check_labels(file: PredictionFile, videos: Videos) -> None:
    if not (videos.label >= 0).any():
        raise PredictionFileError(f"{file.path}: no video has a label")


def _matching_rows(
    first: PredictionFile, file: PredictionFile, row_of: dict[str, int], labels: np.ndarray
) -> dict[int, int]:
    """Which row of the first file's videos each video id of another file is."""
    where = f"{file.path} and {Path(first.path)}"
    if file.header.class_names != first.header.class_names:
        raise PredictionFileError(f"{where} have other classes, or in another order")
    videos = file.videos()
    names = video_names(videos.path)
    if differ := sorted(set(names) ^ set(row_of)):
        raise PredictionFileError(
            f"{where} are not of the same videos: {len(differ)} are in one only: {differ[0]}, ..."
        )
    rows = [row_of[name] for name in names]
    wrong = (labels[rows] != videos.label).nonzero()[0]
    if len(wrong):
        raise PredictionFileError(f"{where} have another label for {names[wrong[0]]}")
    return dict(zip(videos.video_id.tolist(), rows, strict=True))
