"""Training raises the mAP, through files, loader, network, loss and metric.

That motion is learned, not looks, is shown by benchmarks/detection.py, which takes some minutes.
"""

import functools

from lightning import seed_everything

from datamodules.synthetic_ava import SyntheticAVADataModule
from hiera_video import create_detector
from hiera_video.augment.pipeline import Augmentation
from hiera_video.tasks.detection import DetectionTask
from tests.quick_trainer import quick_trainer

EPOCHS = 200


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
    trainer = quick_trainer(max_epochs=EPOCHS, check_val_every_n_epoch=EPOCHS)
    trainer.validate(task, datamodule=data, verbose=False)
    before = task.results.mean()
    trainer.fit(task, datamodule=data)
    trainer.validate(task, datamodule=data, verbose=False)
    assert task.results.mean() > before + 0.3
