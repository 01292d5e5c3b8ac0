"""A test that is cut off goes on, and ends as if it had not been; predictions are not lost."""

import json
import multiprocessing
import time
from functools import partial

import pyarrow.parquet as pq
import pytest
import torch
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from datamodules.errors import StorageFailure
from datamodules.files import take_lock
from hiera_video.augment.basic import Normalize
from hiera_video.augment.pipeline import Augmentation
from hiera_video.callbacks.confusion import ConfusionPicture
from hiera_video.callbacks.predictions import PredictionLines, PredictionTable
from hiera_video.errors import PredictionFileError
from hiera_video.results.prediction_parts import lock_folder
from hiera_video.tasks.classification import ClassificationTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_model
from tests.quick_trainer import quick_trainer, without_advice

BAD = ("/10/3.mp4", "/10/8.mp4")


class StopAfter(Callback):
    """The machine goes down after a batch."""

    def __init__(self, batch, error):
        self.batch, self.error = batch, error

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            raise self.error


def run_test(folder, callbacks=(), data=None, logger=False, mean=0.45, weights=None, **trainer):
    """Summary and data after a test of ten videos, two of which are bad."""
    torch.manual_seed(0)
    augment = Augmentation(normalize=Normalize((mean,) * 3))
    task = ClassificationTask(
        lambda num_classes: tiny_model(num_classes=num_classes), augment=augment
    )
    table = PredictionTable(folder / "predictions.parquet", weights)
    trainer = quick_trainer(callbacks=[table, *callbacks], logger=logger, **trainer)
    data = data or ColourVideos(test="10", bad=BAD, test_views=(2, 3), eval_batch_size=2)
    trainer.test(task, datamodule=data, verbose=False)
    return task.results.summary(), data


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Results and table of a test that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with without_advice():  # this fixture comes before those of a test
        summary, _ = run_test(folder)
    return summary, pq.read_table(folder / "predictions.parquet")


def test_rows_are_sorted_and_failures_are_listed(whole):
    summary, table = whole
    rows = table.to_pylist()
    keys = [(r["video_id"], r["temporal_view"], r["spatial_view"]) for r in rows]
    good = [i for i in range(10) if i not in (3, 8)]
    assert keys == [(i, t, s) for i in good for t in range(2) for s in range(3)]
    assert all(row["path"] == f"/10/{row['video_id']}.mp4" for row in rows)
    assert summary["failed"] == list(BAD)
    assert summary["videos"] == 10
    assert list(summary["views"]) == ["1x1", "1x2", "1x3", "2x1", "2x2", "2x3"]
    assert summary["views"]["2x3"]["top1"] == summary["top1"]


@pytest.mark.parametrize("batch", [0, 2, 4])
def test_a_test_that_was_cut_off_goes_on(tmp_path, whole, batch):
    stop = StopAfter(batch, OSError("the disk is gone"))
    with pytest.raises(OSError, match="the disk is gone"):
        run_test(tmp_path, [stop])
    assert not (tmp_path / "predictions.parquet").exists()
    summary, data = run_test(tmp_path)
    # The callback that stops comes after the one that writes.
    assert data.loaded == [max(1, 10 - 2 * (batch + 1))]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert summary == whole[0]
    assert table.drop(["probabilities"]).equals(whole[1].drop(["probabilities"]))
    columns = [torch.tensor(t["probabilities"].to_pylist()) for t in (table, whole[1])]
    torch.testing.assert_close(*columns, rtol=0, atol=1e-6)
    assert table.schema.metadata == whole[1].schema.metadata


def test_a_test_whose_storage_failed_reads_its_videos_again(tmp_path, whole):
    kind = {"test_views": (2, 3), "eval_batch_size": 2}
    away = ColourVideos(test="10", bad=BAD, gone=("/10/1.mp4", "/10/6.mp4"), **kind)
    with pytest.raises(StorageFailure, match=r"/10/6\.mp4: No such file"):
        run_test(tmp_path, data=away)
    assert not (tmp_path / "predictions.parquet").exists()
    summary, data = run_test(tmp_path)
    assert data.loaded == [5]  # the four of the last batches, and the one that was left out
    assert summary == whole[0]
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.schema.metadata == whole[1].schema.metadata


def test_a_video_that_has_gone_is_listed(tmp_path):
    data = ColourVideos(test="10", gone=("/10/6.mp4",), test_views=(1, 1))
    assert run_test(tmp_path, data=data)[0]["failed"] == ["/10/6.mp4"]
    metadata = pq.read_schema(tmp_path / "predictions.parquet").metadata
    (failed,) = json.loads(metadata[b"failed"])
    assert failed["reason"] == "No such file or directory"


