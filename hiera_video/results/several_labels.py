"""Accuracy where a picture may have several right classes: ImageNet-ReaL's labels."""

from pathlib import Path, PurePath
from typing import Any, NamedTuple

from datamodules.errors import DatasetError
from datamodules.manifests.lists import read_json
from hiera_video.errors import PredictionFileError
from hiera_video.metrics.results import Results


class SeveralLabels(NamedTuple):
    """An accuracy.

    Attributes:
        top1: share in [0, 1] of the pictures whose most probable class is one of theirs.
        images: number of pictures with at least one class; others are not counted.
    """

    top1: float
    images: int


def read_labels(file: Path, num_classes: int) -> list[list[int]]:
    """Read ``real.json``: for each picture, in the order of their file names, a list of class ids.

    Args:
        file: the file.
        num_classes: number of classes, which all ids are below.

    Raises:
        DatasetError: it is no such file.
    """
    labels = read_json(file)
    rows: list[Any] = labels if isinstance(labels, list) else [None]
    for row, ids in enumerate(rows, 1):
        if not isinstance(ids, list) or not all(i in range(num_classes) for i in ids):
            raise DatasetError(
                f"{file}, record {row}: expected a list of class ids below {num_classes}"
            )
    return labels


def accuracy_with_several_labels(results: Results, file: Path) -> SeveralLabels:
    """The accuracy of a test on ImageNet's validation pictures by ImageNet-ReaL's labels.

    Args:
        results: of a test on exactly the pictures that the file has labels of, in any order.
        file: see `read_labels`.

    Raises:
        DatasetError: as `read_labels`.
        PredictionFileError: the file has labels of another number of pictures.
    """
    labels = read_labels(file, results.outcomes.num_classes)
    if len(labels) != len(results.paths):
        raise PredictionFileError(
            f"{file}: labels of {len(labels)} images for {len(results.paths)} predictions"
        )
    names = [PurePath(path).name for path in results.paths]
    order = sorted(range(len(names)), key=names.__getitem__)
    right = [
        int(results.outcomes.predicted[i]) in ids
        for i, ids in zip(order, labels, strict=True)
        if ids
    ]
    return SeveralLabels(sum(right) / len(right) if right else float("nan"), len(right))
