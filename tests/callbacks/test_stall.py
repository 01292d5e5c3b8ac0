import math
import socket
import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from hiera_video.callbacks import stall
from hiera_video.callbacks.stall import Mark, StallReport, behind


def mark(batches, stage, text="in step 7", gave_up=False, host="a"):
    return Mark(gave_up, batches, stage, text, host)


def test_all_have_come_equally_far():
    assert behind([mark(7, 0), mark(7, 0, host="b")]) is None


def test_the_slowest_is_named_with_its_place():
    marks = [mark(8, 0), mark(7, 1, "after step 7", host="b"), mark(8, 0)]
    assert behind(marks) == "process 1 on b, which stands after step 7"


def test_several_are_counted():
    assert behind([mark(7, 0), mark(7, 0), mark(7, 1)]) == (
        "process 0 and 1 more on a, which stands in step 7"
    )


def test_evaluations_have_an_order():
    marks = [mark(7, math.inf), mark(7, 3), mark(7, 2), mark(8, 0)]
    assert str(behind(marks)).startswith("process 2 ")


def test_one_that_still_works_is_behind_those_that_gave_up():
    # In the same step, only those that wait for the others notice that time is up.
    assert str(behind([mark(7, 0, gave_up=True), mark(9, 0)])).startswith("process 1 ")


@pytest.fixture
def clock(monkeypatch):
    """The time that the callbacks go by, in a list."""
    now = [0.0]
    monkeypatch.setattr(stall, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def two(monkeypatch):
    """The callbacks of two processes that wait 10 s for one another, with their trainers."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    strategy = DDPStrategy(timeout=timedelta(seconds=10))
    shared = {"world_size": 2, "global_step": 0, "strategy": strategy}
    shared |= {"predicting": True}
    trainers: list[Any] = [SimpleNamespace(global_rank=rank, **shared) for rank in range(2)]
    processes = [(StallReport(), trainer) for trainer in trainers]
    yield processes
    for report, trainer in processes:
        report.teardown(trainer, LightningModule(), "")
    for thread in threading.enumerate():  # before the clock and the store are the real ones again
        if thread.name == stall.THREAD:
            thread.join()


def start(processes):
    for report, trainer in processes:
        report.setup(trainer, LightningModule(), "")


def lines(caplog, number):
    """The lines that are logged, once there are so many, in some order."""
    until = time.monotonic() + 20
    while len(caplog.messages) < number and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)  # in which there could be more
    return sorted(caplog.messages)


def test_what_goes_on_is_not_warned_of(clock, two, caplog):
    start(two)
    for number in range(3):
        for report, trainer in two:
            report.on_probe_batch_end(trainer, number)
        clock[0] += 5
        time.sleep(0.3)  # in which each looks at the clock
    for number in range(3):
        for report, trainer in two:
            report.on_predict_batch_end(trainer, LightningModule(), None, None, number)
        clock[0] += 5
        time.sleep(0.3)
    assert not caplog.messages


def test_each_stall_is_warned_of_once(clock, two, caplog):
    start(two)
    clock[0] += 9
    equal = "all have come equally far: a process, a GPU or the network hangs, or what they do "
    assert lines(caplog, 2) == [
        f"process {rank} has stood before its first step for 8 s; {equal}takes long"
        for rank in range(2)
    ]
    caplog.clear()
    (first, trainer), (second, other) = two
    first.on_probe_batch_end(trainer, 1)
    second.on_probe_batch_end(other, 0)
    clock[0] += 9
    place = "after batch 1 of a probe's training videos"
    assert lines(caplog, 2) == [
        "process 0 has stood after batch 2 of a probe's training videos for 8 s; it waits for "
        f"process 1 on {socket.gethostname()}, which stands {place}",
        f"process 1 has stood {place} for 8 s; others wait for it",
    ]
