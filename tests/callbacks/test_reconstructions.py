import logging
from types import SimpleNamespace

import pytest
import torch

from hiera_video.callbacks.reconstructions import ReconstructionPictures
from hiera_video.tasks.pretraining import PretrainingTask
from tests.models.small import tiny_mae


@pytest.mark.parametrize("target", ["pixels", "hog"])
def test_pictures_are_painted_unless_the_target_has_none(tmp_path, caplog, target):
    task = PretrainingTask(lambda: tiny_mae(target=target), mask_ratio=0.5)
    task.model = task.network()
    trainer = SimpleNamespace(
        current_epoch=0, global_step=3, sanity_checking=False, is_global_zero=True, loggers=[]
    )
    batch = {
        "video": torch.zeros(2, 3, 4, 64, 64, dtype=torch.uint8),
        "seed": torch.tensor([1, 2]),
    }
    callback = ReconstructionPictures(tmp_path)
    with caplog.at_level(logging.INFO):
        callback.on_fit_start(trainer, task)
        callback.on_validation_batch_end(trainer, task, None, batch, 0)
    painted = [file.name for file in tmp_path.iterdir()]
    assert painted == ([] if target == "hog" else ["step-0000003.png"])
    assert ("target is no picture" in caplog.text) == (target == "hog")
