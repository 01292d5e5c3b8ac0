"""The example clips show a shape of the colour of their class."""

import colorsys

import numpy as np
import pytest

from datamodules import VideoFile, VideoFolderDataModule, example_clips
from datamodules.coloured_shapes import HUES, draw_clip


def test_a_folder_of_class_folders_is_written_once(tmp_path):
    folder = example_clips(tmp_path, per_class=2, frames=6, size=32)
    manifest = VideoFolderDataModule(folder).list_split(".", None)
    assert manifest.class_names == tuple(HUES)
    assert len(manifest) == 2 * len(HUES)
    with VideoFile(manifest.path(0)) as video:
        assert video.duration == pytest.approx(0.2)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert example_clips(tmp_path, per_class=2, frames=6, size=32) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert example_clips(tmp_path, per_class=1, frames=6, size=32) != folder


@pytest.mark.parametrize("colour", HUES)
def test_the_strongest_colour_of_a_clip_is_that_of_its_class(colour):
    clip = draw_clip(colour, np.random.default_rng(0)).reshape(-1, 3).astype(float)
    saturation = np.ptp(clip, axis=1)
    strongest = clip[saturation >= np.quantile(saturation, 0.98)].mean(0) / 255
    distance = abs(colorsys.rgb_to_hsv(*strongest)[0] - HUES[colour])
    assert min(distance, 1 - distance) < 0.08
