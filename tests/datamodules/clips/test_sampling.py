import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from datamodules.clips.format import ClipFormat
from datamodules.clips.sampling import (
    clip_span,
    clip_times,
    covering_size,
    random_clip_start,
    random_resized_crop,
    random_segment_times,
    random_short_side_crop,
    segment_view_times,
    spread_stride,
    view_crops,
    view_starts,
)

seconds = st.floats(0.01, 1000)
side = st.integers(8, 2000)


def test_sixteen_by_four_takes_every_fourth_frame_of_a_30_fps_video():
    frames = np.floor(clip_times(1.0, 16, 4, 30.0) * 30 + 0.5)
    assert frames.tolist() == list(range(30, 94, 4))
    assert clip_span(16, 4, 30.0) == pytest.approx(2.0)


@pytest.mark.parametrize(("frames", "stride"), [(16, 4), (32, 2), (8, 8), (4, 2), (1, 4)])
def test_a_spread_clip_takes_the_frames_of_pyslowfast(frames, stride):
    """``temporal_sampling`` there: ``linspace(start, start + 64 - 1, 16).long()``."""
    for start in (0, 59, 236):
        times = clip_times(start / 30, frames, spread_stride(frames, stride), 30.0)
        expected = torch.linspace(start, start + frames * stride - 1, frames).long()
        assert shown(times, 10**6, 30.0).tolist() == expected.tolist()
    assert frames == 1 or shown(times, 10**6, 30.0)[-1] == 236 + frames * stride - 1


def test_the_views_of_spread_clips_are_those_of_pyslowfast():
    """``start_idx = clip_idx * floor((300 - 64) / 4)`` there, with ``USE_OFFSET_SAMPLING``."""
    clip = ClipFormat(16, 4, 30.0, 224, 224, "spread")
    views = [shown(times, 300, 30.0) for times in clip.view_times(10.0, 30.0, 5)]
    assert [view[0] for view in views] == [0, 59, 118, 177, 236]
    assert [view[-1] for view in views] == [63, 122, 181, 240, 299]
    assert (np.diff(views[0]) >= 4).all()
    rng = np.random.default_rng(0)
    last = [clip.random_times(10.0, rng)[-1] for _ in range(1000)]
    assert 9.9 < max(last) < 10


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


def first_size_that_fits(width, height, aspect, seed):
    """(w, h) of the first of a generator's ten draws that fits the picture; None if none does."""
    low, high = (0.3, math.log(3 / 4)), (0.9, math.log(4 / 3))
    for share, log_ratio in np.random.default_rng(seed).uniform(low, high, (10, 2)).tolist():
        area, shape = share * width * height, aspect * math.exp(log_ratio)
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            return w, h
    return None


@given(side, side, st.floats(0.25, 4), st.integers(0, 2**32))
@example(2000, 8, 0.25, 0)
@example(8, 2000, 4.0, 0)
def test_random_crops_keep_area_and_aspect_and_are_central_only_if_none_fits(
    width, height, aspect, seed
):
    rng = np.random.default_rng(seed)
    x1, y1, x2, y2 = random_resized_crop(width, height, aspect, (0.3, 0.9), (3 / 4, 4 / 3), rng)
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    w, h = x2 - x1, y2 - y1
    rounding = 1.5 * (1 / w + 1 / h)
    if (size := first_size_that_fits(width, height, aspect, seed)) is not None:
        assert (w, h) == size
        assert 0.3 * (1 - rounding) <= w * h / (width * height) <= 0.9 * (1 + rounding)
        assert 3 / 4 * (1 - rounding) <= w / h / aspect <= 4 / 3 * (1 + rounding)
    else:  # the largest central box that is neither too wide nor too tall
        assert w == width or h == height
        assert abs(x1 - (width - x2)) <= 1
        assert abs(y1 - (height - y2)) <= 1
        assert 3 / 4 * (1 - rounding) <= w / h / aspect <= 4 / 3 * (1 + rounding)


