"""Pictures are painted during a real pretraining."""

import pytest
from PIL import Image

from hiera_video.callbacks.reconstructions import ReconstructionPictures
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


def fit(folder, target="pixels", sanity=0, **kwargs):
    """Names of the pictures of a training of three epochs, each of three steps."""
    task = PretrainingTask(lambda: tiny_mae(target=target, embed_dim=8), mask_ratio=0.5)
    callback = ReconstructionPictures(folder, **kwargs)
    trainer = quick_trainer(max_epochs=3, num_sanity_val_steps=sanity, callbacks=[callback])
    trainer.fit(task, datamodule=ColourVideos(bad=("/6/5.mp4",)))
    return sorted(file.name for file in folder.iterdir())


def test_pictures_show_the_first_clips_of_due_validations(tmp_path):
    assert fit(tmp_path, num_clips=3, every_n_epochs=2, sanity=1) == ["step-0000006.png"]
    with Image.open(tmp_path / "step-0000006.png") as picture:
        # Captions, two of four frames, and four rows for each of three clips, each with a gap.
        assert picture.size == (100 + 2 * 68, 3 * 4 * 68)


def test_histograms_of_gradients_are_painted(tmp_path):
    assert len(fit(tmp_path, "hog", num_clips=1)) == 3
    with Image.open(tmp_path / "step-0000009.png") as picture:
        assert picture.size == (100 + 2 * 68, 5 * 68)


@pytest.mark.parametrize("name", ["num_clips", "every_n_epochs"])
def test_numbers_below_1_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        ReconstructionPictures("a", **{name: 0})
