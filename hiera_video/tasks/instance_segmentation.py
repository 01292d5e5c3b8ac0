"""Instance segmentation: boxes, classes and masks of objects in pictures."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from hiera_video.metrics.coco import CocoAveragePrecision, DetectedMask
from hiera_video.metrics.coco_results import CocoResults
from hiera_video.models.mask_rcnn import Instances, paste_mask
from hiera_video.tasks.detection import refuse_true_half
from hiera_video.tasks.evaluation import Batch
from hiera_video.tasks.named_classes import NamedClassesTask
from hiera_video.tasks.optimization import warmup_steps
from hiera_video.tasks.protocols import ObjectData
from hiera_video.weights.trained import Classes


class InstanceSegmentationTask(NamedClassesTask):
    """Training of a `MaskRCNNHiera` with its five losses; COCO's AP in validation and test.

    The learning rate falls in steps, as in ViTDet (Li et al., 2022), not as a cosine.

    Args:
        model: returns a `MaskRCNNHiera`; called with ``num_classes``.
        milestones: shares of the training, ascending in (0, 1), after which the learning rate is
            multiplied by `gamma`.
        gamma: factor at a milestone.
        **kwargs: as in `NamedClassesTask`; ``min_lr`` means nothing here.

    Attributes:
        results: `CocoResults` of the last `validate` or `test`; None before.

    Raises:
        ValueError: the milestones are wrong, or the augmentation changes pictures without masks.
    """

    same_shapes = False  # a batch has any number of objects
    no_classes = "the data has no categories"
    named = "the data", "categories"

    def __init__(
        self,
        model,
        *,
        milestones: Sequence[float] = (8 / 9, 26 / 27),
        gamma: float = 0.1,
        **kwargs,
    ) -> None:
        super().__init__(model, **kwargs)
        if list(milestones) != sorted(milestones) or any(not 0 < m < 1 for m in milestones):
            raise ValueError(f"milestones must ascend within (0, 1), not {list(milestones)}")
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], not {gamma}")
        moves = ("horizontal_flip", "rand_augment", "erasing")
        if used := [name for name in moves if getattr(self.augment, name)]:
            raise ValueError(
                f"{used[0]} changes pictures but not their masks; the data mirrors and scales them"
            )
        self.milestones, self.gamma = tuple(milestones), gamma

    @property
    def datamodule(self) -> ObjectData:
        """The trainer's data module, of pictures with objects."""
        return cast(ObjectData, super().datamodule)

    def setup(self, stage: str) -> None:
        """Check precision and classes, then set up as any task.

        Raises:
            MisconfigurationException: batches in half precision, classes that do not agree, or a
                callback that waits for an AP of masks where not all objects have one.
        """
        refuse_true_half(str(self.trainer.precision))
        self.agreed_classes()
        super().setup(stage)
        if stage == "fit" and self.trainer.enable_validation and "val" in self.metrics:
            self._check_monitors()

    def classes(self) -> Classes:
        """The classes and their ids in COCO's files."""
        return Classes(self.class_names or (), self.data_classes().ids)

    def data_classes(self) -> Classes:
        """The classes of the data and their ids in COCO's files."""
        return Classes(super().data_classes().names, tuple(self.datamodule.category_ids))

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
        self.log_sum(f"{split}/failed_pictures", float(len(batch["failed"])))

    def summarize(self, split: str) -> tuple[dict[str, float], CocoResults]:
        """AP of boxes and masks over all pictures of the annotation."""
        results: CocoResults = self.metric(split).results()
        return results.values(), results

    def schedule(self, warmup: int, steps: int) -> Callable[[int], float]:
        """The factor on the learning rate, which falls at each milestone."""
        start, at = self.warmup_lr / self.lr, [round(share * steps) for share in self.milestones]
        return partial(warmup_steps, warmup=warmup, start=start, milestones=at, gamma=self.gamma)

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
