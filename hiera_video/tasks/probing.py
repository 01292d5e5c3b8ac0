"""Probes of frozen features: how good an encoder is before it is fine-tuned."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hiera_video.augment.basic import Normalize
from hiera_video.metrics.probe import FeatureProbe
from hiera_video.models.features import pooled_features
from hiera_video.models.hiera import Hiera
from hiera_video.models.network_input import network_input
from hiera_video.tasks.evaluation import Batch, EvaluatedTask
from hiera_video.tasks.protocols import VideoData
from hiera_video.weights.load import load_weights

log = logging.getLogger(__name__)


@runtime_checkable
class SeesProbe(Protocol):
    """A callback that is told of a probe's training videos, for which Lightning has no hook."""

    def on_probe_batch_end(self, trainer: Trainer, batch_idx: int) -> None:
        """A batch of them, counted from 0, was added."""
        ...


class ProbingTask(EvaluatedTask):
    """kNN and linear probe of a frozen encoder; see `FeatureProbe`.

    ``test`` reads the training videos, then the test videos, each with the views of
    ``data.test_views``, and logs ``test/knn_top1`` and ``test/linear_top1``.

    Args:
        model: returns a `Hiera`; called with ``num_classes``.
        init_from: weights of a pretraining or a classification, a path or a published name. As in
            fine-tuning, ``encoder_norm`` becomes ``norm``; the head is not used.
        inflate: accept weights of an image model, as in `load_weights`.
        normalize: with the mean and deviation that the encoder was trained with; None: those of
            published video models.
        k: as in `FeatureProbe`.
        l2: as in `FeatureProbe`.
    """

    needs_labels = True

    def __init__(
        self,
        model: Callable[..., Hiera],
        *,
        init_from: str | None = None,
        inflate: bool = False,
        normalize: Normalize | None = None,
        k: int = 20,
        l2: float = 1e-3,
    ) -> None:
        super().__init__(normalize or Normalize())
        FeatureProbe(1, 1, k, l2)  # refuses wrong values before data is read
        self.create_network, self.init_from, self.k, self.l2 = model, init_from, k, l2
        self.inflate = inflate

    def configure_callbacks(self) -> list[Any]:
        """Refuse what a probe cannot do, in the first of all hooks.

        Raises:
            MisconfigurationException: anything but `test`.
        """
        if self.trainer.state.fn != "test":
            raise MisconfigurationException(
                "a probe trains no network and predicts nothing: use the command test"
            )
        return []

    def setup(self, stage: str) -> None:
        """Make the loader of the training videos.

        Raises:
            MisconfigurationException: there are not enough labels.
        """
        self.training_videos = self.datamodule.evaluation_loader("train")
        check_classes(self.datamodule)

    def configure_model(self) -> None:
        """Build the network and load its weights, once."""
        if self.model is not None:
            return
        classes = len(self.datamodule.class_names or ())
        self.model = self.create_network(num_classes=classes)
        if self.init_from is not None:
            quiet = self.global_rank != 0
            load_weights(self.model, self.init_from, quiet=quiet, inflate=self.inflate)
        self.metrics["test"] = FeatureProbe(self.model.stage_dims[-1], classes, self.k, self.l2)

    def on_test_epoch_start(self) -> None:
        """Read the training videos."""
        if self.trainer.is_global_zero:
            log.info(f"features of {self.training_videos.sampler.length} training videos first")
        add_all(self.metric("test"), self, self.training_videos)

    def evaluate(self, batch: Batch, split: str) -> None:
        """Add test videos to the probes."""
        add_videos(self.metric(split), self, batch, train=False)


def add_videos(probe: FeatureProbe, task: EvaluatedTask, batch: Batch, train: bool) -> None:
    """Add the videos of an evaluation batch to a probe of a task's network.

    Args:
        probe: takes the features.
        task: computes them.
        batch: all views of each of its videos: ``video`` uint8 ``(B, 3, T, H, W)``; B may be 0.
        train: whether to train on these videos or to test with them.
    """
    if len(batch["video"]):
        video = network_input(task.model, task.normalize(batch["video"]))
        features = pooled_features(task.model, video)
    else:  # no video of the batch could be decoded
        features = torch.zeros(0, probe.num_features, device=task.device)
    probe.update(features, batch["label"], batch["video_id"], train)
    if not train:
        for failure in batch["failed"]:
            probe.count_as_wrong(failure.video_id, failure.label)


def add_all(probe: FeatureProbe, task: EvaluatedTask, loader: Iterable[Batch]) -> None:
    """Add the videos of an evaluation loader to a probe, to train on.

    Call it within an evaluation, where the network is in evaluation mode and without gradients.
    """
    trainer = task.trainer
    watchers = [c for c in trainer.callbacks if isinstance(c, SeesProbe)]  # pyright: ignore
    for number, batch in enumerate(loader):
        with trainer.precision_plugin.forward_context():
            add_videos(probe, task, trainer.strategy.batch_to_device(batch), train=True)
        for callback in watchers:
            callback.on_probe_batch_end(trainer, number)


def check_classes(datamodule: VideoData) -> None:
    """See that a probe can be trained and tested on the splits that were read.

    Raises:
        MisconfigurationException: the training split has fewer than two classes, or another split
            has no labels.
    """
    for split, manifest in datamodule.manifests.items():
        labels = set(manifest.table["label"].to_pylist()) - {-1}
        if len(labels) < (2 if split == "train" else 1):
            lack = "no labels" if not labels else "one class"
            raise MisconfigurationException(
                f"a probe needs labelled videos: data.{split} has {lack}"
            )
