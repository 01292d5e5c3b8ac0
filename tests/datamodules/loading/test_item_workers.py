"""Videos that hang or crash their reader, through the loader."""

import csv
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from datamodules.errors import DatasetError, TooManyBadVideos, VideoDecodeError
from datamodules.loading.bad_videos import BadVideos, Failure
from datamodules.loading.loader import Loader
from datamodules.loading.sampler import EpochSampler
from datamodules.suffixes import PICTURES
from tests.datamodules.loading.numbers import Numbers


def make_loader(faults, *, length=24, batch_size=4, workers=2, training=True, **options):
    sampler = EpochSampler(length, training=training, seed=5)
    options = {"timeout": 1.0, "max_bad_share": 0.2, **options}
    return Loader(Numbers(length, faults), sampler, batch_size, num_workers=workers, **options)


def ids(batches):
    return [batch["video_id"].tolist() for batch in batches]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("error", "damaged data"),
        ("hang", "took longer than 1 s to read"),
        ("crash", "the decoder's process was ended by SIGSEGV"),
        ("memory", "the decoder's process was ended by SIGKILL; out of memory?"),
    ],
)
def test_training_takes_the_next_video_of_the_order(tmp_path, fault, reason):
    order = EpochSampler(24, training=True, seed=5).order().tolist()
    bad = order[9]
    expected = [*order[:9], order[10], *order[10:]]
    file, killed = tmp_path / "bad.csv", tmp_path / "killed.csv"
    batches = list(make_loader({bad: fault}, bad_videos=BadVideos(file, killed)))
    assert sum(ids(batches), []) == expected
    assert [len(batch["failed"]) for batch in batches] == [0, 0, 1, 0, 0, 0]
    assert batches[2]["failed"][0] == Failure(bad, bad % 5, reason)
    with open(file, newline="") as rows:
        (row,) = csv.DictReader(rows)
    assert row == {"path": f"/videos/{bad}.mp4", "reason": reason}

    # A later run makes the same batches, and opens no video again that cost a worker.
    listed = BadVideos(None, killed)
    again = make_loader({} if fault != "error" else {bad: fault}, bad_videos=listed)
    assert sum(ids(again), []) == expected


@pytest.mark.parametrize("fault", ["error", "hang", "crash"])
def test_evaluation_replaces_nothing(fault):
    faults = dict.fromkeys((0, 7, 8, 23), fault)
    loader = make_loader(faults, training=False, timeout=0.3, max_bad_share=0.0)
    batches = list(loader)
    assert sum(ids(batches), []) == [i for i in range(24) if i not in faults]
    assert [f.video_id for batch in batches for f in batch["failed"]] == [0, 7, 8, 23]


def test_a_whole_batch_may_fail():
    first = next(iter(make_loader(dict.fromkeys(range(4), "error"), training=False)))
    assert first["video"].shape == (0, 3, 1, 1, 1)
    assert len(first["failed"]) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_videos_stop_training(tmp_path, workers):
    bad = dict.fromkeys(range(24), "error")
    file = tmp_path / "bad.csv"
    loader = make_loader(bad, workers=workers, max_bad_share=0.1, bad_videos=BadVideos(file))
    message = (
        "4 of this epoch's 24 videos cannot be decoded, more than data.max_bad_share=0.1 allows "
        "(3); raise it, or leave bad videos out with `hiera-video prepare`; the last of them /"
    )
    with pytest.raises(TooManyBadVideos, match=re.escape(message)):
        list(loader)
    assert len(file.read_text().splitlines()) == 5


def test_as_many_bad_videos_as_are_allowed_do_not():
    order = EpochSampler(24, training=True, seed=5).order()
    bad = dict.fromkeys(order[[0, 1, 23]].tolist(), "error")
    assert len(list(make_loader(bad, max_bad_share=0.125))) == 6


@pytest.mark.parametrize(
    ("videos", "share", "most"),
    [(41, 0.01, 1), (100, 0.01, 1), (101, 0.01, 2), (100, 0.07, 7), (41, 0.0, 0)],
)
def test_the_share_of_bad_videos_is_rounded_up_to_whole_videos(videos, share, most):
    sampler = EpochSampler(videos, training=True)
    loader = Loader(Numbers(videos, {}), sampler, 2, max_bad_share=share)
    loader.check_bad(most)
    with pytest.raises(TooManyBadVideos, match=f"more than .* allows \\({most}\\)"):
        loader.check_bad(most + 1)


def test_messages_call_the_items_what_they_are():
    images = EpochSampler(24, training=True, media=PICTURES)
    with pytest.raises(TooManyBadVideos, match="1 of this epoch's 24 images .* leave bad images"):
        Loader(Numbers(24, {}), images, 2, max_bad_share=0.0).check_bad(1)
    with pytest.raises(DatasetError, match="24 images per process do not fill one batch of 25"):
        Loader(Numbers(24, {}), images, 25)
    with pytest.raises(DatasetError, match="1 image: too few for 2 processes"):
        EpochSampler(1, training=True, world_size=2, media=PICTURES)


def test_it_may_stop_instead_and_say_how_to_go_on(tmp_path):
    def loader():
        bad_videos = BadVideos(None, tmp_path / "killed.csv")
        return make_loader({3: "crash"}, stop_on_kill=True, bad_videos=bad_videos)

    with pytest.raises(VideoDecodeError, match=r"3\.mp4: .* by SIGSEGV .*killed.csv lists it"):
        list(loader())
    assert 3 not in sum(ids(loader()), [])


