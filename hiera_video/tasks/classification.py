"""Classification of videos, evaluated over several views of each."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from hiera_video.augment.mixing import Mixing, soft_targets
from hiera_video.metrics.multi_view import MultiViewAccuracy
from hiera_video.metrics.results import Results
from hiera_video.models.complexity import training_flops
from hiera_video.models.network_input import network_input
from hiera_video.tasks.evaluation import Batch
from hiera_video.tasks.named_classes import NamedClassesTask
from hiera_video.weights.trained import Classes

log = logging.getLogger(__name__)


class ClassificationTask(NamedClassesTask):
    """Fine-tuning with cross entropy; validation and test average probabilities over views.

    Args:
        model: returns a `Hiera`; called with ``num_classes``.
        label_smoothing: share of a target that is spread over all classes, in [0, 1].
        mixing: mixup and CutMix of training batches; None: neither.
        **kwargs: as in `NamedClassesTask`.

    Attributes:
        results: `Results` of the last `validate` or `test`; None before.
    """

    needs_labels = True
    no_classes = (
        "neither the data nor a checkpoint has any; put the videos into a folder for each class, "
        "list them with their labels, or set task.class_names"
    )

    def __init__(
        self,
        model,
        *,
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        **kwargs,
    ) -> None:
        super().__init__(model, **kwargs)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be in [0, 1], not {label_smoothing}")
        self.label_smoothing, self.mixing = label_smoothing, mixing

    def setup(self, stage: str) -> None:
        """Check the labels, then set up as any task.

        Raises:
            MisconfigurationException: labels are missing, the classes of data and model differ, or
                there is nothing to mix a video with.
        """
        datamodule = self.datamodule
        if stage == "fit" and self.mixing is not None and datamodule.batch_size < 2:
            raise MisconfigurationException(
                "mixing needs other videos in a batch: set data.batch_size=2, or task.mixing=null"
            )
        self.agreed_classes()
        for split, manifest in datamodule.manifests.items():
            _check_labels(split, manifest.table["label"].to_numpy())
        super().setup(stage)

    def new_metric(self, split: str) -> MultiViewAccuracy:
        """Accuracy over all views of the videos of a split."""
        datamodule = self.datamodule
        videos, classes = len(datamodule.manifests[split]), len(self.agreed_classes())
        return MultiViewAccuracy(videos, classes, datamodule.views(split))

    def same_classes(self, classes: Classes) -> bool:
        """Whether the names are the same, or missing, as they are with published weights."""
        return classes.names in ((), self.class_names)

    def training_flops(self, shape: Sequence[int]) -> int:
        """Operations of the network for one clip, forward and backward."""

        def logits(network: nn.Module, clip: Tensor) -> Tensor:
            return network(network_input(network, clip)).sum()

        return training_flops(self.network, logits, shape)

    def forward(self, video: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of normalised float clips ``(B, 3, T, H, W)``."""
        return self.model(network_input(self.model, video))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Draw on the host how clips will be augmented and mixed."""
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if self.trainer.training and self.mixing is not None:
            height, width = batch["video"].shape[-2:]
            batch["mixing"] = self.mixing.draw(batch["seed"], (height, width))
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy with the soft targets of augmented and mixed clips.

        The logged ``train/top1`` counts a mixed clip as the class that has most of its target.
        """
        assert self.class_names is not None
        video, label = self.training_video(batch), batch["label"]
        target = soft_targets(label, len(self.class_names), self.label_smoothing)
        if self.mixing is not None:
            video, target = self.mixing(video, target, batch["mixing"])
        logits = self(video)
        loss = F.cross_entropy(logits.float(), target)
        correct = logits.argmax(1) == target.argmax(1)
        self.log_mean("train/loss", loss)
        self.log_mean("train/top1", correct.float().mean())
        return loss

    def probabilities(self, batch: Batch) -> dict[str, Tensor]:
        """Classify the views of an evaluation batch.

        Args:
            batch: ``video`` uint8 ``(B, 3, T, H, W)``, of B views, and what identifies them.

        Returns:
            ``probabilities`` float32 ``(B, classes)`` in [0, 1]; ``video_id``, ``view`` and
            ``label``, int64 ``(B,)``.
        """
        assert self.class_names is not None
        if len(batch["video"]):
            probabilities = self(self.normalize(batch["video"])).float().softmax(dim=1)
        else:  # no video of the batch could be decoded
            probabilities = torch.zeros(0, len(self.class_names), device=self.device)
        row = {key: batch[key] for key in ("video_id", "view", "label")}
        return row | {"probabilities": probabilities}

    def evaluate(self, batch: Batch, split: str) -> dict[str, Tensor]:
        """Add views to the accuracy; returns what `probabilities` says, for callbacks."""
        rows, metric = self.probabilities(batch), self.metric(split)
        metric.update(rows["probabilities"], rows["label"], rows["video_id"], rows["view"])
        for failure in batch["failed"]:
            metric.count_as_wrong(failure.video_id, failure.label)
        return rows

    def summarize(self, split: str) -> tuple[dict[str, float], Results]:
        """Accuracies over the videos seen, and what came out for each of them."""
        outcomes = self.metric(split).outcomes()
        manifest = self.datamodule.manifests[split]
        paths = [manifest.path(i) for i in outcomes.video_id.tolist()]
        return outcomes.values(), Results(outcomes, self.class_names or (), paths)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """`probabilities` of videos without labels."""
        return self.probabilities(batch)


def _check_labels(split: str, labels: np.ndarray) -> None:
    """See that training has all labels and evaluation some: int64 ``(videos,)``, -1 if unknown.

    Raises:
        MisconfigurationException: labels are missing.
    """
    unknown = int((labels < 0).sum())
    if split == "predict" or not unknown:
        return
    message = f"data.{split}: {unknown} of {len(labels)} videos have no label"
    if split != "train" and unknown < len(labels):
        rank_zero_only(log.warning)(f"{message}: not counted")
        return
    raise MisconfigurationException(message)
