"""Instance segmentation: boxes, classes and masks of objects in pictures."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from hiera_video.metrics.coco import CocoAveragePrecision, DetectedMask
from hiera_video.metrics.coco_results import CocoResults
from hiera_video.models.mask_rcnn import Instances, paste_mask
from hiera_video.tasks.base import VideoTask
from hiera_video.tasks.detection import refuse_true_half
from hiera_video.tasks.evaluation import Batch
from hiera_video.tasks.optimization import schedule_length, stepwise_scheduler
from hiera_video.tasks.protocols import ObjectData, object_data_of
from hiera_video.weights.trained import Classes


class InstanceSegmentationTask(VideoTask):
    """Training of a `MaskRCNNHiera` with its five losses; COCO's AP in validation and test.

    The learning rate falls in steps, as in ViTDet (Li et al., 2022), not as a cosine.

    Args:
        model: returns a `MaskRCNNHiera`; called with ``num_classes``.
        class_names: classes in the order of the labels; None: those of the data module.
        milestones: shares of the training, ascending in (0, 1), after which the learning rate is
            multiplied by `gamma`.
        gamma: factor at a milestone.
        **kwargs: as in `VideoTask`; ``min_lr`` means nothing here.

    Attributes:
        results: `CocoResults` of the last `validate` or `test`; None before.

    Raises:
        ValueError: the milestones are wrong, or the augmentation changes pictures without masks.
    """

    same_shapes = False  # a batch has any number of objects

    def __init__(
        self,
        model,
        *,
        class_names: Sequence[str] | None = None,
        milestones: Sequence[float] = (8 / 9, 26 / 27),
        gamma: float = 0.1,
        **kwargs,
    ) -> None:
        super().__init__(model, **kwargs)
        if list(milestones) != sorted(milestones) or any(not 0 < m < 1 for m in milestones):
            raise ValueError(f"milestones must ascend within (0, 1), not {list(milestones)}")
        moves = ("horizontal_flip", "rand_augment", "erasing")
        if used := [name for name in moves if getattr(self.augment, name)]:
            raise ValueError(
                f"{used[0]} changes pictures but not their masks; the data mirrors and scales them"
            )
        self.class_names = tuple(class_names) if class_names else None
        self.milestones, self.gamma = tuple(milestones), gamma

    @property
    def datamodule(self) -> ObjectData:
        """The trainer's data module, of pictures with objects."""
        return object_data_of(self.trainer)

    def setup(self, stage: str) -> None:
        """Check precision and classes, then set up as any task.

        Raises:
            MisconfigurationException: batches in half precision, classes that do not agree, or a
                callback that waits for an AP of masks where not all objects have one.
        """
        refuse_true_half(str(self.trainer.precision))
        self._agreed_classes()
        super().setup(stage)
        if stage == "fit" and self.trainer.enable_validation and "val" in self.metrics:
            self._check_monitors()

    def network(self) -> nn.Module:
        """A network for the data's classes."""
        return self.create_network(num_classes=len(self._agreed_classes()))

    def classes(self) -> Classes:
        """The classes and their ids in COCO's files."""
        return Classes(self.class_names or (), tuple(self.datamodule.category_ids))

    def same_classes(self, classes: Classes) -> bool:
        """Whether the classes of other weights are the same."""
        return classes.names == self.class_names

    def evaluation_settings(self) -> dict[str, Any]:
        """The size that pictures are scaled and padded to."""
        return {"pad": [self.datamodule.clip.height, self.datamodule.clip.width]}

    def new_metric(self, split: str) -> CocoAveragePrecision:
        """Of all pictures of the split's annotation, also those that are missing."""
        metric = CocoAveragePrecision(self.datamodule.category_ids)
        metric.set_ground_truth(self.datamodule.ground_truth(split))
        return metric

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Read sizes and counts on the host, so that no step waits for the device."""
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        batch["sizes"] = [tuple(size) for size in batch["picture_size"].tolist()]
        if "box_clip" in batch:
            pictures = len(batch["video"])
            batch["counts"] = torch.bincount(batch["box_clip"], minlength=pictures).tolist()
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the losses of proposals, boxes, classes and masks."""
        images = self.training_video(batch)[:, :, 0]  # (B, 3, H, W)
        losses = self.model(images, batch["sizes"], targets_of(batch))
        loss = torch.stack(list(losses.values())).sum()
        self.log_mean("train/loss", loss)
        for name, value in losses.items():
            self.log_mean(f"train/{name}", value)
        return loss

    def detect(self, batch: Batch) -> list[Instances]:
        """Detect objects.

        Args:
            batch: ``video`` uint8 ``(B, 3, 1, H, W)``, ``sizes`` and ``original_size``.

        Returns:
            For each picture what `MaskRCNNHiera` returns, with boxes in pixels of the file.
        """
        if not len(batch["video"]):  # no picture of the batch could be read
            return []
        images = self.normalize(batch["video"])[:, :, 0]  # (B, 3, H, W)
        detections = self.model(images, batch["sizes"])
        scale = batch["original_size"] / batch["picture_size"]  # (B, 2): height, width
        for found, factor in zip(detections, scale.to(images), strict=True):
            found["boxes"] = found["boxes"] * factor[[1, 0, 1, 0]]
        return detections

    def evaluate(self, batch: Batch, split: str) -> None:
        """Add the detections of a batch to the metric."""
        detections = self.detect(batch)
        sizes, numbers = batch["original_size"].tolist(), batch["video_id"].tolist()
        for number, size, found in zip(numbers, sizes, detections, strict=True):
            boxes, masks = found["boxes"].float().cpu(), found["masks"].float().cpu()
            drawn = [
                DetectedMask(*paste_mask(mask[0], box, *size))
                for mask, box in zip(masks, boxes, strict=True)
            ]
            labels, scores = found["labels"].cpu(), found["scores"].float().cpu()
            self.metric(split).update(number, boxes, labels, scores, drawn)
        # The objects of pictures that could not be read count as missed.
        failed = float(len(batch["failed"]))
        self.log(
            f"{split}/failed_pictures",
            failed,
            on_step=False,
            on_epoch=True,
            reduce_fx="sum",
            sync_dist=True,
            batch_size=1,
        )

    def summarize(self, split: str) -> tuple[dict[str, float], CocoResults]:
        """AP of boxes and masks over all pictures of the annotation."""
        results: CocoResults = self.metric(split).results()
        return results.values(), results

    def configure_optimizers(self) -> Any:
        """The optimiser, and a schedule that warms up, then falls at each milestone.

        Raises:
            MisconfigurationException: see `VideoTask.configure_optimizers`.
        """
        configured = super().configure_optimizers()
        length = schedule_length(self.trainer)
        warmup, start = round(self.warmup_epochs * length.a_pass), self.warmup_lr / self.lr
        rest = warmup, length, start, self.milestones, self.gamma
        return configured | {"lr_scheduler": stepwise_scheduler(configured["optimizer"], *rest)}

    def _check_monitors(self) -> None:
        """See that validation gives what callbacks choose by."""
        if self.metric("val").has_masks:
            return
        for callback in self.trainer.callbacks:  # pyright: ignore
            if str(monitor := getattr(callback, "monitor", "")).startswith("val/mask_"):
                raise MisconfigurationException(
                    f"annotations of data.val lack masks, so that there will be no {monitor}; set "
                    "callbacks.best.monitor=val/box_AP"
                )

    def _agreed_classes(self) -> tuple[str, ...]:
        """Take the classes from the data, or check that they agree."""
        names = tuple(self.datamodule.class_names or ())
        if self.class_names is None:
            self.class_names = names
        if not self.class_names:
            raise MisconfigurationException("no class names: the data has no categories")
        if names and names != self.class_names:
            raise MisconfigurationException(
                f"the data has {len(names)} categories ({names[0]}, ...), the model "
                f"{len(self.class_names)} ({self.class_names[0]}, ...), or in another order"
            )
        return self.class_names


def targets_of(batch: Batch) -> list[Instances]:
    """The objects of each picture of a training batch, as `MaskRCNNHiera` takes them.

    Args:
        batch: ``boxes`` ``(N, 4)``, ``box_labels`` ``(N,)``, ``masks`` uint8 ``(N, H, W / 8)``, and
            ``counts``, the number of objects of each picture, in order.
    """
    counts = batch["counts"]
    masks = unpack_bits(batch["masks"])  # (N, H, W)
    parts = (values.split(counts) for values in (batch["boxes"], batch["box_labels"], masks))
    return [
        dict(zip(("boxes", "labels", "masks"), p, strict=True)) for p in zip(*parts, strict=True)
    ]


def unpack_bits(packed: Tensor) -> Tensor:
    """Unpack uint8 ``(N, H, W / 8)``, the first pixel in the highest bit, to ``(N, H, W)``."""
    shift = torch.arange(7, -1, -1, device=packed.device, dtype=torch.uint8)
    return ((packed[..., None] >> shift) & 1).flatten(2)
