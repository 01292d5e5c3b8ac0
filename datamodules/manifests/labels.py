"""Labels of an annotation as ids of classes, and how many videos each class has."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from datamodules.errors import DatasetError
from datamodules.manifests.lists import NO_LABEL, Row, at
from datamodules.suffixes import VIDEOS
from datamodules.wording import counted, did_you_mean, few

_WHOLE = re.compile(r"0*([0-9]+)(?:\.0*)?")  # 7, 007, and the 7.0 of a spreadsheet
_SHOWN = 5  # class names in a message


def class_names_of(rows: Sequence[Row], num_classes: int | None = None) -> tuple[str, ...]:
    """The classes that occur in rows, in the order of their ids; empty if there are no labels.

    Labels that are whole numbers are names like any others, sorted by value: the labels 1, 2 and 5
    are three classes with the ids 0, 1 and 2.

    Args:
        rows: of an annotation.
        num_classes: number of classes of the data set, if known. Numbers below it are then ids,
            and every id is a class, whether it occurs or not.
    """
    labels = {row.label for row in rows if row.label}
    numbers = _numbers(labels)
    if not numbers:
        return tuple(sorted(labels))
    highest = max(numbers.values(), key=_value)
    if num_classes is not None and _value(highest) < _value(str(num_classes)):
        return tuple(map(str, range(num_classes)))
    spelt = {number: label.partition(".")[0] for label, number in sorted(numbers.items())}
    return tuple(spelt[number] for number in sorted(spelt, key=_value))


def distinct_names(names: Mapping[Any, str]) -> tuple[str, ...]:
    """Names of classes by their ids; the id is added to those that several classes share."""
    counts = Counter(names.values())
    return tuple(name if counts[name] == 1 else f"{name} ({i})" for i, name in names.items())


def label_ids(
    source: Path, rows: Sequence[Row], class_names: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    """Label ids of rows, and the name of each id.

    Args:
        source: the file of the rows, for messages.
        rows: all have a label, or none has.
        class_names: the known classes in the order of their ids. None: `class_names_of` the rows.

    Returns:
        The id of each row, and the classes. If no row has a label, all ids are -1, and there are no
        classes.

    Raises:
        DatasetError: a label is not one of the classes.
    """
    labels = {row.label for row in rows}
    if not any(labels):
        return [NO_LABEL] * len(rows), ()
    names = class_names_of(rows) if class_names is None else tuple(class_names)
    ids = class_ids(labels, names)
    if unknown := next((row for row in rows if row.label not in ids), None):
        raise DatasetError(
            f"{at(source, unknown.number)}: label {unknown.label!r} is not one of the "
            f"{len(names)} known classes ({few(names, _SHOWN)}) or their ids; correct it, or set "
            f"data.class_names to all classes{did_you_mean(unknown.label, names)}"
        )
    return [ids[row.label] for row in rows], names


def class_ids(labels: Collection[str], names: Sequence[str]) -> dict[str, int]:
    """The id of each label that stands for one of the classes.

    A label is the name of a class. If not all labels are names, and all are whole numbers, they may
    be spelt in another way (7 for 007). Where the classes have real names, such labels are ids from
    0 on.

    Args:
        labels: of one file.
        names: the classes in the order of their ids.
    """
    ids = {name: i for i, name in enumerate(names)}
    numbers = _numbers(labels)
    if not numbers or ids.keys() >= set(labels):
        return ids
    id_of = {str(i): i for i in range(len(names))}
    if of_names := _numbers(names):
        id_of = {number: ids[name] for name, number in of_names.items()}
        if len(id_of) < len(ids):  # such as 1 and 01
            return ids
    return {label: id_of[number] for label, number in numbers.items() if number in id_of}


def class_report(
    split: str, counts: np.ndarray, names: Sequence[str], noun: str = VIDEOS.noun
) -> tuple[str, list[str]]:
    """How many videos the classes of a split have, and what is suspicious about that.

    Args:
        split: its name; a class without videos is suspicious in ``train`` alone.
        counts: videos of each class, int ``(classes,)``.
        names: of the classes.
        noun: what the lines call the files, as in `Media`.

    Returns:
        One line on the first, last and smallest class, and warnings, one line each; nothing if
        there are no labels, or none of them has a name.
    """
    if not names or not counts.any():
        return "", []
    if len(names) == 1:
        line = f"{counted(counts.sum(), noun)} of one class, {names[0]!r}"
    else:
        ends = {"first": 0, "last": -1, "smallest": int(counts.argmin())}
        listed = ", ".join(f"{which} {names[i]!r} {counts[i]}" for which, i in ends.items())
        line = f"{counted(counts.sum(), noun)} of {len(names)} classes: {listed}"
    warnings = []
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty and split == "train":
        warnings.append(
            f"{split}: {len(empty)} of {len(names)} classes have no training {noun}: "
            f"{few(empty, _SHOWN)}"
        )
    if len(empty) == len(names) - 1:
        name = names[int(counts.argmax())]
        warnings.append(
            f"{split}: all {noun} are of one class, {name!r}; an accuracy means nothing"
        )
    spelt: dict[str, str] = {}
    for name in names:
        composed = normalize("NFC", name)
        if (other := spelt.setdefault(composed.casefold(), name)) != name:
            look_alike = normalize("NFC", other) == composed
            how = "only in the Unicode form of their letters" if look_alike else "only in case"
            warnings.append(f"{split}: the classes {other!r} and {name!r} differ {how}")
    return f"{split}: {line}", warnings


def _numbers(labels: Collection[str]) -> dict[str, str]:
    """The number that each label is, without leading zeros; empty unless all are whole numbers."""
    matches = {label: _WHOLE.fullmatch(label) for label in labels}
    numbers = {label: match[1] for label, match in matches.items() if match}
    return numbers if len(numbers) == len(matches) else {}


def _value(number: str) -> tuple[int, str]:
    """Sorts numbers without leading zeros by value, however many digits they have."""
    return len(number), number
