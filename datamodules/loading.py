"""Order, seeds and batches: the loader that every data module shares.

The order of an epoch is a pure function of (seed, epoch, world size), and the randomness of a
sample one of (seed, epoch, index, repeat). So results do not depend on the number of workers, and
a run that stopped within an epoch goes on with the very next batch.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.manifest import DatasetError

Failure = tuple[int, int, str]  # video_id, label, reason
Item = dict[str, Any]
Batch = dict[str, Any]


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """Seed of one clip, in [0, 2**63): a pure function of its arguments (numpy SeedSequence)."""
    state = np.random.SeedSequence((seed, epoch, index, repeat)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields this process's (epoch, index) pairs.

    Process ``rank`` of ``world_size`` takes every ``world_size``-th entry of the epoch's order. In
    training the tail that does not divide is left out, so that all processes make equally many
    steps (another tail each epoch); in evaluation nothing is left out and nothing is repeated.

    Attributes:
        epoch: the epoch under way; set by the trainer. Evaluation is the same in every epoch.
        used: in training, samples of this epoch that all processes together have already had.
    """

    def __init__(
        self, length: int, *, training: bool, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if length < world_size:
            raise DatasetError(
                f"{length} videos are too few for {world_size} processes; set trainer.devices"
            )
        self.length, self.training, self.seed = length, training, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.used = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin ``epoch``; calling it again for the epoch under way changes nothing."""
        if epoch != self.epoch:
            self.epoch, self.used = epoch, 0

    def __len__(self) -> int:
        if self.training:
            return self.length // self.world_size
        return len(range(self.rank, self.length, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if not self.training:
            yield from ((0, index) for index in range(self.rank, self.length, self.world_size))
            return
        epoch = self.epoch
        order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
        order = order[: self.length // self.world_size * self.world_size]
        rest = order[self.used :]  # of another number of processes, it need not divide
        rest = rest[: len(rest) // self.world_size * self.world_size]
        for index in rest[self.rank :: self.world_size]:
            yield epoch, int(index)


class Loader:
    """A ``DataLoader`` that knows where in the epoch it is.

    Its state is counted in batches handed out, not in batches prefetched by workers. Lightning
    saves and restores it with the checkpoint. It holds a ``DataLoader`` rather than being one,
    because Lightning rebuilds those with samplers of its own.

    Args:
        dataset: indexed by (epoch, index).
        sampler: its order; in training, a last batch that is not full is left out.
        batch_size: items in a batch.
        **kwargs: as in ``torch.utils.data.DataLoader``.

    Raises:
        DatasetError: there are too few items for one training batch.
    """

    def __init__(
        self, dataset: Dataset[Item], sampler: EpochSampler, batch_size: int, **kwargs: Any
    ) -> None:
        if sampler.training and len(sampler) < batch_size:
            raise DatasetError(
                f"{len(sampler)} videos a process do not fill one batch of {batch_size}; "
                "lower data.batch_size"
            )
        self.sampler = sampler
        self.batch_sampler = None  # Lightning looks for it where there is a sampler
        self._samples_a_step = batch_size * sampler.world_size
        self._loader = DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            drop_last=sampler.training,
            collate_fn=collate,
            **kwargs,
        )

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing starts before the first batch is asked for, by when Lightning has
        # told the sampler which epoch it is (it calls `iter` first).
        sampler = self.sampler
        if sampler.training and sampler.used >= len(self) * self._samples_a_step:
            sampler.set_epoch(sampler.epoch + 1)
        for batch in self._loader:
            if sampler.training:
                sampler.used += self._samples_a_step
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Position: the epoch, and the samples of it used by all processes together."""
        return {"epoch": self.sampler.epoch, "used": self.sampler.used}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after the last batch of the saved state."""
        self.sampler.epoch, self.sampler.used = state_dict["epoch"], state_dict["used"]


def collate(items: Sequence[Item]) -> Batch:
    """Join items along their first axis; each holds the clips of one video.

    ``video`` goes in as uint8 ``(n, T, H, W, 3)`` and comes out as ``(B, 3, T, H, W)``, a view with
    channels last in memory: nothing is copied for it. ``failed``, where items have it, is a list.
    """
    batch: Batch = {}
    for key in items[0]:
        values = [item[key] for item in items]
        batch[key] = list(chain(*values)) if key == "failed" else torch.cat(values)
    batch["video"] = batch["video"].permute(0, 4, 1, 2, 3)  # (B, 3, T, H, W)
    return batch
