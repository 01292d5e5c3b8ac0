"""Windows along a video, against one read of the file for each of them."""

import math

import numpy as np
import pytest

from datamodules import VideoFile
from datamodules.clips.format import ClipFormat
from datamodules.clips.sampling import covering_size, view_crops
from datamodules.clips.windows import sliding_windows
from tests.video_files import moving_frames, write_video

CLIP = ClipFormat(num_frames=4, stride=3, fps=30, height=32, width=32)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "video.mp4"
    return write_video(path, moving_frames(101), rate=25)  # 4.04 s


@pytest.mark.parametrize("stride", [0.1, 0.5, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("length", [None, 1.0])
def test_windows_cover_the_video_and_lie_in_their_middles(video, stride, length):
    with VideoFile(video) as file:
        windows = list(sliding_windows(file, CLIP, stride, length, spatial=3))
        assert [window.start for window in windows] == [
            i * stride for i in range(math.ceil(4.04 / stride - 1e-9))
        ]
        ends = [window.start for window in windows[1:]] + [file.duration]
        assert [window.end for window in windows] == pytest.approx(ends)
        step = 0.1 if length is None else length / 4
        height, width = covering_size(file.width, file.height, 32, 32)
        for window in windows:
            start = (window.start + window.end) / 2 - 1.5 * step
            start = min(max(start, 0), 4.0 - 3 * step)  # the last frame is shown at 4.0 s
            frames = file.frames_at(start + np.arange(4) * step, size=(height, width))
            boxes = view_crops(width, height, 32, 32, 3)
            crops = [frames[:, y1:y2, x1:x2] for x1, y1, x2, y2 in boxes]
            np.testing.assert_array_equal(window.clips, crops)


def test_a_video_shorter_than_a_clip_is_one_window(tmp_path):
    path = write_video(tmp_path / "short.mp4", moving_frames(3), rate=30)
    with VideoFile(path) as file:
        (window,) = sliding_windows(file, CLIP, 1.0)
    assert window.start == 0
    assert window.end == pytest.approx(0.1)
    assert window.clips.shape == (1, *CLIP.shape)
    np.testing.assert_array_equal(window.clips[0, 1], window.clips[0, 3])


@pytest.mark.parametrize(("left", "count"), [(0.019, 1), (0.021, 2)])
def test_less_than_half_a_frame_is_no_window(video, left, count):
    with VideoFile(video) as file:
        windows = list(sliding_windows(file, CLIP, file.duration - left))
    assert len(windows) == count
    assert windows[-1].end == pytest.approx(4.04)


def test_the_first_of_very_many_windows_comes_at_once(video):
    with VideoFile(video) as file:
        windows = sliding_windows(file, CLIP, 1e-9)
        first, second = next(windows), next(windows)
    assert (first.start, first.end, second.start) == (0, 1e-9, 1e-9)


def test_what_cannot_be_a_window_is_refused(video):
    with VideoFile(video) as file:
        for stride in (0, -1, math.nan, math.inf):
            with pytest.raises(ValueError, match="stride must be a positive"):
                next(sliding_windows(file, CLIP, stride))
        for length in (0, math.nan):
            with pytest.raises(ValueError, match="positive number of seconds"):
                next(sliding_windows(file, CLIP, 1.0, length))
        segments = CLIP._replace(sampling="segments")
        with pytest.raises(ValueError, match="set window, in seconds"):
            next(sliding_windows(file, segments, 1.0))
        assert len(list(sliding_windows(file, segments, 1.0, 2.0))) == 5
