import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.metrics.probe import FeatureProbe, fit_linear, knn_predict, linear_predict
from tests.allocations import most_allocated
from tests.metrics.processes import joined


def clouds(videos, seed, classes=4, width=6, spread=2.0):
    """Features around one centre a class, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, videos)
    centres = np.random.default_rng(0).normal(size=(classes, width))
    features = centres[labels] + spread * rng.normal(size=(videos, width))
    return torch.from_numpy(features), torch.from_numpy(labels)


def knn_by_brute_force(train, label, asked, classes, k):
    predicted = []
    for x in asked:
        cosines = [float(x @ t / np.linalg.norm(x) / np.linalg.norm(t)) for t in train]
        votes = np.zeros(classes)
        for i in sorted(range(len(train)), key=lambda i: -cosines[i])[:k]:
            votes[label[i]] += np.exp(cosines[i] / 0.07)
        predicted.append(votes.argmax())
    return predicted


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 25), st.integers(0, 99))
def test_knn_equals_brute_force(videos, k, seed):
    train, label = clouds(videos, seed)
    asked, _ = clouds(7, seed + 1)
    predicted = knn_predict(train, label, asked, 4, k)
    expected = knn_by_brute_force(train.numpy(), label.numpy(), asked.numpy(), 4, k)
    assert predicted.tolist() == expected


@pytest.mark.parametrize(("videos", "l2"), [(60, 1e-4), (60, 1e-2), (60, 1.0), (2500, 1e-2)])
def test_the_linear_probe_is_the_minimum(videos, l2):
    """Where the gradient, written out, is zero; the function is convex."""
    train, label = clouds(videos, 3)
    train[:, 0] = 100 + 20 * train[:, 0]
    train[:, 1] = 7.0  # says nothing
    weight, bias, mean, std = (x.numpy() for x in fit_linear(train, label, 4, l2))
    x = (train.numpy() - train.numpy().mean(0)) / np.where(std > 0, std, 1)
    np.testing.assert_allclose(std[[0, 2]], train.numpy().std(0)[[0, 2]])
    scores = x @ weight.T + bias
    p = np.exp(scores - scores.max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True) - np.eye(4)[label]
    assert np.abs(p.T @ x / videos + l2 * weight).max() < 1e-6
    assert np.abs(p.mean(0)).max() < 1e-6
    asked, _ = clouds(9, 4)
    expected = ((asked.numpy() - mean) / std @ weight.T + bias).argmax(1)
    assert linear_predict(train, label, asked, 4, l2).tolist() == expected.tolist()


def test_logits_of_all_training_videos_are_never_in_memory_at_once(tmp_path):
    videos, width, classes = 20_000, 16, 100
    probe = FeatureProbe(width, classes, l2=10.0)
    fill(probe, *clouds(videos, 0, classes, width), True)
    fill(probe, *clouds(200, 1, classes, width), False)
    features, similarities, part = videos * width, 128 * videos, 1024 * classes
    peak = most_allocated(probe.compute, tmp_path)
    assert peak < 8 * (3 * features + similarities + 4 * part)


def fill(probe, features, labels, train, videos=None):
    ids = torch.arange(len(labels)) if videos is None else videos
    probe.update(features, labels, ids, train)


@settings(max_examples=15)
@given(st.integers(5, 40), st.integers(3, 12), st.integers(1, 4), st.integers(0, 99))
def test_the_same_for_any_split_over_ranks_and_batches(train, test, ranks, seed):
    splits = [(*clouds(train, seed), True), (*clouds(test, seed + 1), False)]
    rng = np.random.default_rng(seed)
    probes = [FeatureProbe(6, 4, k=5, l2=0.1) for _ in range(ranks)]
    whole = FeatureProbe(6, 4, k=5, l2=0.1)
    for features, labels, to_train in splits:
        fill(whole, features, labels, to_train)
        owner = rng.integers(0, ranks, len(labels))  # some may have none
        for rank, probe in enumerate(probes):
            mine = torch.from_numpy(rng.permutation(np.flatnonzero(owner == rank)))
            for batch in [*mine.split(3), mine[:0]]:
                fill(probe, features[batch], labels[batch], to_train, batch)
    assert joined(probes, ["features", "rows"]).compute() == whole.compute()


def test_views_are_averaged():
    features, labels = clouds(40, 0)
    noise = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    asked, wanted = clouds(20, 1)
    one, views = FeatureProbe(6, 4), FeatureProbe(6, 4)
    for probe in (one, views):
        fill(probe, asked, wanted, False)
    fill(one, features, labels, True)
    rows = torch.arange(40).repeat_interleave(2)
    both = torch.stack([features + noise, features - noise], dim=1).flatten(0, 1)
    fill(views, both, labels[rows], True, rows)
    torch.testing.assert_close(torch.cat(views.features), torch.cat(one.features))
    assert len(views.rows[-1]) == 40


def test_what_is_left_out_and_what_is_wrong():
    probe = FeatureProbe(2, 2, k=1)
    features, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    fill(probe, features, labels, True)
    fill(probe, features, labels, False)
    assert probe.compute() == {"knn_top1": 1, "linear_top1": 1}
    fill(probe, -features, torch.tensor([-1, -1]), True, torch.tensor([2, 3]))
    fill(probe, features.flip(1), torch.tensor([-1, -1]), False, torch.tensor([2, 3]))
    fill(probe, torch.full((1, 2), torch.inf), torch.tensor([1]), True, torch.tensor([4]))
    assert probe.compute() == {"knn_top1": 1, "linear_top1": 1}
    probe.count_as_wrong(5, 0)
    probe.count_as_wrong(6, -1)
    assert {k: round(v.item(), 6) for k, v in probe.compute().items()} == {
        "knn_top1": 0.666667,
        "linear_top1": 0.666667,
    }
    probe.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert all(value.isnan() for value in probe.compute().values())
    probe.reset()
    fill(probe, features, labels, False)
    assert all(value.isnan() for value in probe.compute().values())


def test_it_works_where_nothing_is_differentiated():
    probe = FeatureProbe(6, 4)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        fill(probe, *clouds(50, 0, spread=0.1), True)
        fill(probe, *clouds(20, 1, spread=0.1), False)
        assert probe.compute() == {"knn_top1": 1, "linear_top1": 1}


def test_wrong_arguments():
    with pytest.raises(ValueError, match="k must be a positive whole number, not 0"):
        FeatureProbe(2, 2, k=0)
    with pytest.raises(ValueError, match="l2 must be positive, not -1"):
        FeatureProbe(2, 2, l2=-1)
