"""Numbers, pictures and settings of a real training reach each logger."""

import contextlib
import io
import resource
import sys
import threading

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hiera_video.callbacks.confusion import ConfusionPicture
from hiera_video.callbacks.hyperparameters import Hyperparameters
from hiera_video.callbacks.metrics_file import Curves, MetricsFile
from hiera_video.callbacks.pictures import log_picture
from hiera_video.callbacks.reconstructions import ReconstructionPictures
from hiera_video.callbacks.tracking import MLflowRun, WandbRun
from hiera_video.errors import UsageError
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae, tiny_model
from tests.quick_trainer import quick_trainer

CONFIG = {
    "name": "colours",
    "seed": 0,
    "model": {"_target_": "any.create", "name": "tiny", "stages": [1, 2], "drop_path_rate": 0.0},
    "task": {"lr": 0.1, "init_from": None, "optimizer": {"_target_": "torch.optim.SGD", "m": 0.9}},
    "data": {"batch_size": 4, "root": "/nowhere"},
}


def train(folder, logger, epochs=2, lr=0.1):
    """Train a classifier of three colours; returns its trainer."""
    torch.manual_seed(0)
    task = ClassificationTask(lambda num_classes: tiny_model(num_classes=num_classes))
    config = {**CONFIG, "task": {**CONFIG["task"], "lr": lr}}
    callbacks = [ConfusionPicture(folder / "confusion.png"), Hyperparameters(config)]
    callbacks.append(ModelCheckpoint(folder, monitor="val/top1", mode="max"))
    trainer = quick_trainer(
        max_epochs=epochs, logger=logger, callbacks=callbacks, enable_checkpointing=True
    )
    trainer.fit(task, datamodule=ColourVideos())
    return trainer


