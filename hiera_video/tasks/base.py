"""What all tasks that train have in common: the network, its optimiser and the batches."""

import inspect
import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torchmetrics import Metric

from datamodules.wording import counted
from hiera_video.augment.pipeline import Augmentation
from hiera_video.models.compiling import compile_network
from hiera_video.models.sharding import (
    gather_for_evaluation,
    reshard_for_training,
    shard,
    whole,
)
from hiera_video.tasks.budget import Budget
from hiera_video.tasks.cuda_graphs import check_graphs, check_mode, keep_gradients, records_graphs
from hiera_video.tasks.description import describe
from hiera_video.tasks.evaluation import Batch, EvaluatedTask
from hiera_video.tasks.lightning_private import skip_step_if, unscales_gradients
from hiera_video.tasks.optimization import (
    OptimizerFactory,
    keep_settings,
    parameter_groups,
    schedule_length,
    scheduler,
)
from hiera_video.weights.description import RECORD, to_record
from hiera_video.weights.files import find_weights
from hiera_video.weights.load import load_weights
from hiera_video.weights.trained import Classes, read_classes

log = logging.getLogger(__name__)

# Batches between two counts: counting on all ranks waits for the device.
COUNT_BAD_VIDEOS_EVERY = 50
# The split that each of Lightning's stages evaluates.
EVALUATED = {"fit": "val", "validate": "val", "test": "test"}


