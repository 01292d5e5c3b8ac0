"""What the annotation of a data set in AVA's format holds, and why mAP would be low or 0."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from datamodules.ava.annotations import (
    NO_ACTION,
    BoxTable,
    check_boxes,
    check_score,
    keyframe_key,
    read_boxes,
)
from datamodules.ava.data_module import AVADataModule
from datamodules.ava.tables import check_seconds, durations, first_rows
from datamodules.clips.boxes import intersection_over_union
from datamodules.errors import DatasetError
from datamodules.preparing.check import Fault

T = TypeVar("T")

SHOWN = 8  # names or ids in a line


class Diagnosis(NamedTuple):
    """Of one split.

    Attributes:
        faults: what is an error; training would stop at the first.
        lines: what is there, for people.
    """

    faults: list[Fault]
    lines: list[str]


def diagnose_all(data: AVADataModule, names: Sequence[str]) -> list[Diagnosis]:
    """Diagnoses of splits that share their ground truth, each other annotation once."""
    different = {
        (name == "train", data.person_boxes.get(name), data.excluded.get(name)): name
        for name in reversed(names)
    }
    return [diagnose(data, name) for name in names if name in different.values()]


def diagnose(data: AVADataModule, name: str) -> Diagnosis:
    """Look at the annotation of ``train``, ``val`` or ``test`` and at its videos' lengths.

    Unlike training it does not stop at the first error; what can be read is compared.
    """
    faults: list[Fault] = []

    def attempt(work: Callable[[], T]) -> T | None:
        try:
            return work()
        except DatasetError as error:
            faults.append(Fault("wrong", str(error)))
            return None

    attempt(data.find_class_names)
    excluded = attempt(lambda: data.read_excluded(name)) or frozenset()
    truth = attempt(lambda: read_boxes(data.truth_file(name)))
    file = attempt(lambda: data.person_box_file(name))
    persons = attempt(lambda: data.read_person_boxes(file)) if file is not None else None
    for table in (truth, persons):
        if table is not None and data.action_ids:
            unlabelled = table is persons
            attempt(lambda t=table, u=unlabelled: check_boxes(t, data.action_ids, unlabelled=u))
    if persons is not None:
        attempt(lambda: check_score(persons))
    if truth is None:
        return Diagnosis(faults, [f"{name}: no ground truth"])
    paths = attempt(lambda: data.find_videos(truth.names, first_rows(truth), truth.file)) or []
    known = durations(paths or [""] * len(truth.names), data.frame_rate).tolist()
    seconds = dict(zip(truth.names, known, strict=True))
    of_split, detected = [truth], None
    if persons is not None:
        named = np.isin(np.array(persons.names, object), np.array(truth.names, object))
        detected = persons.where(named[persons.video])
        of_split.append(detected)
    for table in of_split:
        names = sorted({*truth.names, *table.names})
        lengths = np.array([seconds.get(video, np.nan) for video in names])
        attempt(
            lambda table=table, names=names, lengths=lengths: check_seconds(
                table, names, lengths, data.timestamp_offset
            )
        )
    if persons is not None or data.person_boxes.get(name) is None:
        attempt(lambda: data.sources(name, truth, detected))
    lines = [f"{name}: {line}" for line in _lines(data, truth, persons, excluded, paths)]
    return Diagnosis(faults, lines)


def _lines(
    data: AVADataModule,
    truth: BoxTable,
    persons: BoxTable | None,
    excluded: frozenset[tuple[str, int]],
    paths: Sequence[str],
) -> Iterator[str]:
    rows, truth = len(truth), truth.without(excluded)
    keyframes = np.unique(keyframe_key(truth.video, truth.second))
    yield (
        f"ground truth: {len(truth)} rows ({rows - len(truth)} excluded), {len(keyframes)} "
        f"keyframes with boxes, {len(truth.names)} videos, {_span(truth)}; {truth.file}"
    )
    if missing := [name for name, path in zip(truth.names, paths, strict=False) if not path]:
        yield f"videos that are missing: {_some(missing)}"
    yield from _label_lines(data, truth)
    if persons is None:
        yield "person boxes: none"
        return
    persons = persons.without(excluded)
    confident = persons.where(persons.score >= data.min_person_score)
    yield (
        f"person boxes: {len(persons)} rows, {len(confident)} of them with a score of at least "
        f"{data.min_person_score:g}, {_span(persons)}; {persons.file}"
    )
    ids = {name: i for i, name in enumerate(truth.names)}
    of_truth = np.array([ids.get(name, -1) for name in confident.names], np.int64)
    video = of_truth[confident.video]
    known = confident.where(video >= 0)
    keys = keyframe_key(video[video >= 0], known.second)
    common = np.isin(keyframes, keys)
    yield (
        f"keyframes of the ground truth that have person boxes: {common.sum()} of "
        f"{len(keyframes)} ({_share(common)})"
    )
    if not common.any():
        yield _no_overlap(data, truth, persons, confident)
    other = len(np.unique(keys)) - int(common.sum())
    yield f"keyframes of person boxes that the ground truth lacks: {other}"
    found = _found(truth, keyframe_key(truth.video, truth.second), known, keys)
    yield (
        f"boxes of the ground truth that a person box fits (IoU at least 0.5): {found.sum()} of "
        f"{len(found)} ({_share(found)}); no detector of actions can find the others"
    )
    seen = set(np.unique(video).tolist())
    if without := [name for i, name in enumerate(truth.names) if i not in seen]:
        yield f"videos without person boxes: {_some(without)}"
    if strange := [name for name in persons.names if name not in ids]:
        yield f"videos of person boxes that the ground truth lacks: {_some(strange)}"


def _label_lines(data: AVADataModule, truth: BoxTable) -> Iterator[str]:
    used, counts = np.unique(truth.action[truth.action != NO_ACTION], return_counts=True)
    known, evaluated = set(data.action_ids), set(data.evaluated_action_ids)
    if not known:
        return
    if outside := [int(action) for action in used if action not in known]:
        yield f"action ids that are not in the label map, whose rows cannot match: {_some(outside)}"
    scored = sum(int(n) for action, n in zip(used, counts, strict=True) if action in evaluated)
    yield (
        f"actions: {len(known & set(used.tolist()))} of {len(known)} classes of the label map "
        f"occur; {scored} of {len(truth)} rows are of the {len(evaluated)} that are evaluated"
    )
    names = dict(zip(data.action_ids, data.class_names or (), strict=False))
    if unused := [names[action] for action in sorted(evaluated - set(used.tolist()))]:
        yield f"evaluated classes without ground truth, left out of the mean: {_some(unused)}"


def _no_overlap(
    data: AVADataModule, truth: BoxTable, persons: BoxTable, confident: BoxTable
) -> str:
    """Why no keyframe has person boxes, and so mAP would be 0."""
    if not len(confident):
        most = np.nanmax([0.0, *persons.score.tolist()])
        why = f"no person box has data.min_person_score; the highest score is {most:g}"
    elif not set(truth.names) & set(persons.names):
        why = f"no video has the same name: {truth.names[0]!r} here, {persons.names[0]!r} there"
    else:
        why = f"the seconds differ: {_span(truth)} here, {_span(persons)} there"
    return f"mAP would be 0: {why}"


def _found(
    truth: BoxTable, keys: np.ndarray, persons: BoxTable, person_keys: np.ndarray
) -> np.ndarray:
    """Which boxes of the ground truth a person box fits: bool, one for each distinct box."""
    codes = truth.text.dictionary_encode()
    pairs = np.stack([keys, codes.indices.to_numpy()])
    first = np.unique(pairs, axis=1, return_index=True)[1]
    keys, boxes = keys[first], truth.boxes[first]  # in the order of the keys
    order = np.argsort(person_keys, kind="stable")
    person_keys, person_boxes = person_keys[order], persons.boxes[order]
    found = np.zeros(len(keys), bool)
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    for start, end in zip(starts, [*starts[1:].tolist(), len(keys)], strict=True):
        low, high = np.searchsorted(person_keys, [keys[start], keys[start] + 1])
        if low < high:
            overlap = intersection_over_union(boxes[start:end], person_boxes[low:high])
            found[start:end] = overlap.max(axis=1) >= 0.5
    return found


def _span(table: BoxTable) -> str:
    if not len(table):
        return "no seconds"
    return f"seconds {table.second.min()} to {table.second.max()}"


def _share(mask: np.ndarray) -> str:
    return f"{mask.mean() if len(mask) else 0:.1%}"


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:SHOWN]))
    return f"{len(values)}: {shown}" + (" ..." if len(values) > SHOWN else "")