@pytest.mark.parametrize("fault", ["hang", "crash"])
def test_a_video_that_costs_a_worker_gets_one_more_try(tmp_path, fault):
    bad_videos = BadVideos(tmp_path / "bad.csv")
    loader = make_loader({3: f"{fault} once"}, bad_videos=bad_videos)
    loader.dataset.marks = tmp_path
    assert sorted(sum(ids(loader), [])) == list(range(24))
    assert not (tmp_path / "bad.csv").exists()


def test_a_worker_that_blocks_before_it_opens_a_video_is_noticed():
    class Unreachable(BadVideos):
        def why_not_open(self, path, stamp):
            time.sleep(1000)

    loader = make_loader({}, timeout=0.3, bad_videos=Unreachable(None))
    with pytest.raises(RuntimeError, match="lost before it reads a video .*longer than 0.3 s"):
        next(iter(loader))


def test_processes_make_equally_many_batches_whatever_fails():
    bad = dict.fromkeys((0, 5, 6, 20), "error")
    batches = []
    for rank in range(3):
        sampler = EpochSampler(24, training=True, seed=5, rank=rank, world_size=3)
        loader = Loader(Numbers(24, bad), sampler, 2, num_workers=1, max_bad_share=0.2)
        batches.append(ids(loader))
    assert [[len(batch) for batch in rank] for rank in batches] == [[2] * 4] * 3
    assert not set(bad) & {i for rank in batches for batch in rank for i in batch}


def test_a_video_that_changed_since_it_was_listed_gets_two_tries_and_no_more(tmp_path):
    killed = tmp_path / "killed.csv"
    killed.write_text("path,reason,stamp\n/videos/3.mp4,hung,of the old file\n")
    loader = make_loader({3: "crash"}, bad_videos=BadVideos(None, killed))
    assert 3 not in sum(ids(loader), [])
    assert killed.read_text().splitlines()[-1].startswith("/videos/3.mp4,the decoder's process")


def test_an_evaluation_opens_what_an_earlier_run_listed(tmp_path):
    killed = BadVideos(None, tmp_path / "killed.csv")
    killed.note_killed("/videos/3.mp4", "hung", "")
    listed = BadVideos(None, tmp_path / "killed.csv")
    assert 3 in sum(ids(make_loader({}, training=False, bad_videos=listed)), [])
    assert 3 not in sum(ids(make_loader({}, bad_videos=listed)), [])


def test_a_bug_in_a_worker_is_raised_with_its_traceback():
    with pytest.raises(KeyError, match="a bug") as caught:
        list(make_loader({5: "bug"}))
    assert "numbers.py" in caught.value.__notes__[0]


def children():
    """Ids of this process's children that still run."""
    path = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    with open(path) as file:
        return file.read().split()


def test_no_process_outlives_a_loader_that_is_broken_off():
    before = children()
    batches = iter(make_loader({}))
    next(batches)
    assert len(children()) == len(before) + 2
    batches.close()
    assert children() == before


def test_workers_leave_signals_to_the_parent():
    before = children()
    batches = iter(make_loader({}, length=100, training=False, batch_size=1))
    for _ in range(2):  # one of each worker, which is ready by then
        next(batches)
    workers = children()
    for pid in set(workers) - set(before):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(int(pid), number)
    for _ in range(50):
        next(batches)
    assert children() == workers
    batches.close()


def test_workers_end_when_their_parent_does():
    """One parent is killed and one ends. Each has two loaders, and one of their workers hangs."""
    script = """
import os, signal, sys
from tests.datamodules.loading.test_item_workers import children, make_loader
options = {"length": 400, "training": False, "batch_size": 1, "timeout": 100}
loaders = [iter(make_loader(faults, **options)) for faults in ({}, {1: "hang"})]
for batches in loaders:
    next(batches)
print(*children(), flush=True)
if "kill" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    program = [sys.executable, "-c", script]
    parents = [
        subprocess.Popen([*program, word], stdout=subprocess.PIPE, text=True)
        for word in ("kill", "end")
    ]
    pids = []
    for parent, code in zip(parents, (-signal.SIGKILL, 0), strict=True):
        with parent:
            output, _ = parent.communicate(timeout=60)
            assert parent.returncode == code
            assert len(output.split()) == 4
            pids += output.split()
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_long_pause_of_the_trainer_is_no_hang():
    batches = iter(make_loader({}, timeout=0.5))
    next(batches)
    time.sleep(1.5)
    assert sum(len(batch["failed"]) for batch in batches) == 0


def test_files_that_the_parent_opened_do_not_reach_the_workers(tmp_path):
    import numpy as np

    from datamodules.clips.format import ClipFormat
    from datamodules.clips.videos import TrainingClips
    from datamodules.manifests.splits import make_manifest
    from datamodules.synthetic import CLASS_NAMES, render, write_h264
    from datamodules.video.decoding import VideoFile

    paths = []
    for i, motion in enumerate(CLASS_NAMES):
        path = tmp_path / f"{motion}.mp4"
        write_h264(path, render(motion, np.random.default_rng(i), 12, 64))
        paths.append(str(path))
    # Several decoder threads, which a fork would not copy.
    files = [VideoFile(path, threads=4) for path in paths]
    for file in files:
        file.frames_at([0.1])
    clips = TrainingClips(
        make_manifest(paths, [0] * 8, ["a"]), ClipFormat(4, 2, 30, 32, 32), 1, (1, 1), (1, 1), 0
    )
    sampler = EpochSampler(8, training=True)
    of_parent = list(Loader(clips, sampler, 2))
    sampler.used = 0
    of_workers = list(Loader(clips, sampler, 2, num_workers=2, timeout=20))
    for a, b in zip(of_parent, of_workers, strict=True):
        assert torch.equal(a["video"], b["video"])
        assert b["failed"] == []
    assert all(len(file.frames_at([0.2])) == 1 for file in files)
