"""How good frozen features are: classify with them and train nothing but the least that can.

Both probes see one feature vector a video, the mean over its views, and the labels of the training
videos; they are judged by top-1 on other videos. All sums are in double precision, and nothing is
random, so the same features give the same numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

TEMPERATURE = 0.07  # of votes: Wu et al. 2018, DINO
_ROWS = 1024  # videos compared with all training videos at once
_STEPS = 500  # of L-BFGS at most; it stops where the gradient vanishes


class FeatureProbe(Metric):
    """Top-1 of a kNN classifier and of a linear one, both on frozen features.

    The state is a row a video, in whatever order; `compute` sorts them, so the result is the same
    for any split of videos over ranks and batches. Training videos without a label are left out,
    test videos without one are not counted. Features that are not finite are left out of training
    and are wrong in the test.

    Args:
        num_features: C, numbers of a feature vector.
        num_classes: classes.
        k: neighbours that vote in `knn_predict`.
        l2: regularisation in `linear_predict`.
    """

    full_state_update = False
    higher_is_better = True
    features: list[Tensor]  # float32 (N, C)
    rows: list[Tensor]  # int64 (N, 3): whether to train, video, label

    def __init__(self, num_features: int, num_classes: int, k: int = 20, l2: float = 1e-3) -> None:
        super().__init__()
        if k < 1 or k != int(k):
            raise ValueError(f"k must be a positive whole number, not {k}")
        if l2 <= 0:
            raise ValueError(f"l2 must be positive, not {l2}")
        self.num_features, self.num_classes, self.k, self.l2 = num_features, num_classes, k, l2
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, label: Tensor, video_id: Tensor, train: bool) -> None:
        """Add videos, each with all its views.

        Args:
            features: float ``(B, C)``, one row a view; B may be 0.
            label: int64 ``(B,)``; -1 = unknown.
            video_id: int64 ``(B,)``; rows of one video are averaged.
            train: they are to train on, not to judge by.
        """
        videos, row, views = video_id.unique(return_inverse=True, return_counts=True)
        total = features.new_zeros(len(videos), self.num_features, dtype=torch.float32)
        total.index_add_(0, row, features.float())
        labels = torch.zeros_like(videos).scatter(0, row, label)
        self.features.append(total / views[:, None])
        self.rows.append(torch.stack([torch.full_like(videos, train), videos, labels], dim=1))

    def count_as_wrong(self, video_id: int, label: int) -> None:
        """Add a test video that has no views because it could not be decoded."""
        nothing = torch.full((1, self.num_features), torch.nan, device=self.device)
        ids = torch.tensor([[label], [video_id]], device=self.device)
        self.update(nothing, *ids, train=False)

    def compute(self) -> dict[str, Tensor]:
        """``knn_top1`` and ``linear_top1``, as shares in [0, 1]; NaN where there is no video."""
        features, rows = _joined(self.features).double(), _joined(self.rows)
        order = rows[:, 1].argsort(stable=True)  # of ranks and batches nothing is left
        features, (to_train, _, label) = features[order], rows[order].unbind(1)
        finite = features.isfinite().all(dim=1)
        train = (to_train == 1) & (label >= 0) & finite
        test = (to_train == 0) & (label >= 0)
        if not train.any():
            nothing = torch.full((), torch.nan, device=features.device)
            return {"knn_top1": nothing, "linear_top1": nothing}
        known, classes = (features[train], label[train]), self.num_classes
        asked = features[test].nan_to_num(0.0, 0.0, 0.0)
        found = {
            "knn_top1": knn_predict(*known, asked, classes, self.k),
            "linear_top1": linear_predict(*known, asked, classes, self.l2),
        }
        right = finite[test]
        return {k: ((v == label[test]) & right).double().mean() for k, v in found.items()}


def knn_predict(train: Tensor, label: Tensor, asked: Tensor, classes: int, k: int) -> Tensor:
    """Classes by the votes of the nearest training videos.

    The protocol of Wu et al. 2018 (arXiv:1805.01978) and DINO (arXiv:2104.14294): features are
    normalised to length 1, the k with the greatest cosine similarity vote for their class, with
    weight ``exp(similarity / 0.07)``.

    Args:
        train: ``(N, C)``.
        label: int64 ``(N,)``.
        asked: ``(M, C)``.
        classes: number of them.
        k: neighbours, at most N of them.

    Returns:
        int64 ``(M,)``.
    """
    train, asked = F.normalize(train, dim=1), F.normalize(asked, dim=1)
    found = [label.new_zeros(0)]
    for part in asked.split(_ROWS):
        near = (part @ train.T).topk(min(k, len(train)), dim=1)  # (rows, k)
        votes = part.new_zeros(len(part), classes)
        votes.scatter_add_(1, label[near.indices], (near.values / TEMPERATURE).exp())
        found.append(votes.argmax(dim=1))
    return torch.cat(found)


def linear_predict(train: Tensor, label: Tensor, asked: Tensor, classes: int, l2: float) -> Tensor:
    """Classes by multinomial logistic regression.

    Each feature is brought to mean 0 and variance 1 with the statistics of the training videos. Of
    ``mean cross entropy + l2 / 2 * sum of squared weights`` (biases are free) the one minimum is
    found by L-BFGS from zero. Nothing is augmented and no setting is chosen by looking at labels.

    Args:
        train: ``(N, C)``.
        label: int64 ``(N,)``.
        asked: ``(M, C)``.
        classes: number of them.
        l2: the above, positive.

    Returns:
        int64 ``(M,)``.
    """
    weight, bias, mean, std = fit_linear(train, label, classes, l2)
    return ((asked - mean) / std @ weight.T + bias).argmax(dim=1)


def fit_linear(
    train: Tensor, label: Tensor, classes: int, l2: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The minimum of `linear_predict`: weight ``(classes, C)``, bias, and mean and std ``(C,)``."""
    # Lightning evaluates in inference mode, where nothing can be differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        train, label = train.clone(), label.clone()
        mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
        std = torch.where(std > 0, std, 1.0)  # of a feature that is always the same
        x = (train - mean) / std
        weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
        bias = x.new_zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=_STEPS,
            history_size=20,
            tolerance_grad=1e-6,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(F.linear(x, weight, bias), label)
            value = value + l2 / 2 * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    return weight.detach(), bias.detach(), mean, std


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """A list state, which is one tensor once it has been gathered over ranks."""
    return parts if isinstance(parts, Tensor) else torch.cat(parts)
