"""What a person or a file is told of a video's class."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """A class, and how probable it is.

    Attributes:
        label: name of the class.
        probability: in [0, 1].
    """

    label: str
    probability: float


def top_classes(views: Tensor, class_names: Sequence[str], top: int) -> list[Prediction]:
    """The most probable classes of one video, the first the most probable.

    Args:
        views: probabilities of each of its views, float ``(views, classes)``; they are averaged.
        class_names: of the columns.
        top: classes at most.
    """
    mean = mean_of_views(views)
    best = mean.topk(min(top, len(mean)))
    classes: list[int] = best.indices.tolist()
    values: list[float] = best.values.tolist()
    return [Prediction(class_names[i], p) for i, p in zip(classes, values, strict=True)]


def mean_of_views(views: Tensor) -> Tensor:
    """From probabilities of views ``(views, classes)`` to the video's: float64 ``(classes,)``.

    The Kinetics protocol: the mean of softmaxed scores (HIERA, 5 x 3 views).
    """
    return views.cpu().double().mean(0)
