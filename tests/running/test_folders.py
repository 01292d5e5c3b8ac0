"""A folder has one run, and a run one process that writes."""

import multiprocessing
import os
import time

import pytest

from hiera_video.errors import UsageError
from hiera_video.running.folders import (
    RUN_ID_VARIABLES,
    is_training,
    locked,
    newest_training,
    own_run_folder,
    remove_failed_start,
    run_folder,
)

forked = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _no_launcher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in RUN_ID_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def _put_folder(start, queue):
    start.wait()
    queue.put(own_run_folder("x", "fit", None))


def test_runs_that_start_in_the_same_second_get_a_folder_each():
    queue, start = forked.Queue(), forked.Barrier(12)
    processes = [forked.Process(target=_put_folder, args=(start, queue)) for _ in range(12)]
    for process in processes:
        process.start()
    folders = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(folders) == len(processes)


def test_naming_a_folder_does_not_create_it(tmp_path):
    run_folder("x", "fit", None)
    assert not list(tmp_path.iterdir())


def _hold(folder, held):
    with locked(folder):
        if not os.fork():  # as decoding processes are
            time.sleep(5)
            os._exit(0)
        held.send("held")
        time.sleep(60)


@pytest.fixture
def held(tmp_path):
    """A run whose folder another process has locked, and that process."""
    folder = tmp_path / "runs/x/fit-a"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/last.ckpt").touch()
    ours, theirs = forked.Pipe()
    process = forked.Process(target=_hold, args=(folder, theirs))
    process.start()
    ours.recv()
    yield folder, process
    process.kill()
    process.join()


def test_a_second_run_is_kept_out_until_the_first_one_ends(held):
    folder, process = held
    assert is_training(folder)
    with pytest.raises(UsageError, match=f"process {process.pid} on .* is training there"):
        locked(folder).__enter__()
    process.kill()
    process.join()
    assert not is_training(folder)
    with locked(folder):
        pass


def test_auto_does_not_join_a_run_that_is_under_way(held):
    folder, process = held
    assert newest_training("x") == folder.relative_to(folder.parents[2])
    assert run_folder("x", "fit", "auto") != "runs/x/fit-a"
    process.kill()
    process.join()
    assert run_folder("x", "fit", "auto") == "runs/x/fit-a"


def test_half_files_of_a_killed_save_are_removed(tmp_path):
    unfinished = tmp_path / "checkpoints/.1234.unfinished"
    unfinished.parent.mkdir()
    unfinished.touch()
    with locked(tmp_path):
        assert not unfinished.exists()


def test_a_start_that_failed_leaves_nothing(tmp_path):
    folder = tmp_path / own_run_folder("x/y", "fit", None)
    (folder / ".hydra").mkdir()
    (folder / "log.log").touch()
    remove_failed_start(folder)
    assert not list(tmp_path.iterdir())


def test_a_start_that_failed_leaves_what_was_there(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard/old").touch()
    (tmp_path / "of_before.log").touch()
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "log.log").touch()
    remove_failed_start(tmp_path, {"tensorboard", "of_before.log"})
    assert {path.name for path in tmp_path.rglob("*")} == {"tensorboard", "old", "of_before.log"}


def test_a_run_that_did_something_is_not_removed(tmp_path):
    (tmp_path / "run.json").touch()
    (tmp_path / "log.log").touch()
    remove_failed_start(tmp_path)
    assert (tmp_path / "run.json").exists()
