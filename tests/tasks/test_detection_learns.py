"""Training raises the mAP, through files, loader, network, loss and metric.

That motion is learned, not looks, is shown by benchmarks/detection.py, which takes some minutes.
"""

import functools

import pytest
from lightning import Trainer, seed_everything

from datamodules.synthetic_ava import SyntheticAVADataModule
from hiera_video import create_detector
from hiera_video.augment.pipeline import Augmentation
from hiera_video.tasks.detection import DetectionTask
from tests.models.conftest import _one_thread  # noqa: F401

EPOCHS = 200


# Lightning 2.6 with torch 2.13; and it would rather have more workers than four videos need.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer`")
@pytest.mark.filterwarnings("ignore:.*number of training batches")
def test_keyframes_are_learned_by_heart(tmp_path):
    seed_everything(0, verbose=False)
    clip = {"num_frames": 4, "stride": 8, "size": (64, 64), "short_side": (64, 64)}
    data = SyntheticAVADataModule(tmp_path, (4, 1, 1), 3, 64, **clip, batch_size=4)
    data.prepare_data()
    for names in (data.splits, data.person_boxes, data.excluded):
        names["val"] = names["train"]
    model = functools.partial(
        create_detector,
        "hiera_tiny_16x224",
        input_size=(4, 64, 64),
        embed_dim=16,
        stages=(1, 1, 1, 1),
        head_init_scale=1.0,
        multi_scale=True,
    )
    augment = Augmentation(horizontal_flip=False)
    task = DetectionTask(model, lr=3e-3, warmup_epochs=2, augment=augment)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        check_val_every_n_epoch=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.validate(task, datamodule=data, verbose=False)
    before = task.results.mean()
    trainer.fit(task, datamodule=data)
    trainer.validate(task, datamodule=data, verbose=False)
    assert task.results.mean() > before + 0.3
