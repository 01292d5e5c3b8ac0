"""What all tasks that train have in common: the network and its batches."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from hiera_video.augment.pipeline import Augmentation
from hiera_video.models.compiling import compile_network
from hiera_video.models.sharding import gather_for_evaluation, reshard_for_training, shard
from hiera_video.tasks.cuda_graphs import check_graphs, check_mode, keep_gradients, records_graphs
from hiera_video.tasks.description import describe
from hiera_video.tasks.evaluation import Batch
from hiera_video.tasks.optimized import OptimizedTask
from hiera_video.weights.description import RECORD, to_record
from hiera_video.weights.files import find_weights
from hiera_video.weights.load import load_weights
from hiera_video.weights.trained import Classes, read_classes

# Batches between two counts: counting on all ranks waits for the device.
COUNT_BAD_VIDEOS_EVERY = 50
# The split that each of Lightning's stages evaluates.
EVALUATED = {"fit": "val", "validate": "val", "test": "test"}


class VideoTask(OptimizedTask):
    """A network that is trained on clips, built when the trainer asks for it.

    Args:
        model: returns the network; called without arguments, or with those a subclass adds.
        init_from: weights to start from, a path or a published name; see `load_weights`.
        inflate: accept weights of an image model and inflate them to video.
        augment: applied to cropped training clips; None: mirror half of them.
        compile: compile the network for training, in a mode of `compile_network`; True: "default";
            None or False: do not.
        seed: of everything random in the network, such as drop path.
        recipe: name of the configuration, for the record in checkpoints.
        **kwargs: as in `OptimizedTask`, without ``normalize``.

    Raises:
        ValueError: there is no such mode, or a learning rate is wrong.
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
        augment: Augmentation | None = None,
        compile: bool | str | None = None,
        seed: int = 0,
        recipe: str | None = None,
        **kwargs: Any,
    ) -> None:
        augment = augment or Augmentation()
        super().__init__(augment.normalize, **kwargs)
        self.create_network, self.init_from, self.inflate = model, init_from, inflate
        self.augment, self.compile_mode, self.seed = augment, check_mode(compile), seed
        self.recipe = recipe
        self._bad_videos: set[int] = set()  # of this epoch, on this rank

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
            self.fix_accumulation()

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
        self.log_equal("train/bad_videos", self._count_bad_videos())
        self._bad_videos.clear()

    def _count_bad_videos(self) -> float:
        """The bad videos of this epoch on all ranks; too many of them stop all ranks at once."""
        count = len(self._bad_videos)
        if self.trainer.world_size > 1:
            # Several ranks meet a video that replaces another one, and is bad, too.
            videos = len(self.datamodule.manifests["train"])
            bad = torch.zeros(videos, dtype=torch.uint8, device=self.device)
            bad[list(self._bad_videos)] = 1
            count = int(self.trainer.strategy.reduce(bad, reduce_op="max").sum())
            loader: Any = self.trainer.train_dataloader
            loader.check_bad(count)
        return float(count)

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
