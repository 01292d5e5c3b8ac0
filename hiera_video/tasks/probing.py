"""How good an encoder is before it is fine-tuned: probes of its frozen features."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from hiera_video.augment.basic import Normalize
from hiera_video.metrics.probe import FeatureProbe
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.tasks.base import Batch
from hiera_video.weights.load import load_weights

log = logging.getLogger(__name__)


class ProbingTask(LightningModule):
    """kNN and linear probe of an encoder that stays as it is; see `FeatureProbe`.

    ``test`` reads the training videos, then the test videos, each with the views of
    ``data.test_views``, and logs ``test/knn_top1`` and ``test/linear_top1``.

    Args:
        model: factory of a `Hiera`; called with ``num_classes``.
        init_from: weights of a pretraining or a classification, a path or a published name. As in
            fine-tuning, ``encoder_norm`` becomes ``norm``; the head is not used.
        inflate: as in `load_weights`.
        k: as in `FeatureProbe`.
        l2: as in `FeatureProbe`.
    """

    def __init__(
        self,
        model: Callable[..., Hiera],
        *,
        init_from: str | None = None,
        inflate: bool = False,
        k: int = 20,
        l2: float = 1e-3,
    ) -> None:
        super().__init__()
        FeatureProbe(1, 1, k, l2)  # refuses what is wrong before data is read
        self.create_network, self.init_from, self.k, self.l2 = model, init_from, k, l2
        self.inflate = inflate
        self.normalize = Normalize()
        self.model: Any = None

    def configure_callbacks(self) -> list[Any]:
        """Refuse what a probe cannot do; the first hook of all, before Lightning misses steps.

        Raises:
            MisconfigurationException: anything but `test`.
        """
        if self.trainer.state.fn != "test":
            raise MisconfigurationException(
                "a probe trains no network and predicts nothing: use the command test"
            )
        return []

    def setup(self, stage: str) -> None:
        """Find the training videos.

        Raises:
            MisconfigurationException: there are not enough labels.
        """
        datamodule: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self.training_videos = datamodule.evaluation_loader("train")
        check_classes(datamodule)

    def configure_model(self) -> None:
        """Build the network and load its weights, once."""
        if self.model is not None:
            return
        datamodule: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        classes = len(datamodule.class_names)
        self.model = self.create_network(num_classes=classes)
        if self.init_from is not None:
            quiet = self.global_rank != 0
            load_weights(self.model, self.init_from, quiet=quiet, inflate=self.inflate)
        self.probe = FeatureProbe(self.model.stage_dims[-1], classes, self.k, self.l2)

    def on_test_epoch_start(self) -> None:
        """See the training videos."""
        if self.trainer.is_global_zero:
            log.info(f"features of {self.training_videos.sampler.length} training videos first")
        add_all(self.probe, self, self.training_videos)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """See test videos."""
        add_videos(self.probe, self, batch, train=False)

    def on_test_epoch_end(self) -> None:
        """Log what both probes reach."""
        for name, value in self.probe.compute().items():
            # The same on all ranks already; sync_dist keeps Lightning from warning.
            self.log(f"test/{name}", value.float(), sync_dist=True)
        self.probe.reset()


def pooled_features(model: Hiera, video: Tensor) -> Tensor:
    """One feature vector a clip: the mean over the tokens of the last stage, then the norm.

    Of a classifier that is what its head gets. Of a masked autoencoder it is what a classifier of
    the same shape would give its head at the start of fine-tuning; all units are seen, and the
    other stages, which pretraining adds to the last, are left out, as fine-tuning leaves them out.
    Where pretraining pools once less (``q_pool`` 2, as published), its last stage has more tokens.

    Args:
        model: either.
        video: normalised float ``(B, 3, T, H, W)``.

    Returns:
        float32 ``(B, C)``.
    """
    tokens = model.encode(video, [len(model.stage_ends) - 1])[0]  # (B, U, L, C)
    norm = model.encoder_norm if isinstance(model, MaskedAutoencoderHiera) else model.norm
    return norm(tokens.mean(dim=(1, 2))).float()


def add_videos(probe: FeatureProbe, task: Any, batch: Batch, train: bool) -> None:
    """Add the videos of an evaluation batch to a probe of a task's network.

    Args:
        probe: it.
        task: a LightningModule with ``model`` and ``normalize``.
        batch: all views of each of its videos.
        train: they are to train on.
    """
    if len(batch["video"]):
        features = pooled_features(task.model, task.normalize(batch["video"]))
    else:  # no video of the batch could be decoded
        features = torch.zeros(0, probe.num_features, device=task.device)
    probe.update(features, batch["label"], batch["video_id"], train)
    if not train:
        for failure in batch["failed"]:
            probe.count_as_wrong(failure.video_id, failure.label)


def add_all(probe: FeatureProbe, task: Any, loader: Any) -> None:
    """Add the videos of an evaluation loader as those to train on.

    Called within an evaluation: the network is in evaluation mode and nothing is differentiated.
    """
    for batch in loader:
        with task.trainer.precision_plugin.forward_context():
            add_videos(probe, task, task.trainer.strategy.batch_to_device(batch), train=True)


def check_classes(datamodule: Any) -> None:
    """See that a probe can be trained and judged on the splits that were read.

    Raises:
        MisconfigurationException: fewer than two classes to train on, or no label to judge by.
    """
    for split, manifest in datamodule.manifests.items():
        labels = set(manifest.table["label"].to_pylist()) - {-1}
        if len(labels) < (2 if split == "train" else 1):
            found = "no labels" if not labels else "one class"
            raise MisconfigurationException(
                f"a probe needs labelled videos: data.{split} has {found}"
            )