def test_another_test_is_not_continued(tmp_path):
    weights = tmp_path / "some.ckpt"
    weights.write_text("some")
    with pytest.raises(OSError, match="gone"):
        run_test(tmp_path, [StopAfter(1, OSError("gone"))], weights=weights)
    run = partial(run_test, tmp_path, weights=weights)
    kind = {"bad": BAD, "test_views": (2, 3), "eval_batch_size": 2}
    for key, change in {
        "spatial_views": {"data": ColourVideos(test="10", **kind | {"test_views": (2, 1)})},
        "videos": {"data": ColourVideos(test="11", **kind)},
        "normalisation": {"mean": 0.5},
        "precision": {"precision": "bf16-mixed"},
        "weights": {"weights": tmp_path / "other.ckpt"},
    }.items():
        with pytest.raises(MisconfigurationException, match=f"another {key}; set another run_dir"):
            run(**change)
    weights.write_text("others")  # of the same name
    with pytest.raises(MisconfigurationException, match="another weights"):
        run()


def test_two_tests_do_not_share_a_folder(tmp_path):
    with (
        lock_folder(tmp_path / "predictions.parquet.parts"),
        pytest.raises(PredictionFileError, match="a test is under way there"),
    ):
        run_test(tmp_path)


def test_a_damaged_part_is_named(tmp_path):
    parts = tmp_path / "predictions.parquet.parts"
    parts.mkdir()
    (parts / "1-00000.parquet").write_text("junk")
    with pytest.raises(PredictionFileError, match=r"1-00000.parquet: not a Parquet file"):
        run_test(tmp_path)


def test_what_was_joined_need_not_be_tested_again(tmp_path, whole):
    run_test(tmp_path)  # and the machine went down before its results were written
    summary, data = run_test(tmp_path)
    assert data.loaded == [1]
    assert summary == whole[0]
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.drop(["probabilities"]).equals(whole[1].drop(["probabilities"]))


def test_a_test_that_did_nothing_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="at once"):
        run_test(tmp_path, [StopAtStart()])
    assert not list(tmp_path.iterdir())


class StopAtStart(Callback):
    """Before anything is evaluated."""

    def on_test_start(self, trainer, pl_module):
        raise OSError("at once")


def test_the_confusion_matrix_is_painted(tmp_path):
    logger = TensorBoardLogger(tmp_path, "tensorboard", "")
    run_test(tmp_path, [ConfusionPicture(tmp_path / "confusion.png")], logger=logger)
    with Image.open(tmp_path / "confusion.png") as picture:
        size = picture.size
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"), {"images": 0})
    events.Reload()
    (image,) = events.Images("test/confusion")
    assert (image.width, image.height) == size


def predict(folder):
    """Write ``out.jsonl`` of three videos, the first of which is bad."""
    videos = [folder / name for name in ("0.mp4", "1.mp4", "2.mp4")]
    for video in videos:
        video.touch()
    augment = Augmentation(normalize=Normalize())
    task = ClassificationTask(
        lambda num_classes: tiny_model(num_classes=num_classes), augment=augment
    )
    task.class_names = ("red", "green", "blue")
    trainer = quick_trainer(callbacks=[PredictionLines(folder / "out.jsonl", top=1)])
    paths = [str(video) for video in videos]
    data = ColourVideos(predict=paths, bad=paths[:1], eval_batch_size=2)
    trainer.predict(task, datamodule=data, return_predictions=False)
    return paths


def _write_half(part, started):
    with open(part, "a") as file:
        take_lock(file)
        file.write("half\n")
        file.flush()
        started.send("started")
        time.sleep(60)


def test_two_runs_do_not_write_the_same_predictions(tmp_path):
    forked = multiprocessing.get_context("fork")
    ours, theirs = forked.Pipe()
    part, second = (tmp_path / f"out.jsonl.part{rank}" for rank in range(2))
    second.write_text("half\n")
    other = forked.Process(target=_write_half, args=(part, theirs))
    other.start()
    ours.recv()
    with pytest.raises(MisconfigurationException, match="another run is writing it; wait for it"):
        predict(tmp_path)
    assert part.read_text() == second.read_text() == "half\n"  # untouched
    other.kill()
    other.join()
    videos = predict(tmp_path)  # the other's lock went with it
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == videos
    assert ["error" in line for line in lines] == [True, False, False]
    assert not part.exists()
    assert not second.exists()
    with pytest.raises(MisconfigurationException, match="exists already; set another out="):
        predict(tmp_path)


def test_a_run_that_begins_as_another_ends_overwrites_nothing(tmp_path, monkeypatch):
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part0"
    part.write_text("whole\n")

    def lock(file):  # the other run's file gets its name, and its lock is given back
        part.rename(out)
        take_lock(file)

    monkeypatch.setattr("hiera_video.callbacks.predictions.take_lock", lock)
    with pytest.raises(MisconfigurationException, match="exists already"):
        predict(tmp_path)
    assert out.read_text() == "whole\n"


def test_top_below_1_is_refused():
    with pytest.raises(ValueError, match="top must be at least 1, not 0"):
        PredictionLines("a", top=0)
