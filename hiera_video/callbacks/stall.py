"""Name the process that the other processes of a run wait for in vain."""

import json
import logging
import math
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from lightning import Callback, LightningModule, Trainer
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.constants import default_pg_timeout

from hiera_video.errors import SILENT_PROCESS
from hiera_video.tasks.lightning_private import timeout_of

log = logging.getLogger(__name__)

THREAD = "stall report"  # name of the thread that watches
_WARN_AFTER = 0.8  # of the time in which processes must answer
_ANSWER_SECONDS = 5  # in which those that gave up say so, and in which the store answers


class Mark(NamedTuple):
    """How far a process has come. Marks compare by their order in a run.

    Attributes:
        gave_up: it has waited for others in vain.
        batches: training batches begun since the start.
        stage: 0 within a batch, 1 after it, then a bit more for each batch of a probe's training
            videos, then 2 and one more for each batch of an evaluation or of `predict`.
        text: the same for people, such as "in step 12".
        host: name of its machine.
    """

    gave_up: bool
    batches: int
    stage: float
    text: str
    host: str

    @property
    def order(self) -> tuple[bool, int, float]:
        """What says which of two processes is behind."""
        return self.gave_up, self.batches, self.stage


def behind(marks: list[Mark]) -> str | None:
    """The processes that the others wait for, in words; None if all have come equally far.

    Args:
        marks: one for each process of a run.
    """
    last = min(mark.order for mark in marks)
    if last == max(mark.order for mark in marks):
        return None
    late = [(rank, mark) for rank, mark in enumerate(marks) if mark.order == last]
    rank, mark = late[0]
    others = f" and {len(late) - 1} more" if len(late) > 1 else ""
    return f"process {rank}{others} on {mark.host}, which stands {mark.text}"


class StallReport(Callback):
    """Say which process of a run hangs, and where, before the others give up.

    Each process notes how far it has come in the store at which the run's processes met: a message
    of some bytes at the start and the end of a batch, for which nothing waits. If a process has not
    gone on for most of the time that ``trainer.strategy.timeout`` allows, it compares the notes and
    logs what they say, once for each place where it stands. Notes are of the host: several steps
    may still be queued on a GPU. If all have come equally far, a process, a GPU or the network
    hangs, or what all of them do takes long, such as a metric over many videos: the notes cannot
    tell which.
    """

    def __init__(self) -> None:
        self._store: PrefixStore | None = None  # None: a single process
        self._rank = 0
        self._batches = 0
        self._mark = Mark(False, 0, 1, "before its first step", socket.gethostname())
        self._marked = time.monotonic()
        self._ended = threading.Event()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Meet the other processes, and watch over them from a thread of its own."""
        if trainer.world_size == 1:
            return
        self._store = _connect()
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        self._note(1, "before its first step")
        allowed = (timeout_of(trainer) or default_pg_timeout).total_seconds()
        watch = threading.Thread(target=self._watch, args=(allowed,), daemon=True, name=THREAD)
        watch.start()

    def on_train_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Note that a step begins."""
        self._batches += 1
        self._note(0, f"in step {trainer.global_step + 1}")

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Note that its batch has ended."""
        self._note(1, f"after step {trainer.global_step}")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note that an evaluation or `predict` has gone on."""
        self._note(2 + batch_idx, f"after batch {batch_idx + 1} of {_evaluation(trainer)}")

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that an evaluation or `predict` has ended."""
        self._note(math.inf, f"after {_evaluation(trainer)}")

    on_test_end = on_predict_end = on_validation_end

    def on_probe_batch_end(self, trainer: Trainer, batch_idx: int) -> None:
        """Note that a probe has read more training videos; see `hiera_video.tasks.probing`."""
        stage = 2 - 1 / (batch_idx + 2)  # they come before the batches of the evaluation
        self._note(stage, f"after batch {batch_idx + 1} of a probe's training videos")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Note in an error which process did not answer, if that is what ended the run."""
        if self._store is None or not SILENT_PROCESS.search(str(exception)):
            return
        self._ended.set()
        self._note(self._mark.stage, self._mark.text, gave_up=True)
        until = time.monotonic() + _ANSWER_SECONDS
        while (late := self._behind(self._marks())) and time.monotonic() < until:
            time.sleep(0.2)  # the others are about to give up, too
        if late:
            exception.add_note(late)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the thread."""
        self._ended.set()
        self._store = None

    def _note(self, stage: float, text: str, gave_up: bool = False) -> None:
        if self._store is None:
            return
        self._marked = time.monotonic()
        self._mark = self._mark._replace(
            gave_up=gave_up, batches=self._batches, stage=stage, text=text
        )
        with suppress(RuntimeError):  # its machine is gone, which the training is going to meet
            self._store.set(str(self._rank), json.dumps(self._mark))

    def _behind(self, marks: list[Mark] | None) -> str | None:
        """The processes that this one may be waiting for, in words; None: there is none.

        Args:
            marks: as `_marks` returns them.
        """
        if marks is None:
            return f"process 0, whose machine does not answer {self._mark.host}"
        return behind(marks)

    def _marks(self) -> list[Mark] | None:
        """How far each process has come; None if the machine of the store does not answer."""
        answers: list[list[Mark]] = []

        def ask() -> None:
            with suppress(RuntimeError):
                ranks = [str(rank) for rank in range(self._world_size)]
                notes = _connect().multi_get(ranks)
                answers.append([Mark(*json.loads(note)) for note in notes])

        if _is_reachable():
            # A connection and a thread of its own: torch sets no limit to the time of reading. All
            # else has one, within which the thread ends: in C++ it must not outlive the program.
            thread = threading.Thread(target=ask, daemon=True)
            thread.start()
            thread.join(3 * _ANSWER_SECONDS)
        return answers[0] if answers else None

    def _watch(self, allowed: float) -> None:
        told: float | None = None  # the time of the mark that was last warned of
        while not self._ended.wait(allowed / 100):
            marked = self._marked
            if marked == told or time.monotonic() - marked < _WARN_AFTER * allowed:
                continue
            told = marked
            log.warning(
                f"process {self._rank} has stood {self._mark.text} for {_WARN_AFTER * allowed:.0f} "
                f"s; {self._meaning()}"
            )

    def _meaning(self) -> str:
        """What it means that this process has not gone on for long."""
        marks = self._marks()
        late = self._behind(marks)
        if late is None:
            return (
                "all have come equally far: a process, a GPU or the network hangs, or what they "
                "do takes long"
            )
        if marks and marks[self._rank].order == min(mark.order for mark in marks):
            return "others wait for it"
        return f"it waits for {late}"


def _evaluation(trainer: Trainer) -> str:
    return "predict" if trainer.predicting else f"the evaluation at step {trainer.global_step}"


def _is_reachable() -> bool:
    """Whether the machine of the store answers in time."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    with suppress(OSError), socket.create_connection(place, timeout=_ANSWER_SECONDS):
        return True
    return False


def _connect() -> PrefixStore:
    """Connect to the store at which the processes of the run have met."""
    place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    wait = timedelta(seconds=_ANSWER_SECONDS)
    store = TCPStore(place, port, is_master=False, wait_for_workers=False, timeout=wait)
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # of those by torchrun
    return PrefixStore(f"hiera_video/stall/{start}", store)
