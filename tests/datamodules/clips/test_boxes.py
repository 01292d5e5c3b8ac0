import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.clips.boxes import (
    clip_boxes,
    crop_boxes,
    intersection_over_union,
    jitter_boxes,
    visible_shares,
)

share = st.floats(0, 0.9)
length = st.floats(0.01, 1)


@st.composite
def boxes(draw):
    x, y, w, h = draw(share), draw(share), draw(length), draw(length)
    return np.array([[x, y, min(1, x + w), min(1, y + h)]])


@st.composite
def crops(draw):
    width, height = draw(st.integers(2, 200)), draw(st.integers(2, 200))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x2, y2 = draw(st.integers(x + 1, 2 * width)), draw(st.integers(y + 1, 2 * height))
    return (x, y, x2, y2), width, height


@given(boxes(), crops())
@settings(max_examples=200)
def test_a_box_is_at_the_same_pixels_before_and_after_a_crop(box, crop):
    (x1, y1, x2, y2), width, height = crop
    pixels = box * [width, height, width, height]
    seen = crop_boxes(box, crop[0], width, height)
    again = seen * [x2 - x1, y2 - y1, x2 - x1, y2 - y1] + [x1, y1, x1, y1]
    np.testing.assert_allclose(again, pixels, atol=1e-9)


@given(boxes(), crops())
@settings(max_examples=200)
def test_the_visible_share_is_that_of_sampled_points(box, crop):
    seen = crop_boxes(box, *crop)
    grid = (np.arange(50) + 0.5) / 50
    x = seen[0, 0] + grid * (seen[0, 2] - seen[0, 0])
    y = seen[0, 1] + grid * (seen[0, 3] - seen[0, 1])
    inside = ((x > 0) & (x < 1)).mean() * ((y > 0) & (y < 1)).mean()
    assert visible_shares(seen)[0] == pytest.approx(inside, abs=0.05)


def test_boxes_outside_become_empty_ones_at_the_border():
    outside = np.array([[1.2, -0.5, 1.5, 0.5], [-3.0, -2.0, -1.0, -0.5]])
    np.testing.assert_array_equal(clip_boxes(outside), [[1, 0, 1, 0.5], [0, 0, 0, 0]])
    np.testing.assert_array_equal(visible_shares(outside), [0, 0])


def test_jitter_stays_within_its_limits_and_reaches_them():
    box = np.tile([[0.4, 0.4, 0.6, 0.5]], (4000, 1))
    moved = jitter_boxes(box, (0.2, 0.1), np.random.default_rng(0)) - box
    size = np.array([0.2, 0.1, 0.2, 0.1]) * [0.2, 0.1, 0.2, 0.1]
    outwards = moved * [-1, -1, 1, 1] / size
    np.testing.assert_allclose(outwards.min(axis=0), -0.5, atol=0.01)
    np.testing.assert_allclose(outwards.max(axis=0), 1.0, atol=0.01)
    whole = jitter_boxes(np.array([[0.0, 0, 1, 1]] * 50), (0.2, 0.1), np.random.default_rng(0))
    assert (whole >= 0).all()
    assert (whole <= 1).all()
    assert (whole[:, 0] < whole[:, 2]).all()


@given(boxes(), boxes())
@settings(max_examples=100)
def test_intersection_over_union_is_that_of_a_raster(one, other):
    grid = (np.arange(400) + 0.5) / 400
    masks = [
        ((grid > y1) & (grid < y2))[:, None] & ((grid > x1) & (grid < x2))
        for x1, y1, x2, y2 in (one[0], other[0])
    ]
    union = (masks[0] | masks[1]).sum()
    expected = (masks[0] & masks[1]).sum() / union if union else 0
    iou = intersection_over_union(one[:, None], other[None])[0, 0]
    thin = min((one[0, 2:] - one[0, :2]).min(), (other[0, 2:] - other[0, :2]).min())
    assert iou == pytest.approx(expected, abs=0.02 + 0.01 / thin)
