import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.metrics.multi_view import MultiViewAccuracy


def brute_force(probabilities, labels, k):
    right = 0
    for views, label in zip(probabilities, labels, strict=True):
        mean = views.astype(np.float64).sum(0)
        right += label in np.argsort(-mean, kind="stable")[:k]
    return right / len(labels)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12), st.integers(1, 5), st.integers(5, 9), st.integers(1, 4), st.integers(0, 99)
)
def test_equals_brute_force_for_any_split_over_ranks(videos, views, classes, ranks, seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), (videos, views)).astype(np.float32)
    labels = rng.integers(0, classes, videos)
    rows = rng.permutation([(v, w) for v in range(videos) for w in range(views)])
    metrics = [MultiViewAccuracy(videos, classes) for _ in range(ranks)]
    for metric, part in zip(metrics, np.array_split(rows, ranks), strict=True):
        if len(part):
            video, view = part.T
            metric.update(
                torch.from_numpy(probabilities[video, view]),
                torch.from_numpy(labels[video]),
                torch.from_numpy(video),
            )
    joined = MultiViewAccuracy(videos, classes)
    joined.total = sum(m.total for m in metrics)
    joined.views = sum(m.views for m in metrics)
    joined.label = torch.stack([m.label for m in metrics]).amax(0)
    joined._update_count = 1
    found = joined.compute()
    assert found["top1"].item() == pytest.approx(brute_force(probabilities, labels, 1))
    assert found["top5"].item() == pytest.approx(brute_force(probabilities, labels, 5))


def test_reductions_are_those_of_the_split_above():
    metric = MultiViewAccuracy(3, 8)
    names = {key: function.__name__ for key, function in metric._reductions.items()}
    assert names == {"total": "dim_zero_sum", "views": "dim_zero_sum", "label": "dim_zero_max"}


def one(probabilities, label):
    metric = MultiViewAccuracy(5, len(probabilities))
    metric.update(torch.tensor([probabilities]), torch.tensor([label]), torch.tensor([2]))
    return metric.compute()


def test_videos_not_seen_are_left_out():
    assert one([0.1, 0.9], 1) == {"top1": 1.0}


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [([0.5, 0.5], 0), ([0.5, 0.5], 1), ([torch.nan, torch.nan], 0)],
)
def test_ties_and_nan_are_wrong(probabilities, label):
    assert one(probabilities, label)["top1"] == 0


def test_videos_without_a_label_do_not_count():
    metric = MultiViewAccuracy(3, 2)
    metric.update(torch.tensor([[0.9, 0.1], [0.9, 0.1]]), torch.tensor([0, -1]), torch.arange(2))
    metric.count_as_wrong(2, -1)
    assert metric.compute()["top1"] == 1


def test_a_video_that_was_not_decoded_is_wrong():
    metric = MultiViewAccuracy(4, 5)
    metric.update(torch.eye(5)[:3], torch.arange(3), torch.arange(3))
    assert metric.compute()["top1"] == 1
    metric.count_as_wrong(3, 0)
    assert metric.compute()["top1"] == 0.75
    assert metric.compute()["top5"] == 0.75