class VideoTask(EvaluatedTask):
    """A network with its optimiser, both built when the trainer asks for them.

    Args:
        model: returns the network; called without arguments, or with those a subclass adds.
        init_from: weights to start from, a path or a published name; see `load_weights`.
        inflate: accept weights of an image model and inflate them to video.
        optimizer: called with parameter groups, whose learning rates and decays are already set.
        batch: ``global``, ``unit`` and ``lr_reference``, as in `Budget`. Where the devices hold
            less than ``global``, gradients are accumulated.
        epochs: ``count``, and the ``unit`` that `warmup_epochs` is counted in, as in `Budget`.
        lr: learning rate after warm-up, for a batch of ``lr_reference`` if that is given; with
            layer-wise decay, that of the head.
        weight_decay: of all parameters except 1-D ones and position embeddings.
        layer_decay: factor on the learning rate from one layer to the one before; 1: no decay.
        position_lr: factor on `lr` for position embeddings, in (0, 1]; None: as their layer.
        warmup_epochs: length of the linear warm-up; fractions are allowed.
        warmup_lr: learning rate from which warm-up rises, scaled like `lr`; None: `min_lr`.
        min_lr: learning rate to which the cosine falls, scaled like `lr`.
        augment: applied to cropped training clips; None: mirror half of them.
        compile: compile the network for training, in a mode of `compile_network`; True: "default";
            None or False: do not.
        seed: of everything random in the network, such as drop path.
        recipe: name of the configuration, for the record in checkpoints.

    Raises:
        ValueError: ``min_lr`` or ``warmup_lr`` is outside [0, lr], or there is no such mode.
        BudgetError: ``batch`` or ``epochs`` is wrong.

    Attributes:
        same_shapes: whether the inputs of the network have the same shapes in all training batches.
    """

    same_shapes = True

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
        position_lr: float | None = None,
        warmup_epochs: float = 0.0,
        warmup_lr: float | None = None,
        min_lr: float = 1e-6,
        augment: Augmentation | None = None,
        compile: bool | str | None = None,
        seed: int = 0,
        recipe: str | None = None,
    ) -> None:
        augment = augment or Augmentation()
        super().__init__(augment.normalize)
        warmup_lr = min_lr if warmup_lr is None else warmup_lr
        if lr <= 0:
            raise ValueError(f"lr must be above 0, not {lr}")
        if not 0 < layer_decay <= 1:  # 0 would freeze all layers but the last
            raise ValueError(f"layer_decay must be in (0, 1], not {layer_decay}")
        if position_lr is not None and not 0 < position_lr <= 1:
            raise ValueError(f"position_lr must be in (0, 1], not {position_lr}")
        for name, value in (("min_lr", min_lr), ("warmup_lr", warmup_lr)):
            if not 0 <= value <= lr:
                raise ValueError(f"{name} must be in [0, lr={lr}], not {value}")
        self.create_network, self.init_from, self.optimizer = model, init_from, optimizer
        self.inflate = inflate
        self.budget = Budget.of(batch, epochs)
        self.lr, self.weight_decay, self.layer_decay = lr, weight_decay, layer_decay
        self.position_lr = position_lr
        self.warmup_epochs, self.warmup_lr, self.min_lr = warmup_epochs, warmup_lr, min_lr
        self.augment, self.compile_mode, self.seed = augment, check_mode(compile), seed
        self.recipe = recipe
        self._bad_videos: set[int] = set()  # of this epoch, on this rank
        self._sums: dict[str, Tensor] = {}  # of this step's batches, on this rank
        # Whether the step that the last batch completed was skipped: bool scalar, the same on all
        # ranks; None while gradients accumulate.
        self.skipped: Tensor | None = None

    def network(self) -> nn.Module:
        """A new network, with a head for the data's classes."""
        return self.create_network()

    def training_flops(self, shape: Sequence[int]) -> int | None:
        """Floating-point operations that a clip of this shape, ``(3, T, H, W)``, takes in training.

        Returns:
            As `models.complexity.training_flops` counts them; None: not known.
        """
        return None

    @abstractmethod
    def new_metric(self, split: str) -> Metric:
        """A metric for the evaluation of ``val`` or ``test``."""

    def same_classes(self, classes: Classes) -> bool:
        """Whether training may start with the head of other weights, if its shape fits.

        Args:
            classes: of those weights, as `read_classes` returns them.
        """
        return True

    def classes(self) -> Classes:
        """What the outputs of the network mean; none for a task without classes."""
        return Classes()

    def evaluation_settings(self) -> dict[str, Any]:
        """How tests use the model, for the record in checkpoints; see `Description.evaluation`."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record of what the model is."""
        checkpoint[RECORD] = to_record(
            describe(
                self.model,
                self.create_network,
                self.datamodule,
                self.classes(),
                self.normalize,
                self.recipe,
                self.evaluation_settings(),
            )
        )

    def setup(self, stage: str) -> None:
        """Make the metric of the split that is evaluated; fix how many batches make a step.

        Raises:
            MisconfigurationException: no whole number of batches makes a step.
        """
        self.metrics.clear()
        split = EVALUATED.get(stage, "")
        if split in self.datamodule.manifests:
            self.metrics[split] = self.new_metric(split)
        if stage == "fit":
            self._accumulate()

    def _accumulate(self) -> None:
        """Tell the trainer how many batches make a step, before a loader or checkpoint is read."""
        trainer, data = self.trainer, self.datamodule
        try:
            trainer.accumulate_grad_batches = self.budget.accumulation(
                data.batch_size, data.repeats, trainer.world_size, trainer.accumulate_grad_batches
            )
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error

    def configure_model(self) -> None:
        """Build the network and load the weights it starts from, once.

        Raises:
            MisconfigurationException: a network to be evaluated would lack weights, or what is to
                be compiled cannot be.
        """
        if self.model is not None:
            return
        self.model = self.network()
        self._load_initial_weights()
        if self.compile_mode is not None and self.trainer.training:
            check_graphs(self.compile_mode, self.trainer, self.model, self.same_shapes)
            compile_network(self.model, self.compile_mode)
        if self.device_mesh is not None:  # of a strategy that shards
            half = self.trainer.precision == "bf16-mixed"
            mesh = self.device_mesh["data_parallel"]
            shard(self.model, mesh, torch.bfloat16 if half else None)

    def _load_initial_weights(self) -> None:
        if self.init_from is None:
            return
        file = find_weights(self.init_from)
        classes = read_classes(file) if file.is_file() else Classes()
        report = load_weights(
            self.model,
            self.init_from,
            quiet=self.global_rank != 0,
            inflate=self.inflate,
            head=not self.trainer.training or self.same_classes(classes),
        )
        if report.missing and not self.trainer.training:
            raise MisconfigurationException(
                f"{self.init_from} lacks {report.missing[0]}, so there is nothing to evaluate; "
                "fine-tune from it first"
            )

    def on_validation_start(self) -> None:
        """Evaluate with all parameters on each device, if they are sharded."""
        gather_for_evaluation(self.model)

    on_test_start = on_predict_start = on_validation_start

    def on_validation_end(self) -> None:
        """Go on with sharded parameters, if they were."""
        reshard_for_training(self.model)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make drop path and dropout a function of (seed, batch, rank), so that a run resumes."""
        self.skipped = None
        batches = self.trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed(hash((self.seed, batches, self.global_rank)) & (2**63 - 1))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Note the videos that were replaced because they cannot be decoded.

        Raises:
            TooManyBadVideos: all ranks together met too many of them.
        """
        self._bad_videos |= {failure.video_id for failure in batch["failed"]}
        if (batch_idx + 1) % COUNT_BAD_VIDEOS_EVERY == 0:
            self._count_bad_videos()

    def on_train_epoch_end(self) -> None:
        """Log how many videos of this epoch cannot be decoded."""
        # The same on all ranks already; sync_dist keeps Lightning from warning.
        self.log("train/bad_videos", self._count_bad_videos(), sync_dist=True)
        self._bad_videos.clear()

    def _count_bad_videos(self) -> float:
        """The bad videos of this epoch on all ranks; too many of them stop all ranks at once."""
        count = float(len(self._bad_videos))
        if self.trainer.world_size > 1:
            local = torch.tensor(count, device=self.device)
            count = float(self.trainer.strategy.reduce(local, reduce_op="sum"))
            loader: Any = self.trainer.train_dataloader
            loader.check_bad(int(count))
        return count

    def log_mean(self, name: str, value: Tensor) -> None:
        """Log the mean of a number over all batches of a step, on all ranks.

        Ranks and host meet only at the steps that are logged, and at the last of an epoch.

        Args:
            name: such as ``train/loss``.
            value: scalar, of one batch.
        """
        self._sums[name] = self._sums.get(name, 0) + value.detach().float()

    def _log_means(self) -> None:
        """Log what `log_mean` was given since the last step."""
        trainer, sums = self.trainer, self._sums
        step = trainer.global_step + 1
        interval = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        due = (interval and step % interval == 0) or trainer.is_last_batch
        if sums and (due or step == trainer.max_steps):
            means = torch.stack(list(sums.values())) / trainer.accumulate_grad_batches
            means = trainer.strategy.reduce(means, reduce_op="mean")
            for name, mean in zip(sums, means.unbind(), strict=True):
                self.log(name, mean)
        self._sums = {}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients, which are NaN on all ranks if the loss of one is not finite."""
        super().backward(loss, *args, gradient=loss.detach() * 0 + 1, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Forget the gradients of the last step."""
        if records_graphs(self.compile_mode) and self.trainer.accumulate_grad_batches > 1:
            keep_gradients(optimizer)
        else:
            optimizer.zero_grad()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Draw the augmentation on the host, so that no step waits for the device."""
        if self.trainer.training:
            height, width = batch["video"].shape[-2:]
            batch["augment"] = self.augment.draw(batch["seed"], (height, width))
        return batch

    def training_video(self, batch: Batch) -> Tensor:
        """Augment and normalise a training batch.

        Args:
            batch: ``video`` uint8 ``(B, 3, T, H, W)`` and ``augment``, what was drawn for it.

        Returns:
            float32 ``(B, 3, T, H, W)``.
        """
        return self.augment(batch["video"], batch["augment"])

    def configure_optimizers(self) -> Any:
        """The optimiser, and a schedule that warms up, then falls as a cosine, at every step.

        Raises:
            MisconfigurationException: the optimiser refuses its arguments, or there is no whole or
                finite number of steps.
        """
        trainer = self.trainer
        batch_size, repeats = self.datamodule.batch_size, self.datamodule.repeats
        accumulate = trainer.accumulate_grad_batches
        videos = batch_size * trainer.world_size * accumulate  # of a step
        factor = self.budget.lr_factor(videos, repeats)
        groups = self.parameter_groups(self.model, factor)
        try:
            optimizer = self.optimizer(groups, **self._fused())
        except (TypeError, ValueError, IndexError) as error:
            raise MisconfigurationException(f"task.optimizer: {error}") from error
        keep_settings(optimizer)
        steps, steps_a_pass = schedule_length(trainer)
        warmup = round(self.budget.in_passes(self.warmup_epochs, repeats) * steps_a_pass)
        if trainer.is_global_zero:
            log.info(
                f"a step is {counted(videos, 'videos')}, {counted(videos * repeats, 'clips')}: "
                f"{counted(trainer.world_size, 'processes')} x {counted(accumulate, 'batches')} x "
                f"{counted(batch_size, 'videos')} x {counted(repeats, 'clips')}"
            )
            log.info(
                f"learning rate {self.lr * factor:.3g} ({self.lr:g} x {factor:g}); "
                f"{counted(steps, 'steps')} of which {warmup} warm up, {steps_a_pass} a pass over "
                f"the videos; {steps * videos * repeats:.4g} clips in all"
            )
        if warmup >= steps:
            log.warning(
                f"task.warmup_epochs={self.warmup_epochs:g} is {warmup} of "
                f"{counted(steps, 'steps')}: the learning rate never falls"
            )
        floor, start = self.min_lr / self.lr, self.warmup_lr / self.lr
        return {
            "optimizer": optimizer,
            "lr_scheduler": scheduler(optimizer, warmup, steps, floor, start),
        }

    def parameter_groups(self, model: nn.Module, lr_factor: float = 1.0) -> list[dict[str, Any]]:
        """The groups of a network's parameters, with their rates; see `optimization`.

        Args:
            model: the network.
            lr_factor: on all learning rates.
        """
        return parameter_groups(
            model, self.lr * lr_factor, self.weight_decay, self.layer_decay, self.position_lr
        )

    def _fused(self) -> dict[str, bool]:
        """A fused optimiser on a GPU: it can skip a step without the host."""
        takes = inspect.signature(self.optimizer).parameters.get("fused")
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return {"fused": True} if takes and takes.default is None and on_gpu and not scaled else {}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the total L2 norm of all gradients and log what it was before.

        If it is not finite, the step changes neither weights nor the state of the optimiser. All
        ranks have the same gradients, so all skip the step.

        Args:
            optimizer: the one that will make a step.
            gradient_clip_val: greatest norm; None or 0: only log it.
            gradient_clip_algorithm: "norm" or None.

        Raises:
            MisconfigurationException: another algorithm, or gradients that are still scaled.
        """
        # Lightning's own clipping refuses fused optimisers under bf16-mixed, too.
        if gradient_clip_algorithm not in (None, "norm"):
            raise MisconfigurationException(
                "gradients are clipped by norm; leave out trainer.gradient_clip_algorithm"
            )
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val and scaled and unscales_gradients(optimizer):
            raise MisconfigurationException(
                "a fused optimiser cannot clip under 16-mixed; use bf16-mixed, or "
                "task.optimizer.fused=false"
            )
        norm: Tensor = whole(
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf)
        )
        self.log("train/grad_norm", norm)
        self._log_means()
        self.skipped = ~norm.isfinite()
        # A `GradScaler` skips such a step itself.
        if not scaled and not skip_step_if(optimizer, self.skipped) and self.skipped:
            optimizer.zero_grad()  # the host has waited; without gradients, a step does nothing
