"""Fewer views out of many: which ones stand for a test with fewer."""

from typing import NamedTuple

import torch
from torch import Tensor


class ViewGroup(NamedTuple):
    """Views that are averaged together.

    Attributes:
        name: such as ``5x3``: how many moments of the video, and places of the picture at each.
        views: their numbers, ``temporal index * spatial views + spatial index``, ascending.
    """

    name: str
    views: tuple[int, ...]


def view_groups(temporal_views: int, spatial_views: int) -> list[ViewGroup]:
    """All groups from 1x1 to those of all views, which come last.

    Of equally spaced moments that reach both ends of a video, a group takes those that a test with
    fewer views would have taken, or the nearest to them; of places in the picture likewise: of one
    the middle, of two both ends.
    """
    return [
        view_group(t, s, temporal_views, spatial_views)
        for t in range(1, temporal_views + 1)
        for s in range(1, spatial_views + 1)
    ]


def view_names(temporal_views: int, spatial_views: int) -> list[str]:
    """Temporal and spatial index of each view, such as ``2x0``."""
    return [f"{t}x{s}" for t in range(temporal_views) for s in range(spatial_views)]


def view_group(temporal: int, spatial: int, temporal_views: int, spatial_views: int) -> ViewGroup:
    """One of `view_groups`.

    Raises:
        ValueError: there are not so many views.
    """
    name = f"{temporal}x{spatial}"
    if not (1 <= temporal <= temporal_views and 1 <= spatial <= spatial_views):
        raise ValueError(f"no {name} views: there are {temporal_views}x{spatial_views}")
    places = spread(spatial, spatial_views)
    views = (t * spatial_views + s for t in spread(temporal, temporal_views) for s in places)
    return ViewGroup(name, tuple(views))


def spread(count: int, length: int) -> list[int]:
    """``count`` of ``length`` places, first and last among them; one is the middle."""
    if count == 1:
        return [(length - 1) // 2]
    return [(2 * i * (length - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def group_scores(probabilities: Tensor, groups: list[ViewGroup]) -> Tensor:
    """Mean over the views of each group, in float64 and always in the same order.

    Args:
        probabilities: float ``(videos, views, classes)``.
        groups: as in `view_groups`.

    Returns:
        float64 ``(videos, groups, classes)``.
    """
    probabilities = probabilities.double()
    videos, _, classes = probabilities.shape
    scores = probabilities.new_zeros(videos, len(groups), classes)
    for i, group in enumerate(groups):
        for view in group.views:  # not `sum`, whose order depends on shapes
            scores[:, i] += probabilities[:, view]
        scores[:, i] /= len(group.views)  # without any view NaN
    return scores


def label_positions(scores: Tensor, label: Tensor) -> Tensor:
    """Where the true class stands among all, 0 = first; int64 ``(videos, groups)``.

    A tie counts against it, so that no class is favoured by its id. Where its score is not finite,
    it comes after all classes.

    Args:
        scores: float ``(videos, groups, classes)``.
        label: int64 ``(videos,)``, in [0, classes).
    """
    index = label[:, None, None].expand(-1, scores.shape[1], 1)
    true = scores.gather(2, index)  # (videos, groups, 1)
    before = (~(scores < true)).sum(2) - 1  # NaN is not less
    return torch.where(true[..., 0].isfinite(), before, scores.shape[2])


def predicted_class(scores: Tensor, label: Tensor, position: Tensor) -> Tensor:
    """The most probable class: int64 ``(videos,)``; -1 where there is none.

    Args:
        scores: float ``(videos, classes)``.
        label: int64 ``(videos,)``; -1 = unknown.
        position: int64 ``(videos,)`` of the true class; where it is not first, another one is
            predicted, also in a tie.
    """
    known = label >= 0
    others = scores.nan_to_num(nan=-1.0)
    wrong = known & (position > 0)
    others[wrong, label[wrong]] = -1.0
    best = others.argmax(1, keepdim=True)
    return torch.where(others.gather(1, best) >= 0, best, -1)[:, 0]
