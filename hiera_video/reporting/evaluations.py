"""The results of a test, arranged for the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.wording import counted, few
from hiera_video.metrics.ava_results import METRIC as MAP
from hiera_video.metrics.headline import headline
from hiera_video.metrics.results import Results
from hiera_video.reporting.clips import Clip, playable, worst_mistakes
from hiera_video.reporting.data_uris import data_uri, encoded
from hiera_video.reporting.run_files import Evaluation
from hiera_video.results.classification import evaluate_file
from hiera_video.results.prediction_files import PredictionFile, Progress
from hiera_video.visualize.confusion import confusion_picture

MOST_IN_TABLE = 20  # classes of a confusion matrix in words; more become a picture
WORST = 10  # classes that are shown without unfolding
NAMED = 5  # videos of a note
WORDS = {
    "top1": "Top-1",
    "top5": "Top-5",
    "mean_class_accuracy": "Mean class accuracy",
    "mask_AP": "Mask AP",
    "box_AP": "Box AP",
}


class ClassRow(NamedTuple):
    """A class: its share in [0, 1] (None: it has no example), and its number of examples."""

    name: str
    value: float | None
    examples: int


class Cell(NamedTuple):
    """A cell of a confusion matrix: its videos, their share of the row, and what it means."""

    videos: int
    share: float
    right: bool
    words: str


class Part(NamedTuple):
    """What the page shows of one evaluation.

    Attributes:
        source: the evaluation.
        metrics: names and values, the most important first.
        views: numbers of views, with top-1 and top-5.
        measure: what the values of ``classes`` are.
        counted: what their numbers count.
        classes: the worst first.
        confused: pairs of classes, as in ``results.json``.
        heads: columns of ``matrix``.
        matrix: rows of the confusion matrix of few classes, each with its label.
        picture: the confusion matrix of many classes as a ``data:`` URI.
        clips: wrongly classified videos.
        notes: what else is to be said.
    """

    source: Evaluation
    metrics: list[tuple[str, str]]
    views: Sequence[tuple[str, str, str]] = ()
    measure: str = ""
    counted: str = ""
    classes: Sequence[ClassRow] = ()
    confused: Sequence[Mapping[str, Any]] = []
    heads: Sequence[str] = ()
    matrix: Sequence[tuple[str, list[Cell]]] = ()
    picture: str | None = None
    clips: Sequence[Clip] = ()
    notes: Sequence[str] = ()


def summary_of(evaluation: Evaluation) -> Part:
    """What ``results.json`` alone has of an evaluation, of any task."""
    results = evaluation.results
    if "top1" in results:
        return _classification(evaluation)
    if MAP in results:
        classes = _worst_first(results.get("per_class", {}), results.get("boxes_per_class", {}))
        return Part(evaluation, _metrics(results), (), "Average precision", "boxes", classes)
    if "objects" in results:
        kind = "mask" if "mask" in results else "box"
        classes = _worst_first(results.get("per_class", {}).get(kind, {}), results["objects"])
        return Part(evaluation, _metrics(results), (), WORDS[f"{kind}_AP"], "objects", classes)
    return Part(evaluation, _metrics(results))


def _metrics(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the metrics; what was only logged, such as ``val/loss``, is no share."""
    return [
        (WORDS.get(n, n), "–" if v is None else f"{v:.4g}" if "/" in n else f"{v:.2%}")
        for n, v in headline(results).items()
    ]


def with_predictions(part: Part, clips: int, folders: Sequence[Path], progress: Progress) -> Part:
    """Add the confusion matrix and wrongly classified videos, of a classification.

    Args:
        part: from `summary_of`.
        clips: wrongly classified videos to show, at most.
        folders: in which the relative paths of videos may start.
        progress: told how many rows of the predictions have been read, of how many.

    Raises:
        PredictionFileError: the table of predictions is damaged.
    """
    table = part.source.predictions
    if "top1" not in part.source.results:
        return part
    if table is None:
        missing = "There is no predictions.parquet beside these results, and so neither a confusion"
        return part._replace(
            notes=[*part.notes, f"{missing} matrix nor wrongly classified videos."]
        )
    results = evaluate_file(PredictionFile(table, progress))
    part = _with_matrix(part, results)
    mistakes = worst_mistakes(PredictionFile(table), results, clips) if clips else []
    return part._replace(clips=list(playable(mistakes, folders)))


def percent(share: float | None) -> str:
    """A share in [0, 1] as text; a dash for none."""
    return "–" if share is None else f"{share:.1%}"


def _classification(evaluation: Evaluation) -> Part:
    results = evaluation.results
    videos, accuracy = (results.get(n, {}) for n in ("videos_per_class", "per_class"))
    return Part(
        evaluation,
        metrics=[*_metrics(results), ("Videos", f"{results.get('videos', 0):,}")],
        views=[
            (name, percent(values.get("top1")), percent(values.get("top5")))
            for name, values in results.get("views", {}).items()
        ],
        measure="Top-1",
        counted="videos",
        classes=_worst_first(accuracy, videos),
        confused=results.get("confused", []),
        notes=_notes(results),
    )


def _notes(results: Mapping[str, Any]) -> list[str]:
    notes = []
    if count := results.get("unlabelled"):
        notes.append(f"{counted(count, 'videos', ',')} without a label: not counted.")
    for key, fault in (
        ("failed", "that could not be decoded, counted as wrong"),
        ("without_prediction", "without finite probabilities, counted as wrong"),
    ):
        if paths := results.get(key):
            notes.append(f"{counted(len(paths), 'videos', ',')} {fault}: {few(paths, NAMED, ',')}.")
    if lacking := results.get("missing_views"):
        names = [str(video.get("path")) for video in lacking]
        notes.append(f"{counted(len(lacking), 'videos', ',')} without some of the views, judged by "
                     f"the others: {few(names, NAMED, ',')}.")  # fmt: skip
    return notes


def _worst_first(values: Mapping[str, float], counts: Mapping[str, int]) -> list[ClassRow]:
    """Classes by their value; those without examples come last."""
    rows = [ClassRow(name, values.get(name), count) for name, count in counts.items()]
    return sorted(rows, key=lambda row: (row.value is None, row.value or 0.0, row.name))


def _with_matrix(part: Part, results: Results) -> Part:
    counts, names = results.outcomes.confusion(), list(results.class_names)
    if len(names) > MOST_IN_TABLE:
        return part._replace(
            picture=data_uri("image/png", encoded(confusion_picture(counts, names), "PNG"))
        )
    heads = [*names, "(none)"] if counts[:, -1].any() else names
    rows = [
        (name, _cells(name, row[: len(heads)], heads))
        for name, row in zip(names, counts, strict=True)
    ]
    return part._replace(heads=heads, matrix=rows)


def _cells(label: str, counts: np.ndarray, heads: Sequence[str]) -> list[Cell]:
    total = max(1, int(counts.sum()))
    return [
        Cell(int(n), int(n) / total, head == label, f"{label}, predicted {head}: {n} of {total}")
        for n, head in zip(counts, heads, strict=True)
    ]
