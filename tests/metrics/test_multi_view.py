import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.metrics.multi_view import MultiViewAccuracy
from tests.metrics.processes import joined

STATES = ("label", "predicted", "position", "failed", "seen", "count")


def brute_force(probabilities, labels, k, views):
    """Top-k of the mean over some views."""
    right = 0
    for rows, label in zip(probabilities, labels, strict=True):
        mean = rows.astype(np.float64)[list(views)].mean(0)
        right += label in np.argsort(-mean, kind="stable")[:k]
    return right / len(labels)


def update(metric, probabilities, labels, rows):
    video, view = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    metric.update(
        *map(torch.from_numpy, (probabilities[video, view], labels[video], video, view)),
    )


@settings(max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(5, 9),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_equals_brute_force_for_any_split_over_ranks(
    videos, temporal, spatial, classes, ranks, seed
):
    rng = np.random.default_rng(seed)
    views = temporal * spatial
    probabilities = rng.dirichlet(np.ones(classes), (videos, views)).astype(np.float32)
    labels = rng.integers(0, classes, videos)
    metrics = [MultiViewAccuracy(videos, classes, (temporal, spatial)) for _ in range(ranks)]
    for metric, ids in zip(metrics, np.array_split(rng.permutation(videos), ranks), strict=True):
        # Its videos, and one of another process as padding, in batches that videos cross.
        mine = [*ids, *rng.integers(0, videos, 1)]
        rows = rng.permutation([(v, w) for v in mine for w in range(views)])
        for batch in np.array_split(rows, 3):
            update(metric, probabilities, labels, batch)
    metric = joined(metrics, STATES)
    assert metric.compute()["top1"].item() == pytest.approx(
        brute_force(probabilities, labels, 1, range(views))
    )
    outcomes = metric.outcomes()
    assert outcomes.seen.all()
    assert outcomes.video_id.tolist() == list(range(videos))
    for i, group in enumerate(outcomes.groups):
        for k in (1, 5):
            expected = brute_force(probabilities, labels, k, group.views)
            assert outcomes.accuracy(k, i) == pytest.approx(expected)
    confusion = outcomes.confusion()
    assert confusion.sum() == videos
    assert np.trace(confusion) / videos == pytest.approx(outcomes.accuracy())
    by_class = [
        brute_force(probabilities[labels == c], labels[labels == c], 1, range(views))
        for c in set(labels)
    ]
    assert metric.compute()["mean_class_accuracy"].item() == pytest.approx(np.mean(by_class))


def test_memory_is_a_few_numbers_a_video():
    metric = MultiViewAccuracy(1000, 400, (5, 3))
    for video in range(1000):
        ids = torch.full((15,), video)
        metric.update(torch.rand(15, 400), ids % 400, ids, torch.arange(15))
    held = sum(getattr(metric, name).nbytes for name in STATES)
    assert held == 1000 * (8 + 8 + 15 * 8 + 1 + 15 + 4)
    assert len(pickle.dumps(metric)) < 4 * held  # of 48 MB that came


def one(probabilities, label):
    metric = MultiViewAccuracy(5, len(probabilities))
    zero = torch.tensor([0])
    metric.update(torch.tensor([probabilities]), torch.tensor([label]), zero + 2, zero)
    return metric


def test_videos_not_seen_are_left_out():
    assert one([0.1, 0.9], 1).compute() == {"top1": 1.0, "mean_class_accuracy": 1.0}


@pytest.mark.parametrize(
    ("probabilities", "label", "predicted"),
    [
        ([0.5, 0.5], 0, 1),
        ([0.5, 0.5], 1, 0),
        ([torch.nan, torch.nan], 0, -1),
        ([0.2, torch.nan, 0.8], 2, 0),
        ([torch.nan] * 5, 2, -1),
    ],
)
def test_ties_and_nan_are_wrong(probabilities, label, predicted):
    metric = one(probabilities, label)
    assert metric.compute()["top1"] == 0
    assert metric.compute().get("top5", 0) == 0
    assert metric.outcomes().predicted.tolist() == [predicted]


def test_videos_without_a_label_do_not_count_and_are_predicted():
    metric = MultiViewAccuracy(3, 2)
    zeros = torch.zeros(2, dtype=torch.int64)
    rows = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    metric.update(rows, torch.tensor([0, -1]), torch.arange(2), zeros)
    metric.count_as_wrong(2, -1)
    assert metric.compute()["top1"] == 1
    assert metric.outcomes().predicted.tolist() == [0, 1, -1]


def test_a_video_that_was_not_decoded_is_wrong():
    metric = MultiViewAccuracy(4, 5)
    metric.update(torch.eye(5)[:3], torch.arange(3), torch.arange(3), torch.zeros(3).long())
    assert metric.compute()["top1"] == 1
    metric.count_as_wrong(3, 0)
    values = metric.compute()
    assert (values["top1"], values["top5"]) == (0.75, 0.75)
    assert values["mean_class_accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert metric.outcomes().failed.tolist() == [False, False, False, True]


def test_a_video_that_lacks_views_is_judged_by_the_others():
    metric = MultiViewAccuracy(2, 2, (2, 2))
    rows = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    metric.update(rows, torch.ones(3).long(), torch.ones(3).long(), torch.tensor([0, 1, 3]))
    outcomes = metric.outcomes()
    assert outcomes.seen.tolist() == [[True, True, False, True]]
    groups = {
        group.name: position
        for group, position in zip(outcomes.groups, outcomes.position[0].tolist(), strict=True)
    }
    # 1x1 and 1x2 take the first moment, 2x1 the left place.
    assert groups == {"1x1": 1, "1x2": 1, "2x1": 1, "2x2": 0}
    # The last view makes it whole.
    metric.update(rows[:1], torch.ones(1).long(), torch.ones(1).long(), torch.tensor([2]))
    outcomes = metric.outcomes()
    assert outcomes.seen.all()
    assert outcomes.position[0].tolist()[-1] == 1


def test_a_group_of_which_no_view_came_is_wrong():
    metric = MultiViewAccuracy(1, 2, (1, 3))
    metric.update(
        torch.tensor([[0.1, 0.9]]), torch.tensor([1]), torch.tensor([0]), torch.tensor([2])
    )
    outcomes = metric.outcomes()
    assert [group.name for group in outcomes.groups] == ["1x1", "1x2", "1x3"]
    assert outcomes.position.tolist() == [[2, 0, 0]]


@pytest.mark.parametrize("views", [(2, 1), (4, 1)])  # all views, or two of four
def test_views_of_a_video_on_several_processes_are_an_error(views):
    metrics = [MultiViewAccuracy(1, 2, views) for _ in range(2)]
    probabilities = np.full((1, 4, 2), 0.5)
    for view, metric in enumerate(metrics):
        update(metric, probabilities, np.zeros(1, np.int64), [(0, view)])
    with pytest.raises(RuntimeError, match="several processes"):
        joined(metrics, STATES).outcomes()


def test_reset_forgets():
    metric = one([0.1, 0.9], 1)
    metric.reset()
    assert len(metric.outcomes().video_id) == 0


def test_a_view_that_came_before_is_ignored():
    metric, once = MultiViewAccuracy(1, 2, (2, 1)), MultiViewAccuracy(1, 2, (2, 1))
    first, again, other = torch.tensor([[0.9, 0.1], [0.0, 1.0], [0.4, 0.6]]).unbind()
    zero, one = torch.tensor([0]), torch.tensor([1])
    for probabilities, view in ((first, zero), (again, zero), (other, one)):
        metric.update(probabilities[None], zero, zero, view)
    for probabilities, view in ((first, zero), (other, one)):
        once.update(probabilities[None], zero, zero, view)
    assert metric.compute() == once.compute()
    assert metric.compute()["top1"] == 1
