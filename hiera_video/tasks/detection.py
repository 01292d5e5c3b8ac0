"""Detection of actions: which of them each box shows at its keyframe."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from hiera_video.metrics.ava import AVAMeanAveragePrecision
from hiera_video.metrics.ava_results import AVAResults
from hiera_video.tasks.base import Batch, VideoTask


class DetectionTask(VideoTask):
    """Fine-tuning with binary cross entropy of each action; mAP of AVA in validation and test.

    Args:
        model: factory of a `HieraActionDetector`; called with ``num_classes``.
        class_names: actions in the order of the columns of ``box_labels``; None: those of the data
            module. They are saved in checkpoints with their ids, so that a prediction has both.
        action_ids: of the same, as AVA's files number them.
        person_score: multiply the scores of actions by that of the person in evaluation, as
            VideoMAE's detection does; PySlowFast does not.
        protocol: of the mAP: "official" or "pyslowfast", see `AVAMeanAveragePrecision`.
        **kwargs: as in `VideoTask`.

    Attributes:
        results: of the last `validate` or `test`; None before.
    """

    evaluated: Tensor  # columns of scores

    def __init__(
        self,
        model,
        *,
        class_names: Sequence[str] | None = None,
        action_ids: Sequence[int] | None = None,
        person_score: bool = False,
        protocol: str = "official",
        **kwargs,
    ) -> None:
        super().__init__(model, **kwargs)
        if self.augment.rand_augment is not None:
            raise ValueError("rand_augment moves pictures but not their boxes; leave it out")
        self.class_names = tuple(class_names) if class_names else None
        self.action_ids = tuple(action_ids) if action_ids else None
        self.person_score, self.protocol = person_score, protocol
        self.results: AVAResults | None = None

    def setup(self, stage: str) -> None:
        """Check precision and classes; make the metrics.

        Raises:
            MisconfigurationException: batches in half precision, or classes that do not agree.
        """
        super().setup(stage)
        refuse_true_half(str(self.trainer.precision))
        self._agreed_classes()
        splits = {"fit": ["val"], "validate": ["val"], "test": ["test"]}.get(stage, [])
        self.metrics = nn.ModuleDict({f"{s}_map": self._metric(s) for s in splits if self._has(s)})

    def _has(self, split: str) -> bool:
        return self.datamodule.splits[split] is not None

    def _metric(self, split: str) -> AVAMeanAveragePrecision:
        """The mAP of the evaluated actions, which may be fewer than the model has."""
        evaluated, names = self.datamodule.evaluated_action_ids, self._agreed_classes()
        assert self.action_ids is not None
        columns = [self.action_ids.index(action_id) for action_id in evaluated]
        self.register_buffer("evaluated", torch.tensor(columns), persistent=False)
        metric = AVAMeanAveragePrecision([names[i] for i in columns], evaluated, self.protocol)
        truth = self.datamodule.ground_truth(split)
        metric.set_ground_truth(truth.video, truth.second, truth.boxes, truth.action, truth.score)
        return metric

    def _agreed_classes(self) -> tuple[str, ...]:
        """Take the classes from the data, or check that they agree."""
        names, ids = tuple(self.datamodule.class_names or ()), self.datamodule.action_ids
        if self.class_names is None:
            self.class_names, self.action_ids = names, tuple(ids or ())
        if not self.class_names:
            raise MisconfigurationException(
                "no class names: neither the data's label map nor a checkpoint has any"
            )
        if names and (names, tuple(ids)) != (self.class_names, self.action_ids):
            raise MisconfigurationException(
                f"the data's label map has {len(names)} actions ({names[0]}, ...), the model "
                f"{len(self.class_names)} ({self.class_names[0]}, ...) in another order or number"
            )
        return self.class_names

    def same_classes(self, said: Mapping[str, Any]) -> bool:
        """Those of the same actions: a classifier's head is of other things."""
        keys = ("class_names", "action_ids")
        return tuple(tuple(said.get(k) or ()) for k in keys) == (self.class_names, self.action_ids)

    def network(self) -> nn.Module:
        """A network with one logit for each action."""
        # Not in `setup`: an average of weights is begun before that.
        return self.create_network(num_classes=len(self._agreed_classes()))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the actions."""
        checkpoint["class_names"] = list(self.class_names or ())
        checkpoint["action_ids"] = list(self.action_ids or ())

    def forward(self, video: Tensor, boxes: Tensor, box_clip: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of boxes in normalised float clips; see `HieraActionDetector`."""
        return self.model(video, boxes, box_clip)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Decide on the host how clips will be augmented, and move their boxes along."""
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if self.trainer.training:
            boxes, clip = batch["boxes"], batch["box_clip"]
            batch["boxes"] = self.augment.move_boxes(boxes, clip, batch["augment"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Binary cross entropy, its mean over the boxes and actions of the batch."""
        logits = self(self.training_video(batch), batch["boxes"], batch["box_clip"])
        loss = action_loss(logits, batch["box_labels"])
        self.log("train/loss", loss, batch_size=len(batch["seed"]))
        # Of the epoch: keyframes whose random crop held no box, and that others took the place of.
        self._log_sum("train/skipped", batch["skipped"].sum().float())
        return loss

    def scores(self, batch: Batch) -> dict[str, Tensor]:
        """What an evaluation batch says of its boxes.

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

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Collect the boxes of validation keyframes."""
        return self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log the mAP over all validation keyframes that have ground truth."""
        self._log_map("val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Collect the boxes of test keyframes, and hand them to callbacks."""
        return self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Log the mAP over all test keyframes that have ground truth."""
        self._log_map("test")

    def _evaluate(self, batch: Batch, split: str) -> dict[str, Tensor]:
        rows = self.scores(batch)
        metric: Any = self.metrics[f"{split}_map"]
        scores = rows["scores"][:, self.evaluated]
        metric.update(rows["boxes"], scores, rows["video_id"], rows["second"])
        # Keyframes that could not be decoded: their boxes are missed.
        failed = float(len(batch["failed"]))
        self._log_sum(f"{split}/failed_keyframes", failed)
        return rows

    def _log_sum(self, name: str, count: Tensor | float) -> None:
        """Log what the batches of an epoch and all processes add up to."""
        self.log(name, count, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True)

    def _log_map(self, split: str) -> None:
        metric: Any = self.metrics[f"{split}_map"]
        results: AVAResults = metric.results()
        for name, value in results.values().items():
            # The same on all ranks already; sync_dist keeps Lightning from warning.
            self.log(f"{split}/{name}", torch.tensor(value, dtype=torch.float32), sync_dist=True)
        if self.trainer.state.fn != "fit":
            self.results = results
        metric.reset()


def refuse_true_half(precision: str) -> None:
    """See that boxes stay float32.

    Raises:
        MisconfigurationException: with this ``trainer.precision`` they would not.
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
        labels: float ``(N, classes)``, 1 where the box shows the action.

    Returns:
        float32 scalar. Of no boxes it is 0, and so are its gradients: all parameters have one, as
        `DistributedDataParallel` wants it.
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum")
    return total / max(1, labels.numel())
