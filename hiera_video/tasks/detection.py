"""Detection of actions: which actions the person in each box performs at a keyframe."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from hiera_video.metrics.ava import AVAMeanAveragePrecision
from hiera_video.metrics.ava_matching import PROTOCOLS
from hiera_video.metrics.ava_results import AVAResults
from hiera_video.tasks.evaluation import Batch
from hiera_video.tasks.named_classes import NamedClassesTask
from hiera_video.tasks.protocols import ActionData
from hiera_video.weights.trained import Classes


class DetectionTask(NamedClassesTask):
    """Fine-tuning with binary cross entropy of each action; AVA's mAP in validation and test.

    Args:
        model: returns a `HieraActionDetector`; called with ``num_classes``.
        action_ids: the number of each class in AVA's files, saved in checkpoints with its name.
        person_score: in evaluation, multiply the scores of actions by the score of the person, as
            VideoMAE's detection does and PySlowFast does not.
        protocol: how the mAP is computed, "official" or "pyslowfast"; see
            `AVAMeanAveragePrecision`.
        **kwargs: as in `NamedClassesTask`; ``class_names`` are the columns of ``box_labels``.

    Attributes:
        results: `AVAResults` of the last `validate` or `test`; None before.

    Raises:
        ValueError: the augmentation moves pixels in ways that boxes cannot follow.
    """

    # int64, the columns of scores that count in the mAP.
    evaluated: Tensor
    same_shapes = False  # a batch has any number of boxes
    no_classes = "neither the data's label map nor a checkpoint has any"
    named = "the data's label map", "actions"

    def __init__(
        self,
        model,
        *,
        action_ids: Sequence[int] | None = None,
        person_score: bool = False,
        protocol: str = "official",
        **kwargs,
    ) -> None:
        super().__init__(model, **kwargs)
        if self.augment.rand_augment is not None:
            raise ValueError("rand_augment moves pictures but not their boxes; leave it out")
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
        self.action_ids = tuple(action_ids) if action_ids else None
        self.person_score, self.protocol = person_score, protocol

    def setup(self, stage: str) -> None:
        """Check precision and classes, then set up as any task.

        Raises:
            MisconfigurationException: batches in half precision, or classes that do not agree.
        """
        refuse_true_half(str(self.trainer.precision))
        self.agreed_classes()
        super().setup(stage)

    @property
    def datamodule(self) -> ActionData:
        """The trainer's data module, of keyframes."""
        return cast(ActionData, super().datamodule)

    def new_metric(self, split: str) -> AVAMeanAveragePrecision:
        """Of the actions that are evaluated, which may be fewer than the model has."""
        evaluated, names = self.datamodule.evaluated_action_ids, self.agreed_classes()
        assert self.action_ids is not None
        columns = [self.action_ids.index(action_id) for action_id in evaluated]
        self.evaluated = torch.tensor(columns)
        metric = AVAMeanAveragePrecision([names[i] for i in columns], evaluated, self.protocol)
        truth = self.datamodule.ground_truth(split)
        metric.set_ground_truth(truth.video, truth.second, truth.boxes, truth.action, truth.score)
        return metric

    def data_classes(self) -> Classes:
        """The actions of the data's label map, and their ids."""
        return Classes(super().data_classes().names, tuple(self.datamodule.action_ids or ()))

    def take_classes(self, classes: Classes) -> None:
        """Make actions those of the task."""
        self.class_names, self.action_ids = classes

    def same_classes(self, classes: Classes) -> bool:
        """Whether the actions are the same: a classifier's head has other classes."""
        return classes == self.classes()

    def classes(self) -> Classes:
        """The actions and their ids."""
        return Classes(self.class_names or (), self.action_ids or ())

    def evaluation_settings(self) -> dict[str, Any]:
        """The size of pictures, and whether the person's score counts."""
        data = self.datamodule
        return {
            "short_side": data.eval_short_side,
            "pad": data.eval_pad,
            "person_score": self.person_score,
        }

    def forward(self, video: Tensor, boxes: Tensor, box_clip: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of boxes.

        Args:
            video: normalised float ``(B, 3, T, H, W)``.
            boxes: float ``(N, 4)``: x1, y1, x2, y2 in [0, 1] of their clip.
            box_clip: int64 ``(N,)`` in [0, B): the clip of each box.
        """
        return self.model(video, boxes, box_clip)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Draw on the host how clips will be augmented, and move their boxes along."""
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if self.trainer.training:
            boxes, clip = batch["boxes"], batch["box_clip"]
            batch["boxes"] = self.augment.move_boxes(boxes, clip, batch["augment"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Binary cross entropy, averaged over the boxes and actions of the batch."""
        logits = self(self.training_video(batch), batch["boxes"], batch["box_clip"])
        loss = action_loss(logits, batch["box_labels"])
        self.log_mean("train/loss", loss)
        # In the epoch: keyframes that were replaced because their random crop held no box.
        self.log_sum("train/skipped", batch["skipped"].sum().float())
        return loss

    def scores(self, batch: Batch) -> dict[str, Tensor]:
        """Score the actions of the boxes of an evaluation batch.

        Args:
            batch: ``video`` uint8 ``(B, 3, T, H, W)``, of B keyframes, with N boxes in all.

        Returns:
            For each of the N boxes: ``video_id`` and ``second`` int64 ``(N,)``, ``boxes`` float32
            ``(N, 4)`` in the full frame, and ``scores`` float32 ``(N, classes)`` in [0, 1].
        """
        assert self.class_names is not None
        clip = batch["box_clip"]
        if len(batch["video"]):
            logits = self(self.normalize(batch["video"]), batch["boxes"], clip)
            scores = logits.float().sigmoid()
        else:  # no keyframe of the batch could be decoded
            scores = torch.zeros(0, len(self.class_names), device=self.device)
        if self.person_score:
            scores = scores * batch["box_score"][:, None]
        row = {key: batch[key][clip] for key in ("video_id", "second")}
        return row | {"boxes": batch["boxes_original"], "scores": scores}

    def evaluate(self, batch: Batch, split: str) -> dict[str, Tensor]:
        """Add boxes to the mAP; returns what `scores` says, of all actions, for callbacks."""
        rows = self.scores(batch)
        self.evaluated = self.evaluated.to(rows["scores"].device)  # copied once
        scores = rows["scores"][:, self.evaluated]
        self.metric(split).update(rows["boxes"], scores, rows["video_id"], rows["second"])
        # The boxes of keyframes that could not be decoded count as missed.
        self.log_sum(f"{split}/failed_keyframes", float(len(batch["failed"])))
        return rows

    def summarize(self, split: str) -> tuple[dict[str, float], AVAResults]:
        """The mAP over all keyframes that have ground truth, and the AP of each action."""
        results: AVAResults = self.metric(split).results()
        return results.values(), results


def refuse_true_half(precision: str) -> None:
    """Refuse a ``trainer.precision`` that rounds boxes.

    Raises:
        MisconfigurationException: it would turn them into 16-bit numbers.
    """
    if precision in ("16-true", "bf16-true"):
        raise MisconfigurationException(
            f"trainer.precision={precision} would round boxes to a pixel or two; use "
            f"{precision.replace('true', 'mixed')}"
        )


def action_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy.

    Args:
        logits: ``(N, classes)``.
        labels: float ``(N, classes)``, 1 where the box shows the action, else 0.

    Returns:
        float32 scalar. Without boxes it is 0 with gradients of 0, since
        `DistributedDataParallel` expects a gradient for every parameter.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
    return total / max(1, labels.numel())
