"""What pretraining, classification and detection have in common."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from hiera_video.augment.pipeline import Augmentation
from hiera_video.tasks.budget import Budget
from hiera_video.tasks.optimization import OptimizerFactory, parameter_groups, scheduler
from hiera_video.weights.files import find_weights
from hiera_video.weights.load import load_weights
from hiera_video.weights.trained import read_classes

log = logging.getLogger(__name__)

# Batches; not each, since to count on all ranks waits for the device.
COUNT_BAD_VIDEOS_EVERY = 50

Batch = dict[str, Any]  # tensors, and in evaluation the list `failed`


class VideoTask(LightningModule):
    """A model with its optimiser, built when the trainer asks for it.

    Args:
        model: called without arguments (a subclass may add some); returns the network.
        init_from: weights to start from, a path or a published name; see `load_weights`.
        inflate: these may be of an image model, and become weights of videos.
        optimizer: called with parameter groups; their learning rates and decays are already set.
        batch: ``global``, ``unit`` and ``lr_reference``, as in `Budget`. Where devices hold less
            than ``global``, the trainer is told to accumulate.
        epochs: ``unit`` that `warmup_epochs` counts, as in `Budget`, and ``count``.
        lr: learning rate after warm-up, of the head where there is layer-wise decay; for a batch
            of ``lr_reference``, if that is given.
        weight_decay: of all but 1-D parameters and position embeddings.
        layer_decay: factor on the learning rate from one layer to the one before; 1 = none.
        warmup_epochs: length of the linear warm-up, fractions allowed.
        warmup_lr: learning rate from which warm-up rises, scaled as `lr`; None: `min_lr`.
        min_lr: learning rate to which the cosine falls, scaled as `lr`.
        augment: of training clips, after they have been cropped; None: mirror half of them.
        compile: compile the network for training (``torch.compile``, in place: the names in
            checkpoints stay).
        seed: of everything random in the network, such as drop path.
    """

    def __init__(
        self,
        model: Callable[..., nn.Module],
        *,
        init_from: str | None = None,
        inflate: bool = False,
        optimizer: OptimizerFactory = AdamW,
        batch: Mapping[str, Any] | None = None,
        epochs: Mapping[str, Any] | None = None,
        lr: float = 8e-4,
        weight_decay: float = 0.05,
        layer_decay: float = 1.0,
        warmup_epochs: float = 0.0,
        warmup_lr: float | None = None,
        min_lr: float = 1e-6,
        augment: Augmentation | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        warmup_lr = min_lr if warmup_lr is None else warmup_lr
        for name, value in (("min_lr", min_lr), ("warmup_lr", warmup_lr)):
            if not 0 <= value <= lr:
                raise ValueError(f"{name} must be in [0, lr={lr}], not {value}")
        self.create_network, self.init_from, self.optimizer = model, init_from, optimizer
        self.inflate = inflate
        self.budget = Budget.of(batch, epochs)
        self.lr, self.weight_decay, self.layer_decay = lr, weight_decay, layer_decay
        self.warmup_epochs, self.warmup_lr, self.min_lr = warmup_epochs, warmup_lr, min_lr
        self.compile_network, self.seed = compile, seed
        self.model: Any = None
        self.augment = augment or Augmentation()
        self.normalize = self.augment.normalize
        self._bad_videos: set[int] = set()  # of this epoch, on this rank

    def network(self) -> nn.Module:
        """A new network, with the head that the data asks for."""
        return self.create_network()

    def same_classes(self, said: Mapping[str, Any]) -> bool:
        """Whether weights to start a training from may give it their head, if it fits.

        Args:
            said: what their file says of its classes, as `read_classes` gives it.
        """
        return True

    def setup(self, stage: str) -> None:
        """Tell the trainer how many batches make a step, before a loader or checkpoint is read.

        Raises:
            MisconfigurationException: no whole number of them does.
        """
        if stage != "fit":
            return
        trainer, data = self.trainer, self.datamodule
        try:
            trainer.accumulate_grad_batches = self.budget.accumulation(
                data.batch_size, data.repeats, trainer.world_size, trainer.accumulate_grad_batches
            )
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error

    @property
    def datamodule(self) -> Any:
        """Of the trainer."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]

    def configure_model(self) -> None:
        """Build the network and load the weights it starts from, once.

        Raises:
            MisconfigurationException: they do not suffice for an evaluation.
        """
        if self.model is not None:
            return
        self.model = self.network()
        if self.compile_network and self.trainer.training:
            self.model.compile()
        if self.init_from is None:
            return
        file = find_weights(self.init_from)
        said = read_classes(file) if file.is_file() else {}
        report = load_weights(
            self.model,
            self.init_from,
            quiet=self.global_rank != 0,
            inflate=self.inflate,
            head=not self.trainer.training or self.same_classes(said),
        )
        if report.missing and not self.trainer.training:
            raise MisconfigurationException(
                f"{self.init_from} lacks {report.missing[0]}, so there is nothing to evaluate; "
                "fine-tune from it first"
            )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make drop path and dropout a function of (seed, step, rank), so that a run resumes."""
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        mixed = hash((self.seed, step, self.global_rank)) & (2**63 - 1)
        torch.manual_seed(mixed)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Collect the videos that were replaced because they cannot be decoded.

        Raises:
            TooManyBadVideos: those of all ranks are too many.
        """
        self._bad_videos |= {failure.video_id for failure in batch["failed"]}
        if (batch_idx + 1) % COUNT_BAD_VIDEOS_EVERY == 0:
            self._count_bad_videos()

    def on_train_epoch_end(self) -> None:
        """Log how many there were in this epoch."""
        # The same on all ranks already; sync_dist keeps Lightning from warning.
        self.log("train/bad_videos", self._count_bad_videos(), sync_dist=True)
        self._bad_videos.clear()

    def _count_bad_videos(self) -> float:
        """Of this epoch, on all ranks, which learn together that they are too many."""
        count = float(len(self._bad_videos))
        if self.trainer.world_size > 1:
            here = torch.tensor(count, device=self.device)
            count = float(self.trainer.strategy.reduce(here, reduce_op="sum"))
            loader: Any = self.trainer.train_dataloader
            loader.check_bad(int(count))
        return count

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Decide on the host what augmentation will do, so that no step waits for the device."""
        if self.trainer.training:
            height, width = batch["video"].shape[-2:]
            batch["augment"] = self.augment.draw(batch["seed"], (height, width))
        return batch

    def training_video(self, batch: Batch) -> Tensor:
        """Augmented, normalised clips, float32 ``(B, 3, T, H, W)``."""
        return self.augment(batch["video"], batch["augment"])

    def configure_optimizers(self) -> Any:
        """The optimiser, and warm-up then cosine at every step.

        Raises:
            MisconfigurationException: the optimiser's arguments or the steps cannot be.
        """
        trainer = self.trainer
        batch_size, repeats = self.datamodule.batch_size, self.datamodule.repeats
        accumulate = trainer.accumulate_grad_batches
        videos = batch_size * trainer.world_size * accumulate
        factor = self.budget.lr_factor(videos, repeats)
        groups = parameter_groups(self.model, self.lr * factor, self.weight_decay, self.layer_decay)
        try:
            optimizer = self.optimizer(groups)
        except (TypeError, ValueError) as error:
            raise MisconfigurationException(f"task.optimizer: {error}") from error
        steps = trainer.estimated_stepping_batches  # makes the loader
        if not trainer.num_training_batches:
            raise MisconfigurationException("there are no training batches")
        if trainer.num_training_batches % accumulate:
            raise MisconfigurationException(
                f"trainer.limit_train_batches leaves {trainer.num_training_batches} batches, no "
                f"multiple of the {accumulate} that make a step"
            )
        if math.isinf(steps):
            raise MisconfigurationException(
                "the schedule needs an end; set task.epochs.count, or trainer.max_steps"
            )
        steps_an_epoch = trainer.num_training_batches // accumulate
        warmup = round(self.budget.in_passes(self.warmup_epochs, repeats) * steps_an_epoch)
        if trainer.is_global_zero:
            log.info(
                f"a step is {videos} videos, {videos * repeats} clips: {trainer.world_size} "
                f"processes x {accumulate} batches x {batch_size} videos x {repeats} clips"
            )
            log.info(
                f"learning rate {self.lr * factor:.3g} ({self.lr:g} x {factor:g}); {steps:g} steps "
                f"of which {warmup} warm up, {steps_an_epoch} a pass over the videos; "
                f"{steps * videos * repeats:.4g} clips in all"
            )
        if warmup >= steps:
            log.warning(
                f"task.warmup_epochs={self.warmup_epochs:g} is {warmup} of {steps:g} steps: the "
                "learning rate never falls"
            )
        floor, start = self.min_lr / self.lr, self.warmup_lr / self.lr
        return {
            "optimizer": optimizer,
            "lr_scheduler": scheduler(optimizer, warmup, int(steps), floor, start),
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the total L2 norm to ``gradient_clip_val`` and log it as it was before.

        Raises:
            MisconfigurationException: another algorithm, or gradients that are still scaled.
        """
        # Not Lightning's own: that one refuses fused optimisers under bf16-mixed, too.
        if gradient_clip_algorithm not in (None, "norm"):
            raise MisconfigurationException(
                "gradients are clipped by norm; leave out trainer.gradient_clip_algorithm"
            )
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val and scaled and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise MisconfigurationException(
                "a fused optimiser cannot clip under 16-mixed; use bf16-mixed, or "
                "task.optimizer.fused=false"
            )
        norm = nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf)
        self.log("train/grad_norm", norm)