@given(side, side, st.sampled_from([(3 / 4, 4 / 3), (0.9, 1.0), (1.0, 1.0), (0.2, 5.0)]))
@example(1920, 1080, (3 / 4, 4 / 3))  # becomes 1440 x 1080
@example(1080, 1920, (3 / 4, 4 / 3))
@example(640, 480, (3 / 4, 4 / 3))  # stays whole
def test_where_no_draw_fits_the_crop_is_that_of_torchvision(width, height, ratio):
    too_large = (2.0, 2.0)  # of the picture's area
    box = random_resized_crop(width, height, 1.0, too_large, ratio, np.random.default_rng(0))
    picture = torch.empty(1, 1, 1).expand(1, height, width)
    y, x, h, w = RandomResizedCrop.get_params(picture, list(too_large), list(ratio))
    assert box == (x, y, x + w, y + h)


def test_random_crops_reach_all_borders():
    rng = np.random.default_rng(0)
    crops = [random_resized_crop(90, 60, 1.5, (0.3, 0.9), (1, 1), rng) for _ in range(2000)]
    x1, y1, x2, y2 = np.array(crops).T
    assert (x1.min(), y1.min(), x2.max(), y2.max()) == (0, 0, 90, 60)


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


def shown(times, frames, rate):
    """Indices of the frames on display: the last that began, past the end the last."""
    assert np.isfinite(times).all()
    return np.clip(np.floor(times * rate + 1e-6), 0, frames - 1).astype(int)


clips = st.tuples(st.integers(1, 32), st.integers(1, 8), st.sampled_from([12, 25, 30, 60, 29.97]))
lengths = st.integers(1, 2000)  # frames of a video
rates = st.sampled_from([8, 12, 24000 / 1001, 25, 30, 60])


@given(clips, lengths, rates, st.integers(1, 10))
def test_views_begin_with_the_first_and_end_with_the_last_frame(clip, frames, rate, views):
    span = clip_span(*clip)
    starts = view_starts(max(0.0, frames / rate - 1 / rate), span, views)
    seen = [shown(clip_times(start, *clip), frames, rate) for start in starts]
    if views > 1:
        assert seen[0][0] == 0
        assert seen[-1][-1] == frames - 1 or clip[0] == 1
    if views == 1 and span < (frames - 1) / rate:
        before, after = seen[0][0], frames - 1 - seen[0][-1]
        assert abs(before - after) <= 1


@given(clips, st.integers(1, 40), rates, st.integers(0, 2**32), st.integers(1, 3))
def test_a_clip_longer_than_the_video_repeats_its_last_frame(clip, frames, rate, seed, views):
    duration, span = frames / rate, clip_span(*clip)
    assume(span >= duration)
    rng = np.random.default_rng(seed)
    starts = [random_clip_start(duration, span, rng)]
    starts += view_starts(duration - 1 / rate, span, views)
    for start in starts:
        times = clip_times(start, *clip)
        seen = shown(times, frames, rate)
        assert seen[0] == 0
        assert (np.diff(seen) >= 0).all()
        assert (seen[times > duration] == frames - 1).all()


@given(st.floats(0, 1e5), st.integers(1, 64), st.integers(0, 2**32))
def test_training_takes_one_moment_of_each_segment(duration, segments, seed):
    times = random_segment_times(duration, segments, np.random.default_rng(seed))
    length, slack = duration / segments, 1e-9 * duration
    assert times.shape == (segments,)
    assert (times >= np.arange(segments) * length - slack).all()
    assert (times <= (np.arange(segments) + 1) * length + slack).all()


def test_training_moments_are_uniform_in_their_segment():
    rng = np.random.default_rng(0)
    times = np.stack([random_segment_times(8.0, 4, rng) for _ in range(2000)])
    for segment, column in enumerate(times.T):
        counts, _ = np.histogram(column, bins=4, range=(2 * segment, 2 * segment + 2))
        assert counts.sum() == 2000
        assert counts.min() > 400


