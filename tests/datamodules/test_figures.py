"""Figures that act, and the data set that is made of them."""

import numpy as np
import pytest

from datamodules import SyntheticActionDataModule
from datamodules.figures import ACTIONS, draw_action


def figure(video):
    """Where a figure is: what is brighter than any background, bool ``(n, H, W)``."""
    return video.max(-1) > 0.62 * 255


@pytest.fixture(scope="module")
def videos():
    """Of each action, with all else the same."""
    return {name: draw_action(name, np.random.default_rng(5)) for name in ACTIONS}


def test_every_action_is_another_video_that_moves(videos):
    for name, video in videos.items():
        assert video.shape == (40, 64, 64, 3)
        assert video.dtype == np.uint8
        assert np.array_equal(video, draw_action(name, np.random.default_rng(5)))
        inside = figure(video)
        assert 0.03 < inside.mean() < 0.3
        assert (inside != inside[0]).any(0).sum() > 40
    names = list(videos)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert (figure(videos[one]) != figure(videos[other])).any(0).sum() > 20, (one, other)


@pytest.mark.parametrize("action", ["bow", "kick", "punch", "wave"])
def test_left_is_right_in_a_mirror(action, videos):
    centre = np.random.default_rng(5)
    centre.uniform(), centre.uniform(14, 20)
    x = 0.5 + centre.uniform(-0.047, 0.047, 2)[0]  # the axis of the figure
    columns = np.round(2 * x * 64 - np.arange(64) - 1).astype(int)
    inside = (columns >= 0) & (columns < 64)
    right = figure(videos[f"{action}_right"])[:, :, inside]
    left = figure(videos[f"{action}_left"])[:, :, columns[inside]]
    assert (left != right).mean() < 0.01


def test_raising_is_lowering_backwards():
    """From the same phase, with all else the same."""

    class Phase0:
        def __init__(self):
            self.rng = np.random.default_rng(3)
            self.draws = 0

        def uniform(self, *args):
            self.draws += 1
            return 0.0 if self.draws == 1 else 16.0 if self.draws == 2 else self.rng.uniform(*args)

        def __getattr__(self, name):
            return getattr(self.rng, name)

    up, down = (
        figure(draw_action(name, Phase0(), 17))  # pyright: ignore[reportArgumentType]
        for name in ("raise_arms", "lower_arms")
    )
    assert 3 * (up != down[::-1]).mean() < (up != down).mean()


def test_splits_are_written_once(tmp_path):
    def data(**more):
        sizes = {"num_frames": 4, "size": (64, 64), "batch_size": 4, "num_workers": 0}
        return SyntheticActionDataModule(
            root=tmp_path, videos=(16, 16, 32), unlabelled=9, video_frames=8, **sizes, **more
        )

    labelled = data()
    labelled.prepare_data()
    counts = {
        split: len(list((labelled.root / split).rglob("*.mp4")))
        for split in ("train", "val", "test", "unlabelled")
    }
    assert counts == {"train": 16, "val": 16, "test": 32, "unlabelled": 9}
    times = {file: file.stat().st_mtime_ns for file in labelled.root.rglob("*.mp4")}
    labelled.prepare_data()
    assert times == {file: file.stat().st_mtime_ns for file in labelled.root.rglob("*.mp4")}
    labelled.setup("fit")
    assert tuple(labelled.class_names or ()) == tuple(ACTIONS)

    unlabelled = data(train="unlabelled")
    unlabelled.prepare_data()
    unlabelled.setup("fit")
    assert len(unlabelled.manifests["train"]) == 9


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"videos": (10, 16, 16)}, r"videos must be \[train, val, test\], multiples of 16"),
        ({"videos": (16, 16)}, "videos must be"),
        ({"videos": 160}, "videos must be"),
        ({"unlabelled": 0}, "unlabelled must be positive"),
    ],
)
def test_wrong_numbers_are_refused(more, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        SyntheticActionDataModule(root=tmp_path, **more)