def events(folder):
    accumulator = EventAccumulator(str(folder), {"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def settings(accumulator):
    """The hyperparameters in a folder of TensorBoard."""
    from tensorboard.plugins.hparams import metadata

    content = accumulator.PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}


def test_tensorboard_has_pictures_and_curves_of_each_validation(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    trainer = train(tmp_path, [Curves(tmp_path, "tensorboard", ""), file])
    tags = events(tmp_path / "tensorboard")
    for name in ("val/confusion", "val/class_accuracy"):
        assert [image.step for image in tags.Images(name)] == [3, 6]
        with Image.open(io.BytesIO(tags.Images(name)[-1].encoded_image_string)) as picture:
            assert (picture.format, picture.width) == ("PNG", tags.Images(name)[-1].width)
    last = {name: tags.Scalars(f"val_class/{name}")[-1].value for name in ("red", "green", "blue")}
    assert sum(last.values()) / 3 == pytest.approx(float(trainer.callback_metrics["val/top1"]))
    one, other = (
        [value.step for value in tags.Scalars(name)] for name in ("val_class/red", "val/top1")
    )
    assert one == other
    assert "val_class" not in file.path.read_text()  # numbers of the run alone


def test_tensorboard_has_the_settings_of_the_last_end_with_its_metrics(tmp_path):
    for epochs, lr in ((1, 0.1), (2, 0.05)):  # the second start goes on with the run
        trainer = train(tmp_path, Curves(tmp_path, "tensorboard", ""), epochs, lr)
        final = events(tmp_path / "tensorboard/final")
        assert settings(final) == {
            "name": "colours",
            "seed": 0,
            "model.name": "tiny",
            "model.stages": "1 2",
            "model.drop_path_rate": 0,
            "task.lr": lr,
            "task.optimizer": "SGD",
            "task.optimizer.m": 0.9,
            "data.batch_size": 4,
        }
        assert {"final/top1", "best/top1"} <= set(final.Tags()["scalars"])
        (point,) = final.Scalars("final/top1")
        assert point.step == trainer.global_step
        assert point.value == pytest.approx(float(trainer.callback_metrics["val/top1"]))
    assert len(list((tmp_path / "tensorboard/final").iterdir())) == 1


def test_reconstructions_move_in_tensorboard(tmp_path):
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    callback = ReconstructionPictures(tmp_path / "pictures", num_clips=3)
    logger = Curves(tmp_path, "tensorboard", "")
    quick_trainer(callbacks=[callback], logger=logger).fit(task, datamodule=ColourVideos())
    (image,) = events(tmp_path / "tensorboard").Images("reconstruction")
    with Image.open(io.BytesIO(image.encoded_image_string)) as picture:
        assert (picture.format, getattr(picture, "n_frames", 1)) == ("GIF", 2)
        # Captions, then three clips side by side, each in four rows.
        assert picture.size == (image.width, image.height) == (100 + 3 * 68, 4 * 68)
    assert (tmp_path / "pictures/step-0000003.png").exists()


def test_a_full_disk_costs_pictures_and_nothing_else(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # TensorBoard's writer ends so
    curves = Curves(tmp_path, "tensorboard", "")
    curves.experiment.flush()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        picture = Image.effect_noise((64, 64), 80).convert("RGB")
        for step in (1, 2):
            log_picture([curves], "noise", picture, step, "noise")
            with contextlib.suppress(OSError):
                curves.experiment.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the picture noise of step 2 is not in TensorBoard: File too large" in caplog.text
    curves.finalize("success")


def test_wandb_offline_keeps_its_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")

    def start():
        run = WandbRun(tmp_path / "wandb_id.txt", save_dir=str(tmp_path), project="p", offline=True)
        train(tmp_path, run)
        assert wandb.run is None  # so that the next run of a sweep is another one
        return run.experiment

    first = start()
    assert (tmp_path / "wandb_id.txt").read_text() == f"{first.id}\n"
    assert first.config["task.lr"] == 0.1
    (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{first.id}")
    written = (folder / f"run-{first.id}.wandb").read_bytes()
    for name in (b"final/top1", b"best/top1", b"val/top1", b"val_class/red"):
        assert name in written
    pictures = [file.name for file in (folder / "files/media/images/val").iterdir()]
    assert sorted(name.partition("_")[0] for name in pictures) == [
        *("class", "class", "confusion", "confusion")
    ]
    assert start().id == first.id


def test_wandb_gets_moving_reconstructions(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    run = WandbRun(tmp_path / "id.txt", save_dir=str(tmp_path), project="p", offline=True)
    callback = ReconstructionPictures(tmp_path / "pictures")
    quick_trainer(callbacks=[callback], logger=run).fit(task, datamodule=ColourVideos())
    (file,) = (tmp_path / "wandb").glob("offline-run-*/files/media/videos/*.gif")
    with Image.open(file) as picture:
        assert getattr(picture, "n_frames", 1) == 2


def test_mlflow_keeps_its_run(tmp_path):
    pytest.importorskip("mlflow")
    uri = f"file:{tmp_path}/store"

    def start(lr):
        run = MLflowRun(tmp_path / "mlflow_id.txt", uri, experiment_name="colours")
        train(tmp_path, run, lr=lr)
        return run, run.experiment.get_run(run.run_id)

    logger, first = start(0.1)
    assert (tmp_path / "mlflow_id.txt").read_text() == f"{first.info.run_id}\n"
    assert first.info.status == "FINISHED"
    assert first.data.params["task.lr"] == "0.1"
    assert {"final/top1", "best/top1", "val/top1", "val_class/red"} <= first.data.metrics.keys()
    files = [file.path for file in logger.experiment.list_artifacts(first.info.run_id, "val")]
    assert sorted(files) == ["val/class_accuracy", "val/confusion"]
    pictures = logger.experiment.list_artifacts(first.info.run_id, "val/confusion")
    assert [file.path.rpartition("/")[2] for file in pictures] == [
        *("step-0000003.png", "step-0000006.png")
    ]
    _, second = start(0.05)
    assert second.info.run_id == first.info.run_id
    assert second.data.params["task.lr"] == "0.1"  # MLflow changes no setting


def test_mlflow_gets_the_curves_of_all_classes(tmp_path):
    pytest.importorskip("mlflow")
    run = MLflowRun(tmp_path / "mlflow_id.txt", f"file:{tmp_path}/store", experiment_name="colours")
    run.log_metrics({"val_class/跑步": 0.1, "val_class/走路": 0.2, "val_class/a//b?": 0.3}, 1)
    metrics = run.experiment.get_run(run.run_id).data.metrics
    assert metrics == {"val_class/跑步": 0.1, "val_class/走路": 0.2, "val_class_a__b_": 0.3}


def test_a_run_that_mlflow_does_not_have_is_one_line(tmp_path):
    pytest.importorskip("mlflow")
    (tmp_path / "id.txt").write_text("0" * 32)
    run = MLflowRun(tmp_path / "id.txt", f"file:{tmp_path}/store", experiment_name="colours")
    with pytest.raises(UsageError, match=r"MLflow: .*not found; .*id.txt names the run") as error:
        train(tmp_path, run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("package", "logger"), [("wandb", WandbRun), ("mlflow", MLflowRun)])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, package, logger):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"pip install {package}, or .* logger.{package}=null"):
        logger(tmp_path / "id.txt")
