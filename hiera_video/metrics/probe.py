"""The quality of frozen features: the accuracy of two simple classifiers that use them.

Both see one feature vector per video, the mean over its views. They learn from the training videos
with their labels and are judged by top-1 accuracy on other videos. All sums are in double precision
and nothing is random, so the same features give the same numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

TEMPERATURE = 0.07  # of the votes, as in Wu et al. 2018 and DINO
_ROWS = 1024  # training videos whose logits are in memory at once
_QUERIES = 128  # test videos compared with all training videos at once
_STEPS = 500  # of L-BFGS at most; it stops earlier where the gradient vanishes


class FeatureProbe(Metric):
    """Top-1 accuracy of a kNN classifier and of a linear one, both on frozen features.

    The state is one row per video, in any order; `compute` sorts them, so the result is the same
    for any split of videos over ranks and batches. Videos without a label are left out. Features
    that are not finite are left out of training and count as wrong in the test.

    Args:
        num_features: length of a feature vector, C.
        num_classes: number of classes.
        k: neighbours that vote in `knn_predict`.
        l2: regularisation in `linear_predict`.

    Raises:
        ValueError: ``k`` or ``l2`` is not positive, or ``k`` is not whole.
    """

    full_state_update = False
    higher_is_better = True
    features: list[Tensor]  # float32 (N, C)
    rows: list[Tensor]  # int64 (N, 3): 1 to train, video, label

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
            features: float ``(B, C)``, one row per view; B may be 0.
            label: int64 ``(B,)``; -1: unknown.
            video_id: int64 ``(B,)``; the rows of a video are averaged.
            train: whether to train on these videos or to test with them.
        """
        videos, row, views = video_id.unique(return_inverse=True, return_counts=True)
        total = features.new_zeros(len(videos), self.num_features, dtype=torch.float32)
        total.index_add_(0, row, features.float())
        labels = torch.zeros_like(videos).scatter(0, row, label)
        self.features.append(total / views[:, None])
        self.rows.append(torch.stack([torch.full_like(videos, train), videos, labels], dim=1))

    def count_as_wrong(self, video_id: int, label: int) -> None:
        """Add a test video that could not be decoded; ``label`` is -1 if unknown."""
        nothing = torch.full((1, self.num_features), torch.nan, device=self.device)
        ids = torch.tensor([[label], [video_id]], device=self.device)
        self.update(nothing, *ids, train=False)

    def compute(self) -> dict[str, Tensor]:
        """``knn_top1`` and ``linear_top1`` in [0, 1], float64 scalars; NaN without videos."""
        nothing = torch.full((), torch.nan, dtype=torch.float64, device=self.device)
        nan = {"knn_top1": nothing, "linear_top1": nothing}
        if isinstance(self.rows, list) and not self.rows:
            return nan
        features, rows = _joined(self.features), _joined(self.rows)
        order = rows[:, 1].argsort(stable=True)  # the same for all splits over ranks and batches
        features, (to_train, _, label) = features[order], rows[order].unbind(1)
        finite = features.isfinite().all(dim=1)
        train = (to_train == 1) & (label >= 0) & finite
        test = (to_train == 0) & (label >= 0)
        if not train.any():
            return nan
        queries = features[test].nan_to_num(0.0, 0.0, 0.0).double()
        samples = (features[train].double(), label[train], queries)
        predicted = {
            "knn_top1": knn_predict(*samples, self.num_classes, self.k),
            "linear_top1": linear_predict(*samples, self.num_classes, self.l2),
        }
        return {
            name: ((classes == label[test]) & finite[test]).double().mean()
            for name, classes in predicted.items()
        }


def knn_predict(train: Tensor, label: Tensor, test: Tensor, classes: int, k: int) -> Tensor:
    """Predict classes by the votes of the nearest training videos.

    The protocol of Wu et al. 2018 (arXiv:1805.01978) and DINO (arXiv:2104.14294): features are
    normalised to length 1, and the k training videos with the greatest cosine similarity vote for
    their class, with weight ``exp(similarity / 0.07)``.

    Args:
        train: features of the training videos, float ``(N, C)``.
        label: their classes, int64 ``(N,)`` in [0, classes).
        test: features of the test videos, float ``(M, C)``.
        classes: number of classes.
        k: number of neighbours; all N if it is larger.

    Returns:
        Predicted classes, int64 ``(M,)``.
    """
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    predicted = [label.new_zeros(0)]
    for part in test.split(_QUERIES):
        near = (part @ train.T).topk(min(k, len(train)), dim=1)  # (rows, k)
        votes = part.new_zeros(len(part), classes)
        votes.scatter_add_(1, label[near.indices], (near.values / TEMPERATURE).exp())
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


def linear_predict(train: Tensor, label: Tensor, test: Tensor, classes: int, l2: float) -> Tensor:
    """Predict classes by multinomial logistic regression.

    Each feature is scaled to mean 0 and variance 1 with the statistics of the training videos.
    L-BFGS, starting from zero, finds the only minimum of ``mean cross entropy + l2 / 2 * sum of
    squared weights``, without the biases. Nothing is augmented, and no setting is tuned on labels.

    Args:
        train: features of the training videos, float ``(N, C)``.
        label: their classes, int64 ``(N,)`` in [0, classes).
        test: features of the test videos, float ``(M, C)``.
        classes: number of classes.
        l2: factor on the squared weights, positive.

    Returns:
        Predicted classes, int64 ``(M,)``.
    """
    weight, bias, mean, std = fit_linear(train, label, classes, l2)
    return ((test - mean) / std @ weight.T + bias).argmax(dim=1)


def fit_linear(
    train: Tensor, label: Tensor, classes: int, l2: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the minimum that `linear_predict` uses; its arguments.

    Returns:
        Weight ``(classes, C)`` and bias ``(classes,)`` for scaled features; mean and standard
        deviation ``(C,)`` of the training features, by which they are scaled.
    """
    # Lightning evaluates in inference mode, where nothing can be differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        label = label.clone()
        mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
        std = torch.where(std > 0, std, 1.0)  # for a feature that is constant
        weight = mean.new_zeros(classes, train.shape[1], requires_grad=True)
        bias = mean.new_zeros(classes, requires_grad=True)
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
            total = l2 / 2 * weight.square().sum()
            total.backward()
            for rows, labels in zip(train.split(_ROWS), label.split(_ROWS), strict=True):
                scores = F.linear((rows - mean) / std, weight, bias)
                part = F.cross_entropy(scores, labels, reduction="sum") / len(label)
                part.backward()
                total = total.detach() + part.detach()
            return total

        optimizer.step(loss)
    return weight.detach(), bias.detach(), mean, std


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """Join a list state, which is a tensor already once it has been gathered over ranks."""
    return parts if isinstance(parts, Tensor) else torch.cat(parts)
