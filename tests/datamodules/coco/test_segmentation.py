"""Masks against pycocotools, to the pixel and to the byte."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference

from datamodules.coco.rle import decode, encode, encode_part, from_text, to_text
from datamodules.coco.segmentation import check_mask, draw, draw_polygon, run_lengths

# pycocotools 2.0.11 with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
COORDINATES = st.one_of(
    st.integers(-20, 60), st.floats(-20, 60, width=32), st.sampled_from([0.1, 0.5, 7.3, 39.9])
)


def random_mask(seed, size, share=0.5):
    return np.random.default_rng(seed).random(size) < share


@settings(max_examples=150)
@given(st.integers(0, 10**6), SIZES, st.sampled_from([0, 0.05, 0.5, 0.95, 1]))
def test_run_lengths_are_those_of_pycocotools(seed, size, share):
    mask = random_mask(seed, size, share)
    expected = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert to_text(encode(mask)) == expected["counts"].decode()
    assert np.array_equal(from_text(expected["counts"]), encode(mask))
    assert np.array_equal(decode(from_text(expected["counts"]), *size), mask)


@settings(max_examples=100)
@given(st.integers(0, 10**6), SIZES, st.integers(0, 50), st.integers(0, 50))
def test_a_part_of_a_picture(seed, size, top, left):
    mask = random_mask(seed, size, 0.7)
    whole = np.zeros((size[0] + max(top, 3), size[1] + left), bool)
    top = min(top, whole.shape[0] - size[0])
    whole[top : top + size[0], left : left + size[1]] = mask
    assert np.array_equal(encode_part(mask, top, left, *whole.shape), encode(whole))


@settings(max_examples=300)
@given(
    st.lists(COORDINATES, min_size=6, max_size=24).filter(lambda p: len(p) % 2 == 0),
    SIZES,
)
def test_polygons_are_drawn_as_pycocotools_draws_them(polygon, size):
    expected = reference.decode(reference.frPyObjects([polygon], *size))[:, :, 0].astype(bool)
    drawn = draw_polygon(np.array(polygon, np.float64).reshape(-1, 2), *size)
    assert np.array_equal(drawn, expected)


def test_large_polygons():
    rng = np.random.default_rng(0)
    for corners in (3, 10, 200):
        polygon = rng.uniform(-50, 700, 2 * corners).round(2)
        expected = reference.decode(reference.frPyObjects([polygon.tolist()], 480, 640))[:, :, 0]
        assert np.array_equal(draw([polygon.tolist()], 480, 640), expected.astype(bool))


def test_parts_together_make_an_object():
    polygons = [[1, 1, 8, 1, 8, 8, 1, 8], [5, 5, 15, 5, 15, 12, 5, 12]]
    expected = reference.decode(reference.merge(reference.frPyObjects(polygons, 20, 20)))
    assert np.array_equal(draw(polygons, 20, 20), expected.astype(bool))


def test_all_forms_are_read():
    mask = random_mask(0, (9, 7))
    counts = encode(mask)
    for form in (counts.tolist(), to_text(counts), to_text(counts).encode()):
        segmentation = {"size": [9, 7], "counts": form}
        assert np.array_equal(draw(segmentation, 9, 7), mask)
        assert run_lengths(segmentation, 9, 7) == {"size": [9, 7], "counts": to_text(counts)}
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    expected = reference.merge(reference.frPyObjects(square, 9, 7))["counts"].decode()
    assert run_lengths(square, 9, 7)["counts"] == expected


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "no polygons"),
        ([], "no polygons"),
        ([[1, 2, 3, 4]], "three corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three corners"),
        ([["a"] * 6], "three corners"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not within 1,000,000 pixels"),
        ([[1, 2, 3, 4, 5, 2e9]], "not within 1,000,000 pixels"),
        ([["1", "2", "3", "4", "5", "6"]], "three corners"),
        ([[1, 2, 3, 4, 5, None]], "three corners"),
        ([[[1, 2], [3, 4], [5]]], "three corners"),
        ([1, 2, 3, 4, 5, 6], r"a list of lists, \[\[x1, y1"),
        ([[1, 2, 3, 4, 5, 6], "abc"], "a list of lists"),
        ("abc", "no polygons"),
        ({"size": [8, 9], "counts": [72]}, r"size \[8, 9\] in a picture of \[9, 8\]"),
        ({"size": [9, 8], "counts": [71]}, "71 pixels, not 9 x 8"),
        ({"size": [9, 8], "counts": [72, 1, -1]}, "a run has a negative length"),
        ({"size": [9, 8], "counts": [2**70, -(2**70)]}, "a run has 1180591620717411303424 pixels"),
        ({"size": [9.0, 8.0], "counts": [72]}, "in a picture of"),
        ({"size": [9, 8], "counts": [72, True]}, "a list of whole numbers or a text"),
        ({"size": [9, 8], "counts": to_text(np.array([71]))}, "71 pixels, not 9 x 8"),
        ({"size": [9, 8], "counts": [0.5]}, "a list of whole numbers or a text"),
        ({"size": [9, 8]}, "a list of whole numbers or a text"),
        ({"size": [9, 8], "counts": "\n"}, "not the text"),
        ({"size": [9, 8], "counts": "P"}, "not the text"),
    ],
)
def test_wrong_masks(segmentation, message):
    for function in (draw, check_mask, run_lengths):
        with pytest.raises(ValueError, match=message):
            function(segmentation, 9, 8)