@given(st.floats(1e-3, 1e5), st.integers(1, 64), st.integers(1, 5))
def test_segment_views_interleave(duration, segments, views):
    times = np.stack(segment_view_times(duration, segments, views))
    assert times.shape == (views, segments)
    merged = times.T.ravel()  # view 0, 1, ... of the first segment, then of the next
    step = duration / segments / views
    assert np.allclose(np.diff(merged), step, rtol=1e-6)  # one denser sampling
    assert merged[0] == pytest.approx(step / 2)
    assert merged[-1] == pytest.approx(duration - step / 2)


def test_one_segment_view_is_the_centre_and_two_differ():
    assert segment_view_times(8.0, 4, 1)[0].tolist() == [1, 3, 5, 7]
    one, two = segment_view_times(8.0, 4, 2)
    assert one.tolist() == [0.5, 2.5, 4.5, 6.5]
    assert two.tolist() == [1.5, 3.5, 5.5, 7.5]


@given(st.integers(1, 20), rates, st.integers(1, 64), st.integers(1, 3), st.integers(0, 2**32))
def test_segments_of_a_video_with_fewer_frames_repeat_them(frames, rate, segments, views, seed):
    duration = frames / rate
    sampled = [random_segment_times(duration, segments, np.random.default_rng(seed))]
    for times in sampled + segment_view_times(duration, segments, views):
        seen = shown(times, frames, rate)
        assert (np.diff(seen) >= 0).all()
        if segments >= frames:
            assert set(np.diff(seen)) <= {0, 1, 2}
        if segments >= 2 * frames:
            assert set(seen) == set(range(frames))


@given(side, side, st.integers(8, 300), st.integers(8, 300), st.integers(0, 100), st.data())
def test_short_side_crops_lie_inside_and_have_the_size_after_scaling(
    width, height, crop_height, crop_width, more, data
):
    least = max(crop_height, crop_width) + data.draw(st.integers(0, 100))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    crop = crop_height, crop_width
    x1, y1, x2, y2 = random_short_side_crop(width, height, crop, (least, least + more), rng)
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    short = min(width, height)
    for length, wanted in ((x2 - x1, crop_width), (y2 - y1, crop_height)):
        assert length >= math.floor(wanted * short / (least + more)) or length == 1
        assert length <= math.ceil(wanted * short / least)


def test_short_sides_are_all_drawn_and_crops_reach_all_borders():
    rng = np.random.default_rng(0)
    boxes = [random_short_side_crop(3200, 2560, (224, 224), (256, 320), rng) for _ in range(3000)]
    sides = {x2 - x1 for x1, _, x2, _ in boxes}
    assert {y2 - y1 for _, y1, _, y2 in boxes} == sides
    assert sides == {round(224 * 2560 / short) for short in range(256, 321)}
    x1, y1, x2, y2 = np.array(boxes).T
    assert min(x1.min(), y1.min()) < 40
    assert x2.max() > 3160
    assert y2.max() > 2520


@pytest.mark.parametrize("crop", [0.875, 1.0])
def test_images_are_scaled_and_cropped_to_the_pixel_as_by_torchvision(crop):
    clip = ClipFormat(1, 1, 1.0, 224, 224, eval_crop=crop)
    side = round(224 / crop)
    for long, short in itertools.product((500, 501), range(250, 480)):
        for height, width in ((long, short), (short, long)):
            scaled = F.resize(torch.zeros(1, height, width, dtype=torch.uint8), [side])
            size = clip.scaled_size(width, height)
            assert size == scaled.shape[1:], (height, width)
            places = torch.arange(size[0])[:, None] * 10_000 + torch.arange(size[1])
            expected = F.center_crop(places[None], [224, 224])[0]
            ((x1, y1, x2, y2),) = clip.view_boxes(size[1], size[0], 1)
            assert torch.equal(places[y1:y2, x1:x2], expected), (height, width)
