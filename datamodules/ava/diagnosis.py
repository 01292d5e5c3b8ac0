"""What the annotation of a data set in AVA's format holds, and why mAP would be low or 0."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from datamodules.ava.annotations import read_boxes
from datamodules.ava.box_table import (
    NO_ACTION,
    BoxTable,
    box_numbers,
    check_actions,
    check_boxes,
    check_labelled,
    check_scores,
    span,
    unused_exclusions,
    why_apart,
)
from datamodules.ava.files import AVAFiles
from datamodules.ava.tables import check_seconds, first_rows, video_durations
from datamodules.clips.boxes import intersection_over_union
from datamodules.errors import DatasetError
from datamodules.preparing.check import Diagnosis, Fault, listed


class _Annotation(NamedTuple):
    """What could be read of a split's annotation.

    Attributes:
        truth: ground truth.
        persons: boxes of a person detector.
        excluded: excluded keyframes.
        paths: path of each video of the ground truth, empty where it is missing.
    """

    truth: BoxTable
    persons: BoxTable | None
    excluded: BoxTable | None
    paths: list[str]


def diagnose_all(data: AVAFiles, names: Sequence[str]) -> list[Diagnosis]:
    """Diagnose splits that share their ground truth; those that agree in the rest count once."""
    different = {
        (name == "train", data.person_boxes.get(name), data.excluded.get(name)): name
        for name in reversed(names)
    }
    return [diagnose(data, name) for name in names if name in different.values()]


def diagnose(data: AVAFiles, name: str) -> Diagnosis:
    """Check the annotation of ``train``, ``val`` or ``test`` against itself and its videos.

    Unlike training it does not stop at the first error: each step works on what the steps before
    it could read.
    """
    faults: list[Fault] = []
    annotation = _read(data, name, faults)
    if annotation is None:
        return Diagnosis(faults, [f"{name}: no ground truth"])
    _check(data, name, annotation, faults)
    return Diagnosis(faults, [f"{name}: {line}" for line in _lines(data, annotation)])


@contextmanager
def _noted(faults: list[Fault]) -> Iterator[None]:
    """Note the error of a step, and go on with the next one."""
    try:
        yield
    except DatasetError as error:
        faults.append(Fault("wrong", str(error)))


def _read(data: AVAFiles, name: str, faults: list[Fault]) -> _Annotation | None:
    """Read all files, each on its own; None if there is no ground truth."""
    excluded = truth = persons = None
    paths: list[str] = []
    with _noted(faults):
        data.find_class_names()
    with _noted(faults):
        excluded = data.read_excluded(name)
    with _noted(faults):
        truth = read_boxes(data.truth_file(name))
    with _noted(faults):
        if (file := data.person_box_file(name)) is not None:
            persons = data.read_person_boxes(file)
    if truth is None:
        return None
    with _noted(faults):
        paths = data.find_videos(truth.names, first_rows(truth), truth.file)
    return _Annotation(truth, persons, excluded, paths or [""] * len(truth.names))


def _check(data: AVAFiles, name: str, annotation: _Annotation, faults: list[Fault]) -> None:
    """Make the checks that training makes, each of them whatever the others find."""
    truth, persons = annotation.truth, annotation.persons
    with _noted(faults):
        check_boxes(truth)
        check_labelled(truth)
        if data.action_ids:
            check_actions(truth, data.action_ids)
    with _noted(faults):
        if persons is not None:
            check_boxes(persons)
            if data.action_ids:
                check_actions(persons, data.action_ids)
    with _noted(faults):
        if persons is not None:
            check_scores(persons)
    durations = video_durations(annotation.paths, data.frame_rate)
    in_split = None if persons is None else persons.of_videos(truth.names)
    for table in (truth, in_split):
        if table is not None:
            with _noted(faults):
                check_seconds(table, durations, data.timestamp_offset)
    # Person boxes that are configured and could not be read were noted as such.
    if persons is not None or data.person_boxes.get(name) is None:
        with _noted(faults):
            data.sources(name, truth, in_split)


def _lines(data: AVAFiles, annotation: _Annotation) -> Iterator[str]:
    truth = annotation.truth.without(annotation.excluded)
    with_box = truth.where(truth.has_box)
    all_rows, rows = int(annotation.truth.has_box.sum()), len(with_box.row)
    keyframes = np.unique(with_box.keys())
    yield (
        f"ground truth: {rows} rows ({all_rows - rows} excluded), {len(keyframes)} "
        f"keyframes with boxes, {len(truth.names)} videos, {span(with_box)}; {truth.file}"
    )
    if line := unused_exclusions(annotation.excluded, annotation.truth):
        yield line
    paths = zip(truth.names, annotation.paths, strict=True)
    if missing := [name for name, path in paths if not path]:
        yield f"videos that are missing: {listed(missing)}"
    yield from _label_lines(data, with_box)
    if annotation.persons is None:
        yield "person boxes: none"
    else:
        persons = annotation.persons.without(annotation.excluded)
        yield from _person_lines(data, with_box, persons.where(persons.has_box))


def _person_lines(data: AVAFiles, truth: BoxTable, persons: BoxTable) -> Iterator[str]:
    """How person boxes and ground truth fit each other; of both, the rows with a box."""
    confident = persons.where(persons.score >= data.min_person_score)
    yield (
        f"person boxes: {len(persons.row)} rows, {len(confident.row)} of them with a score of at "
        f"least {data.min_person_score:g}, {span(persons)}; {persons.file}"
    )
    in_split = confident.of_videos(truth.names)
    keyframes, detected = np.unique(truth.keys()), np.unique(in_split.keys())
    common = np.isin(keyframes, detected)
    yield (
        f"keyframes of the ground truth that have person boxes: {common.sum()} of "
        f"{len(keyframes)} ({_percentage(common)})"
    )
    if not len(truth.row):
        yield "mAP would be undefined: the ground truth has no box"
    elif why := why_zero(truth, persons, data.min_person_score):
        yield f"mAP would be 0: {why}"
    yield f"keyframes of person boxes that the ground truth lacks: {len(detected) - common.sum()}"
    fits = _fitting(truth, in_split)
    yield (
        f"boxes of the ground truth that a person box fits (IoU at least 0.5): {fits.sum()} of "
        f"{len(fits)} ({_percentage(fits)}); no detector of actions can find the others"
    )
    seen = set(in_split.video.tolist())
    if without := [name for i, name in enumerate(truth.names) if i not in seen]:
        yield f"videos without person boxes: {listed(without)}"
    if strange := sorted(set(persons.names) - set(truth.names)):
        yield f"videos of person boxes that the ground truth lacks: {listed(strange)}"


def _label_lines(data: AVAFiles, truth: BoxTable) -> Iterator[str]:
    """Which actions of the label map occur."""
    used, counts = np.unique(truth.action[truth.action != NO_ACTION], return_counts=True)
    trained, evaluated = set(data.action_ids), set(data.evaluated_action_ids)
    if not trained:
        return
    if outside := [int(action) for action in used if action not in trained]:
        ids = listed(outside)
        yield f"action ids that are not in the label map, whose rows cannot match: {ids}"
    scored = sum(int(n) for action, n in zip(used, counts, strict=True) if action in evaluated)
    yield (
        f"actions: {len(trained & set(used.tolist()))} of {len(trained)} classes of the label map "
        f"occur; {scored} of {len(truth.row)} rows are of the {len(evaluated)} that are evaluated"
    )
    names = dict(zip(data.action_ids, data.class_names or (), strict=False))
    if unused := [names[action] for action in sorted(evaluated - set(used.tolist()))]:
        yield f"evaluated classes without ground truth, left out of the mean: {listed(unused)}"


def why_zero(truth: BoxTable, persons: BoxTable, min_score: float) -> str:
    """Why mAP would be 0, whatever the model: no keyframe has a person box; empty if one has.

    Args:
        truth: ground truth, without what is excluded.
        persons: boxes of a person detector, also without.
        min_score: least score of a box that counts.
    """
    truth, persons = truth.where(truth.has_box), persons.where(persons.has_box)
    if not len(truth.row):
        return ""
    confident = persons.where(persons.score >= min_score)
    if not len(confident.row):
        highest = np.nanmax(np.append(persons.score, 0.0))
        return (
            f"no person box has data.min_person_score={min_score:g}; the highest score is "
            f"{highest:g}"
        )
    if np.isin(confident.of_videos(truth.names).keys(), truth.keys()).any():
        return ""
    return why_apart(truth, confident, "person boxes")


def _fitting(truth: BoxTable, persons: BoxTable) -> np.ndarray:
    """Which distinct boxes of the ground truth have an IoU of 0.5 with a person box.

    Args:
        truth: ground truth with boxes.
        persons: person boxes of the same videos.

    Returns:
        bool ``(n,)`` of n distinct boxes.
    """
    # Rows of one box differ in their action; sorted by keyframe, the boxes of each are a run.
    pairs = np.stack([truth.keys(), box_numbers(truth.boxes)])
    (keys, _), first = np.unique(pairs, axis=1, return_index=True)
    boxes = truth.boxes[first]
    order = np.argsort(persons.keys(), kind="stable")
    person_keys, person_boxes = persons.keys()[order], persons.boxes[order]
    fits = np.zeros(len(keys), bool)
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    for start, end in zip(starts, np.append(starts, len(keys))[1:], strict=True):
        low, high = np.searchsorted(person_keys, [keys[start], keys[start] + 1])
        if low < high:
            iou = intersection_over_union(boxes[start:end, None], person_boxes[None, low:high])
            fits[start:end] = iou.max(axis=1) >= 0.5  # (boxes, persons) -> (boxes,)
    return fits


def _percentage(mask: np.ndarray) -> str:
    return f"{mask.mean() if len(mask) else 0:.1%}"
