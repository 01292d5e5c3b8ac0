"""Classification of videos, evaluated over several views of each."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from hiera_video.augment.mixing import Mixing, soft_targets
from hiera_video.metrics.multi_view import MultiViewAccuracy
from hiera_video.metrics.results import Results
from hiera_video.tasks.base import Batch, VideoTask

log = logging.getLogger(__name__)


class ClassificationTask(VideoTask):
    """Fine-tuning with cross entropy; validation and test average probabilities over views.

    Args:
        model: factory of a `Hiera`; called with ``num_classes``.
        class_names: in the order of the label ids; None: those of the data module. They are saved
            in checkpoints, so that a prediction has names.
        label_smoothing: share of a target that is spread over all classes.
        mixing: mixup and cutmix of training batches; None: neither.
        **kwargs: as in `VideoTask`.

    Attributes:
        results: of the last `validate` or `test`; None before.
    """

    def __init__(
        self,
        model,
        *,
        class_names: Sequence[str] | None = None,
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        **kwargs,
    ) -> None:
        super().__init__(model, **kwargs)
        self.class_names = tuple(class_names) if class_names else None
        self.label_smoothing, self.mixing = label_smoothing, mixing
        self.results: Results | None = None

    def setup(self, stage: str) -> None:
        """Check the labels; make the metrics."""
        super().setup(stage)
        datamodule = self.datamodule
        if stage == "fit" and self.mixing is not None and datamodule.batch_size < 2:
            raise MisconfigurationException(
                "mixing needs other videos in a batch: set data.batch_size=2, or task.mixing=null"
            )
        classes = len(self._agreed_class_names())
        for split, manifest in datamodule.manifests.items():
            _check_labels(split, manifest.table["label"].to_numpy())
        self.metrics = nn.ModuleDict(
            {
                f"{split}_accuracy": MultiViewAccuracy(
                    len(manifest), classes, datamodule.views(split)
                )
                for split, manifest in datamodule.manifests.items()
                if split in ("val", "test")
            }
        )

    def _agreed_class_names(self) -> tuple[str, ...]:
        """Take the class names from the data, or check that they agree."""
        names = tuple(self.datamodule.class_names or ())
        if self.class_names is None:
            self.class_names = names
        if not self.class_names:
            raise MisconfigurationException(
                "no class names: neither the data nor a checkpoint has any; set task.class_names"
            )
        if names and names != self.class_names:
            raise MisconfigurationException(
                f"the data has {len(names)} classes ({names[0]}, ...), the model "
                f"{len(self.class_names)} ({self.class_names[0]}, ...) in another order or number"
            )
        return self.class_names

    def same_classes(self, said: Mapping[str, Any]) -> bool:
        """Those of the same names; where none are said, as of published weights, it may be."""
        return tuple(said.get("class_names") or ()) in ((), self.class_names)

    def network(self) -> nn.Module:
        """A network with one logit for each class name."""
        # Not in `setup`: an average of weights is begun before that.
        return self.create_network(num_classes=len(self._agreed_class_names()))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the class names."""
        checkpoint["class_names"] = list(self.class_names or ())

    def forward(self, video: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of normalised float clips ``(B, 3, T, H, W)``."""
        return self.model(video)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Decide on the host how clips will be augmented and mixed."""
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if self.trainer.training and self.mixing is not None:
            height, width = batch["video"].shape[-2:]
            batch["mixing"] = self.mixing.draw(batch["seed"], (height, width))
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross entropy of one view of each clip, of what they are mixed of.

        The logged ``train/top1`` counts a mixed clip as the class that most of it is of.
        """
        assert self.class_names is not None
        video, label = self.training_video(batch), batch["label"]
        target = soft_targets(label, len(self.class_names), self.label_smoothing)
        if self.mixing is not None:
            video, target = self.mixing(video, target, batch["mixing"])
        logits = self(video)
        loss = F.cross_entropy(logits.float(), target)
        correct = logits.argmax(1) == target.argmax(1)
        self.log("train/loss", loss, batch_size=len(label))
        self.log("train/top1", correct.float().mean(), batch_size=len(label))
        return loss

    def probabilities(self, batch: Batch) -> dict[str, Tensor]:
        """``probabilities`` float32 ``(B, classes)`` of each view, beside what the view is of."""
        assert self.class_names is not None
        if len(batch["video"]):
            probabilities = self(self.normalize(batch["video"])).float().softmax(dim=1)
        else:  # no video of the batch could be decoded
            probabilities = torch.zeros(0, len(self.class_names), device=self.device)
        row = {key: batch[key] for key in ("video_id", "view", "label")}
        return row | {"probabilities": probabilities}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Collect the views of validation videos."""
        return self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy over the validation videos seen."""
        self._log_accuracy("val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Collect the views of test videos, and hand them to callbacks."""
        return self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Log the accuracy over the test videos."""
        self._log_accuracy("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The same for videos without labels."""
        return self.probabilities(batch)

    def _evaluate(self, batch: Batch, split: str) -> dict[str, Tensor]:
        rows = self.probabilities(batch)
        metric: Any = self.metrics[f"{split}_accuracy"]
        metric.update(rows["probabilities"], rows["label"], rows["video_id"], rows["view"])
        for failure in batch["failed"]:
            metric.count_as_wrong(failure.video_id, failure.label)
        return rows

    def _log_accuracy(self, split: str) -> None:
        metric: Any = self.metrics[f"{split}_accuracy"]
        for name, value in metric.compute().items():
            # The same on all ranks already; sync_dist keeps Lightning from warning.
            self.log(f"{split}/{name}", value.to(torch.float32), sync_dist=True)
        if self.trainer.state.fn != "fit":
            manifest = self.datamodule.manifests[split]
            outcomes = metric.outcomes()
            paths = [manifest.path(i) for i in outcomes.video_id.tolist()]
            self.results = Results(outcomes, self.class_names or (), paths)
        metric.reset()


def _check_labels(split: str, labels: np.ndarray) -> None:
    """Training needs all labels int64 ``(videos,)``, evaluation some; -1 = unknown."""
    unknown = int((labels < 0).sum())
    if split == "predict" or not unknown:
        return
    if split != "train" and unknown < len(labels):
        log.warning(f"data.{split}: {unknown} of {len(labels)} videos have no label: not counted")
        return
    raise MisconfigurationException(
        f"data.{split}: {unknown} of {len(labels)} videos have no label"
    )
