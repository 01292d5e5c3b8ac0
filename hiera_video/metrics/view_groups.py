"""Which of a video's views stand for a test with fewer views."""

from typing import NamedTuple

import torch
from torch import Tensor


class ViewGroup(NamedTuple):
    """Views that are averaged together.

    Attributes:
        name: temporal by spatial views, such as ``5x3``.
        views: numbers of the views, ``temporal index * spatial views + spatial index``, ascending.
    """

    name: str
    views: tuple[int, ...]


def view_groups(temporal_views: int, spatial_views: int) -> list[ViewGroup]:
    """All groups, from 1x1 to the group of all views, which comes last.

    Views are equally spaced between both ends of the video and of the picture. A group takes the
    views that a test with fewer views would have taken, or the nearest ones: a single view is in
    the middle, two are at both ends.

    With ``sampling="segments"``, temporal views are at equal steps within each segment instead: 1x3
    of 2x3 takes the frames at a quarter of each segment, where a test with 1x3 takes the centres.

    Args:
        temporal_views: moments of the video.
        spatial_views: places of the picture at each moment.
    """
    return [
        view_group(t, s, temporal_views, spatial_views)
        for t in range(1, temporal_views + 1)
        for s in range(1, spatial_views + 1)
    ]


def view_names(temporal_views: int, spatial_views: int) -> list[str]:
    """Name each view by its temporal and spatial index, such as ``2x0``."""
    return [f"{t}x{s}" for t in range(temporal_views) for s in range(spatial_views)]


def view_group(temporal: int, spatial: int, temporal_views: int, spatial_views: int) -> ViewGroup:
    """The group of `view_groups` with so many temporal and spatial views.

    Raises:
        ValueError: there are fewer views.
    """
    name = f"{temporal}x{spatial}"
    if not (1 <= temporal <= temporal_views and 1 <= spatial <= spatial_views):
        raise ValueError(f"no {name} views: there are {temporal_views}x{spatial_views}")
    places = spread(spatial, spatial_views)
    views = (t * spatial_views + s for t in spread(temporal, temporal_views) for s in places)
    return ViewGroup(name, tuple(views))


def spread(count: int, length: int) -> list[int]:
    """Choose ``count`` of ``length`` places from the first to the last; one is the middle."""
    if count == 1:
        return [(length - 1) // 2]
    return [(2 * i * (length - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def group_scores(probabilities: Tensor, groups: list[ViewGroup]) -> Tensor:
    """Average over the views of each group, in float64 and always in the same order.

    Args:
        probabilities: float ``(videos, views, classes)``.
        groups: as in `view_groups`.

    Returns:
        float64 ``(videos, groups, classes)``; NaN for a group without views.
    """
    probabilities = probabilities.double()
    videos, _, classes = probabilities.shape
    scores = probabilities.new_zeros(videos, len(groups), classes)
    for i, group in enumerate(groups):
        for view in group.views:  # the order of additions in `sum` depends on shapes
            scores[:, i] += probabilities[:, view]
        scores[:, i] /= len(group.views)
    return scores


def label_positions(scores: Tensor, label: Tensor) -> Tensor:
    """Rank of the true class among all classes.

    A tie counts against the true class, so that no class is favoured by its id. If its score is not
    finite, it comes after all classes.

    Args:
        scores: float ``(videos, groups, classes)``.
        label: int64 ``(videos,)`` in [0, classes).

    Returns:
        int64 ``(videos, groups)``; 0: first.
    """
    index = label[:, None, None].expand(-1, scores.shape[1], 1)
    true = scores.gather(2, index)  # (videos, groups, 1)
    before = (~(scores < true)).sum(2) - 1  # a NaN is not less
    return torch.where(true[..., 0].isfinite(), before, scores.shape[2])


def predicted_class(scores: Tensor, label: Tensor, position: Tensor) -> Tensor:
    """The most probable class of each video.

    Args:
        scores: float ``(videos, classes)``.
        label: int64 ``(videos,)``; -1: unknown.
        position: int64 ``(videos,)``, from `label_positions`. Where the true class is not first,
            another class is predicted, also in a tie.

    Returns:
        int64 ``(videos,)``; -1 if there is none.
    """
    known = label >= 0
    others = scores.nan_to_num(nan=-1.0)
    wrong = known & (position > 0)
    others[wrong, label[wrong]] = -1.0
    best = others.argmax(1, keepdim=True)
    return torch.where(others.gather(1, best) >= 0, best, -1)[:, 0]
