"""The most probable classes of a video."""

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
        class_names: in the order of the columns.
        top: greatest number of classes to return.
    """
    mean = mean_of_views(views)
    best = mean.topk(min(top, len(mean)))
    classes: list[int] = best.indices.tolist()
    values: list[float] = best.values.tolist()
    return [Prediction(class_names[i], p) for i, p in zip(classes, values, strict=True)]


def mean_of_views(views: Tensor) -> Tensor:
    """Average the probabilities of views, as the Kinetics protocol does (HIERA, 5 x 3 views).

    Args:
        views: softmaxed scores, float ``(views, classes)``.

    Returns:
        float64 ``(classes,)`` on the CPU.
    """
    return views.cpu().double().mean(0)
