import math

import pytest

from datamodules.arguments import check_numbers, check_positive, check_whole


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_what_is_not_above_0_is_named(value):
    with pytest.raises(ValueError, match=f"fps must be positive, not {value}"):
        check_positive(size=1, fps=value)


@pytest.mark.parametrize("value", [0.5, math.inf, math.nan])
def test_what_is_not_whole_is_named(value):
    with pytest.raises(ValueError, match=f"repeats must be a whole number, not {value}"):
        check_whole(batch_size=8.0, repeats=value)


def test_numbers():
    check_numbers("size", [224, 192], "height, width")
    check_numbers("videos", (64, 32, 8), "train, val, test", multiple=8)


@pytest.mark.parametrize(
    "values", [224, 0.5, None, "224", (224,), (224, 224, 3), (0, 8), (8, -8), (8, 8.5), (8, "8")]
)
def test_what_is_not_a_number_for_each_part_is_named(values):
    with pytest.raises(ValueError, match=r"size must be \[height, width\], whole numbers above 0"):
        check_numbers("size", values, "height, width")


def test_multiples_are_named():
    message = r"eval_pad must be \[height, width\], multiples of 32, not \(64, 100\)"
    with pytest.raises(ValueError, match=message):
        check_numbers("eval_pad", (64, 100), "height, width", multiple=32)
