"""The order of an epoch, which depends only on (seed, epoch)."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from datamodules.errors import DatasetError
from datamodules.suffixes import VIDEOS, Media
from datamodules.wording import counted


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields this process's (epoch, index) pairs.

    Process ``rank`` of ``world_size`` takes every ``world_size``-th entry of the epoch's order. In
    training, the remainder, which differs in each epoch, is left out, so that all processes make
    equally many steps. In evaluation, nothing is left out and nothing is repeated.

    Args:
        length: number of samples.
        training: draw a new order each epoch.
        seed: seed of the order.
        rank: number of this process.
        world_size: number of processes.
        done: in evaluation, indices that have been seen before and are left out.
        media: what messages call the samples.

    Attributes:
        epoch: the current epoch; set by the trainer. Evaluation is the same in every epoch.
        used: in training, samples of this epoch that all processes together have already had.
        left: in evaluation, the indices that are not done, int64 ``(n,)``, ascending.

    Raises:
        DatasetError: there are fewer samples than processes.
    """

    def __init__(
        self,
        length: int,
        *,
        training: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        done: Sequence[int] | np.ndarray = (),
        media: Media = VIDEOS,
    ) -> None:
        if length < world_size:
            raise DatasetError(
                f"{counted(length, media.noun)}: too few for {world_size} processes; lower "
                "trainer.devices"
            )
        self.length, self.training, self.seed = length, training, seed
        self.rank, self.world_size, self.media = rank, world_size, media
        if not training:
            self.left = np.setdiff1d(np.arange(length), np.asarray(done, np.int64))
        self.epoch = 0
        self.used = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; nothing changes if it is the current one."""
        if epoch != self.epoch:
            self.epoch, self.used = epoch, 0

    def __len__(self) -> int:
        if self.training:
            return self.length // self.world_size
        return len(range(self.rank, len(self.left), self.world_size))

    def order(self) -> np.ndarray:
        """All indices of this epoch in order, int64 ``(n,)``; the same in all processes."""
        if not self.training:
            return self.left
        return np.random.default_rng((self.seed, self.epoch)).permutation(self.length)

    def positions(self) -> range:
        """Positions in `order` of the samples that this process has yet to see."""
        end = 0 if self.training else len(self.left)
        if self.training:
            whole = self.length // self.world_size * self.world_size
            # After a run on another number of processes, the rest need not divide evenly.
            rest = whole - self.used
            end = self.used + rest // self.world_size * self.world_size
        return range(self.used + self.rank, end, self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order, epoch = self.order(), self.epoch if self.training else 0
        return ((epoch, int(order[position])) for position in self.positions())
