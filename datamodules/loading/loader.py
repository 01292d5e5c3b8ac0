"""The loader that every data module shares.

The order of an epoch depends only on (seed, epoch), and the randomness of a sample only on (seed,
epoch, index, repeat). So results do not depend on the number of workers, and a run that stopped
within an epoch continues with the very next batch.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from datamodules.clips.items import ClipDataset, Item, NothingToLearn
from datamodules.errors import DatasetError, TooManyBadVideos, UnreadableVideo, VideoDecodeError
from datamodules.loading.bad_videos import BadVideos, Failure
from datamodules.loading.batch import Batch, gather, join_items
from datamodules.loading.item_workers import Workers
from datamodules.loading.outage import Outage, check_training
from datamodules.loading.sampler import EpochSampler
from datamodules.manifests.storage import traffic

log = logging.getLogger(__name__)

_ATTEMPTS = 2  # at a video that costs a worker; memory or the network may have been at fault


class Loader:
    """Batches of a data set, with a position in the epoch that can be saved.

    The position counts the batches that were handed out, not the items that workers made ahead.
    Lightning saves and restores it with the checkpoint. A ``DataLoader`` would not do: it cannot
    outlive a worker, and Lightning would rebuild it with a sampler of its own.

    In training, a video that cannot be decoded is noted and replaced by the next one in the epoch's
    order; in evaluation, it becomes an item without clips. Either way, the batch lists it in
    ``failed``; an evaluation ends if the storage fails (`Outage`). An item with nothing to learn
    from is replaced, too, and counted in ``skipped``, int64 ``(items,)``.

    Args:
        dataset: indexed by (epoch, index).
        sampler: its order. In training, an incomplete last batch is left out.
        batch_size: items in a batch.
        accumulate: batches of one step of the optimiser. In training, an incomplete last step is
            left out, too, so that all steps are of equally many items.
        num_workers: number of decoding processes; 0 decodes in this one, where nothing can stop a
            decoder that hangs.
        pin_memory: put frames in page-locked memory, from which the GPU copies them by itself.
        timeout: seconds that a worker may take for one video before it is killed.
        bad_videos: where failures are noted.
        max_bad_share: share in [0, 1] of an epoch's videos, rounded up to whole videos; training
            stops when more fail, and evaluation when more cannot be read, unless it is 1. This
            class counts the failures of its process, the task those of all processes.
        stop_on_kill: stop when a worker hangs or dies twice at one video, rather than go on
            without it.

    Attributes:
        waited: seconds from the last request for a batch to the batch.
        traffic: what was read from a storage for the batches so far; see `storage.traffic`.

    Raises:
        DatasetError: there are too few items for one step.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        sampler: EpochSampler,
        batch_size: int,
        *,
        accumulate: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 60.0,
        bad_videos: BadVideos | None = None,
        max_bad_share: float = 0.01,
        stop_on_kill: bool = False,
    ) -> None:
        if sampler.training and len(sampler) < batch_size * accumulate:
            batches, key = "one batch", "data.batch_size"
            if accumulate > 1:
                batches, key = f"a step of {accumulate} batches", "task.batch.global"
            raise DatasetError(
                f"{len(sampler)} {sampler.media.noun} per process do not fill {batches} of "
                f"{batch_size}; lower {key}"
            )
        self.dataset, self.sampler = dataset, sampler
        self.batch_size, self.accumulate = batch_size, accumulate
        self.batch_sampler = None  # Lightning expects it beside a sampler
        self.num_workers, self.pin_memory, self.timeout = num_workers, pin_memory, timeout
        self.bad_videos = bad_videos or BadVideos(None)
        self.max_bad_share, self.stop_on_kill = max_bad_share, stop_on_kill
        self.waited = 0.0
        self.traffic: Counter[str] = Counter()
        self._attempts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self._batch_sizes(len(self.sampler)))

    @property
    def most_bad(self) -> int:
        """How many of an epoch's videos may fail, in all processes together.

        The share is rounded up, so that one bad video does not end a run on few videos.
        """
        share = self.max_bad_share * self.sampler.length
        return math.ceil(round(share, 6))  # 0.07 * 100 is a little more than 7

    @property
    def batches_left(self) -> int:
        """Batches of this epoch that are still to come."""
        return len(self._batch_sizes(len(self.sampler.positions())))

    def __iter__(self) -> Iterator[Batch]:
        # This is a generator, so that nothing starts before the first batch is asked for: Lightning
        # calls `iter` before it tells the sampler which epoch it is.
        sampler, step = self.sampler, self.batch_size * self.sampler.world_size
        self._attempts.clear()
        if sampler.training and not self.batches_left:
            sampler.set_epoch(sampler.epoch + 1)
        self.bad_videos.refresh()
        bad: dict[int, Failure] = {}  # of this epoch, by video
        outage = Outage(self.most_bad, len(sampler.positions()), self.dataset.manifest.path)

        before = Counter(self.traffic)

        def finish(items_and_frames: tuple[list[Item], Tensor]) -> Batch:
            for item in items_and_frames[0]:
                self.traffic.update(item.pop("traffic"))
            batch = join_items(*items_and_frames)
            self._note(batch["failed"], bad)
            if not sampler.training and self.max_bad_share < 1:
                for item in items_and_frames[0]:
                    outage.count(item["failed"])
            if sampler.training:
                sampler.used += step
            return batch

        try:
            with closing(self._batches()) as batches:
                # No variable here refers to a batch, so that its frames are free as soon as it is.
                yield from _Timed(map(finish, batches), self)
        finally:  # the trainer need not ask for more than the last batch
            self._describe(self.traffic - before)

    def state_dict(self) -> dict[str, int]:
        """The position: the epoch, and how many of its samples all processes have used."""
        position = {"epoch": self.sampler.epoch, "used": self.sampler.used}
        return position | {"videos": self.sampler.length}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after the last batch of the saved state; other videos are only warned of.

        The first process does so.
        """
        before, now = state_dict.get("videos", self.sampler.length), self.sampler.length
        if before != now and self.sampler.rank == 0:
            noun = self.sampler.media.noun
            log.warning(f"resumed with {now} training {noun}; there were {before} of them before")
        self.sampler.epoch, self.sampler.used = state_dict["epoch"], state_dict["used"]

    def _batch_sizes(self, items: int) -> list[int]:
        """Sizes of the batches that a number of items make."""
        whole, rest = divmod(items, self.batch_size)
        if self.sampler.training:
            return [self.batch_size] * (whole - whole % self.accumulate)
        return [self.batch_size] * whole + ([rest] if rest else [])

    def _batches(self) -> Generator[tuple[list[Item], Tensor]]:
        """The batches of this process that are left, as `Workers` yields them."""
        order, positions = self.sampler.order(), self.sampler.positions()
        sizes = self._batch_sizes(len(positions))
        epoch = self.sampler.epoch if self.sampler.training else 0

        def make(k: int, reading: Callable[[int], None]) -> Item:
            before = Counter(traffic)
            item = self._item(order, positions[k], epoch, reading)
            return item | {"traffic": traffic - before}

        if not sizes:
            return
        if not self.num_workers:
            items = (make(k, lambda _: None) for k in range(sum(sizes)))
            for size in sizes:
                shape = (size * self.dataset.item_shape[0], *self.dataset.item_shape[1:])
                yield gather(islice(items, size), shape, self.pin_memory)
            return
        yield from Workers(
            make,
            sizes,
            self.dataset.item_shape,
            num_workers=self.num_workers,
            timeout=self.timeout,
            on_fault=self._lost_worker,
            pin_memory=self.pin_memory,
        )

    def _item(
        self, order: np.ndarray, position: int, epoch: int, reading: Callable[[int], None]
    ) -> Item:
        """The item at a position of the order, or in training the next one that can be made."""
        manifest, failed, skipped = self.dataset.manifest, [], 0
        for step in range(len(order)):
            index = int(order[(position + step) % len(order)])
            try:
                item = self._open(epoch, index, reading) | {"failed": failed}
                return item | ({"skipped": torch.tensor([skipped])} if "skipped" in item else {})
            except NothingToLearn:
                skipped += 1
            except VideoDecodeError as error:
                unreadable = isinstance(error, UnreadableVideo)
                failed.append(Failure(index, manifest.label(index), error.reason, unreadable))
                if not self.sampler.training or len(failed) > self.most_bad:
                    # In training, `_note` now stops.
                    return self.dataset.empty(index) | {"failed": failed}
        bad = f", and {len(failed)} cannot be decoded: {failed[-1].reason}" if failed else ""
        raise DatasetError(f"none of {len(order)} training items has anything to learn from{bad}")

    def _open(self, epoch: int, index: int, reading: Callable[[int], None]) -> Item:
        path = self.dataset.manifest.path(index)
        # The list of an earlier run must not change the result of an evaluation. A stamp costs a
        # look at the disk, so it is read only for listed videos.
        listed = self.sampler.training and self.bad_videos.lists(path)
        stamp = self.dataset.manifest.stamp(index) if listed else None
        if (reason := self.bad_videos.why_not_open(path, stamp)) is not None:
            raise VideoDecodeError(path, reason)
        reading(index)
        return self.dataset[epoch, index]

    def _lost_worker(self, index: int, reason: str, hung: bool) -> None:
        """Give up a video that a worker was lost to, unless it gets another attempt."""
        path = self.dataset.manifest.path(index)
        self._attempts[path] += 1
        if self._attempts[path] < _ATTEMPTS:
            log.warning(f"{path}: {reason}; it will be tried once more")
            return
        # If remote storage does not answer, that is not the video's fault.
        keep = not (hung and self.dataset.manifest.is_remote(index))
        kept = self.bad_videos.note_killed(path, reason, self.dataset.manifest.stamp(index), keep)
        if self.stop_on_kill:
            hint = f"; {kept} lists it now, and resume=auto continues without it" if kept else ""
            raise VideoDecodeError(path, f"{reason} (data.stop_on_kill=true){hint}")

    def _note(self, failed: list[Failure], bad: dict[int, Failure]) -> None:
        """Record failures, and add them to ``bad``, the videos of this epoch that failed."""
        for failure in failed:
            bad[failure.video_id] = failure
            path = self.dataset.manifest.path(failure.video_id)
            self.bad_videos.note(path, failure.reason)
            if self.sampler.training:
                last = f"{path}: {failure.reason}"
                check_training(bad.values(), self.most_bad, last)
                self.check_bad(len(bad), f"; the last of them {last}")

    def _describe(self, read: Counter[str]) -> None:
        """Log what was read from a storage; of processes but the first, only if there is news."""
        if not (read["requests"] or read["hits"]) or (self.sampler.rank and not read["retries"]):
            return
        process = f" by process {self.sampler.rank}" if self.sampler.world_size > 1 else ""
        opened = read["hits"] + read["misses"]
        noun = self.sampler.media.noun
        cached = f"; {read['hits']:,} of {opened:,} {noun} were in data.cache_dir"
        log.info(
            f"read from the storage{process}: {read['bytes'] / 2**30:.2f} GiB in "
            f"{read['requests']:,} requests, {read['retries']:,} of them retries"
            f"{cached if opened else ''}"
        )

    def check_bad(self, bad: int, more: str = "") -> None:
        """Stop if more of an epoch's videos failed than ``max_bad_share`` allows.

        Args:
            bad: number of videos that failed.
            more: end of the message.

        Raises:
            TooManyBadVideos: too many failed.
        """
        if bad > self.most_bad:
            noun = self.sampler.media.noun
            raise TooManyBadVideos(
                f"{bad} of this epoch's {self.sampler.length} {noun} cannot be decoded, more than "
                f"data.max_bad_share={self.max_bad_share:g} allows ({self.most_bad}); raise it, "
                f"or leave bad {noun} out with `hiera-video prepare`{more}"
            )


class _Timed(Iterator[Batch]):
    """The batches of a loader, which notes how long each of them took."""

    def __init__(self, batches: Iterator[Batch], loader: Loader) -> None:
        self._batches, self._loader = batches, loader

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self._loader.waited = time.perf_counter() - start
