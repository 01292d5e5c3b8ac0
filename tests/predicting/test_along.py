"""The classes along a video: windows, smoothing, segments."""

import numpy as np
import pytest
import torch

from datamodules.clips.windows import sliding_windows
from datamodules.errors import VideoDecodeError
from datamodules.video.decoding import VideoFile
from hiera_video.augment.basic import Normalize
from hiera_video.predicting.along import (
    ScoredWindow,
    Segment,
    SegmentFinder,
    half_width,
    smoothed,
    top_of,
)
from tests.lamp import CLIP, NAMES, Brightness, predictor, write_lamp

ON = np.arange(50) // 10 % 2 == 1  # of 5 s: on from 1 to 2 and from 3 to 4


@pytest.fixture(scope="module")
def lamp(tmp_path_factory):
    return write_lamp(tmp_path_factory.mktemp("lamp") / "lamp.mp4", ON)


@pytest.mark.parametrize("spatial", [1, 3])
@pytest.mark.parametrize("window", [None, 0.8])
def test_probabilities_are_those_of_each_window(lamp, spatial, window):
    scored = list(predictor().along(lamp, 0.3, window, spatial))
    with VideoFile(lamp) as file, torch.no_grad():
        windows = list(sliding_windows(file, CLIP, 0.3, window, spatial))
    assert len(scored) == len(windows) == 17
    for one, other in zip(scored, windows, strict=True):
        assert (one.start, one.end) == (other.start, other.end)
        clips = torch.from_numpy(other.clips).permute(0, 4, 1, 2, 3)  # (spatial, 3, T, H, W)
        expected = Brightness()(Normalize()(clips)).softmax(1).double().mean(0)
        assert one.probabilities.dtype == np.float64
        np.testing.assert_allclose(one.probabilities, expected, atol=1e-6)
        assert one.probabilities.sum() == pytest.approx(1)


def test_the_lamp_is_seen_second_by_second(lamp):
    windows = predictor().along(lamp)
    labels = [top_of(window.probabilities, NAMES, 1)[0].label for window in windows]
    assert labels == [NAMES[0] if on else NAMES[1] for on in ON[::10]]


def test_few_clips_go_through_the_model_at_once_and_only_when_asked_for(lamp):
    seen = []

    class Counting(Brightness):
        def forward(self, video):
            seen.append(len(video))
            return super().forward(video)

    windows = predictor(Counting()).along(str(lamp), stride=0.1, spatial=3)
    assert not seen
    next(windows)
    assert seen == [6]
    assert len(list(windows)) == 49
    assert sum(seen) == 150
    assert max(seen) <= 8


def test_a_file_that_is_open_stays_open(lamp):
    with VideoFile(lamp) as file:
        assert len(list(predictor().along(file))) == 5
        assert file.frames_at([0]).shape == (1, 48, 64, 3)


def test_wrong_input(lamp, tmp_path):
    model = predictor()
    for options, message in (
        ({"stride": 0}, "stride must be a positive"),
        ({"window": -1}, "positive number of seconds"),
        ({"spatial": 0}, "spatial must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            next(model.along(lamp, **options))
    with pytest.raises(VideoDecodeError, match="none.mp4"):
        next(model.along(tmp_path / "none.mp4"))
    segments = predictor(clip=CLIP._replace(sampling="segments"))
    with pytest.raises(ValueError, match="set window, in seconds"):
        next(segments.along(lamp))


def windows_of(*columns):
    """A window for each second, with these probabilities of each class."""
    return [ScoredWindow(i, i + 1, np.array(row)) for i, row in enumerate(zip(*columns))]  # noqa: B905


@pytest.mark.parametrize("half", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
def test_smoothing_averages_the_neighbours_there_are(half, count):
    values = np.random.default_rng(0).random((count, 2))
    averaged = list(smoothed(iter(windows_of(*values.T)), half))
    assert [window.start for window in averaged] == [*range(count)]
    for i, window in enumerate(averaged):
        expected = values[max(0, i - half) : i + half + 1].mean(0)
        np.testing.assert_allclose(window.probabilities, expected)


def test_smoothing_waits_for_no_more_than_it_needs():
    given = []

    def windows():
        for window in windows_of([0.0] * 10):
            given.append(window)
            yield window

    next(smoothed(windows(), 2))
    assert len(given) == 3


@pytest.mark.parametrize(
    ("smoothing", "stride", "half"),
    [(0, 1, 0), (1.9, 1, 0), (2, 1, 1), (3, 1, 1), (4, 1, 2), (0.6, 0.1, 3), (1, 2, 0)],
)
def test_neighbours_are_up_to_half_of_the_smoothing_away(smoothing, stride, half):
    assert half_width(smoothing, stride) == half


@pytest.mark.parametrize("smoothing", [-1, float("nan"), float("inf")])
def test_smoothing_must_be_a_time(smoothing):
    with pytest.raises(ValueError, match="smoothing must be"):
        half_width(smoothing, 1)


def segments_of(windows, *args):
    finder = SegmentFinder(["a", "b"], *args)
    for window in windows:
        finder.add(window)
    return finder.finish()


def test_segments_last_as_long_as_a_class_is_above_the_threshold():
    windows = windows_of([0.5, 0.7, 0.2, 0.9, 0.4, 0.6], [0.5, 0.3, 0.8, 0.1, 0.6, 0.4])
    assert segments_of(windows, 0.5) == [
        Segment(0, 2, "a", pytest.approx(0.6)),
        Segment(0, 1, "b", 0.5),
        Segment(2, 3, "b", 0.8),
        Segment(3, 4, "a", 0.9),
        Segment(4, 5, "b", 0.6),
        Segment(5, 6, "a", 0.6),
    ]
    assert segments_of(windows, 0.5, 1.5) == [Segment(0, 2, "a", pytest.approx(0.6))]
    assert segments_of(windows, 0.95) == []
    whole = segments_of(windows, 0.0)
    assert [(s.start, s.end) for s in whole] == [(0, 6), (0, 6)]
    assert segments_of([], 0.5) == []
