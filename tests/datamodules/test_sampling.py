import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.sampling import (
    clip_span,
    clip_times,
    covering_size,
    random_clip_start,
    random_resized_crop,
    view_crops,
    view_starts,
)

seconds = st.floats(0.01, 1000)
side = st.integers(8, 2000)


def test_sixteen_by_four_takes_every_fourth_frame_of_a_30_fps_video():
    frames = np.floor(clip_times(1.0, 16, 4, 30.0) * 30 + 0.5)
    assert frames.tolist() == list(range(30, 94, 4))
    assert clip_span(16, 4, 30.0) == pytest.approx(2.0)


@given(seconds, st.integers(1, 64), st.integers(1, 16), st.integers(0, 2**32))
def test_training_clips_lie_in_the_video_if_it_is_long_enough(duration, frames, stride, seed):
    span = clip_span(frames, stride, 30)
    start = random_clip_start(duration, span, np.random.default_rng(seed))
    assert 0 <= start <= max(0.0, duration - span)
    if span <= duration:
        assert clip_times(start, frames, stride, 30)[-1] <= duration + 1e-9


def test_training_starts_are_uniform():
    rng = np.random.default_rng(0)
    starts = np.array([random_clip_start(10.0, 2.0, rng) for _ in range(4000)])
    counts, _ = np.histogram(starts, bins=8, range=(0, 8))
    assert counts.min() > 400
    assert counts.max() < 600


@given(seconds, st.floats(0.1, 20), st.integers(1, 10))
def test_views_are_equally_spaced_and_reach_both_ends(last_frame, span, views):
    starts = view_starts(last_frame, span, views)
    assert len(starts) == views
    latest = max(0.0, last_frame - span)
    if views == 1:
        assert starts == [latest / 2]
    else:
        assert starts[0] == 0
        assert starts[-1] == pytest.approx(latest)
        assert np.allclose(np.diff(starts), latest / (views - 1))


@given(side, side, st.floats(0.25, 4), st.integers(0, 2**32))
def test_random_crops_lie_inside_and_keep_area_and_aspect(width, height, aspect, seed):
    rng = np.random.default_rng(seed)
    x1, y1, x2, y2 = random_resized_crop(width, height, aspect, (0.3, 0.9), (0.75, 4 / 3), rng)
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    w, h = x2 - x1, y2 - y1
    area = w * h / (width * height)
    central = view_crops(width, height, w, h, 1)[0] == (x1, y1, x2, y2)
    rounding = 1.5 * (1 / w + 1 / h)
    assert central or 0.3 * (1 - rounding) <= area <= 0.9 * (1 + rounding)
    assert central or 0.75 * (1 - rounding) <= w / h / aspect <= 4 / 3 * (1 + rounding)


def test_a_crop_of_everything_is_the_whole_picture():
    box = random_resized_crop(64, 64, 1.0, (1, 1), (1, 1), np.random.default_rng(0))
    assert box == (0, 0, 64, 64)


@given(side, side, side, side, st.integers(1, 5))
def test_view_crops_cover_the_scaled_picture(width, height, crop_width, crop_height, views):
    h, w = covering_size(width, height, crop_width, crop_height)
    assert h >= crop_height
    assert w >= crop_width
    assert h == crop_height or w == crop_width
    boxes = view_crops(w, h, crop_width, crop_height, views)
    assert len(boxes) == views
    for x1, y1, x2, y2 in boxes:
        assert (x2 - x1, y2 - y1) == (crop_width, crop_height)
        assert 0 <= x1
        assert x2 <= w
        assert 0 <= y1
        assert y2 <= h
    if views > 1:
        assert boxes[0][:2] == (0, 0)
        assert boxes[-1][2:] == (w, h)


def test_three_views_are_those_of_pyslowfast():
    # uniform_crop: ceil((dim - size) / 2) in the middle, along the longer side
    assert view_crops(299, 224, 224, 224, 3) == [
        (0, 0, 224, 224),
        (math.ceil(75 / 2), 0, math.ceil(75 / 2) + 224, 224),
        (75, 0, 299, 224),
    ]
    assert view_crops(224, 299, 224, 224, 3)[1][1] == 38
