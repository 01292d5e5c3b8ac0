import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.augment.erasing import RandomErasing

SEEDS = torch.arange(8000) * 104729


def boxes(size=(224, 224), **options):
    drawn = RandomErasing(**options).draw(SEEDS, size)
    return [box for box in drawn if box is not None]


def test_a_quarter_of_the_clips_is_erased():
    assert len(boxes()) / len(SEEDS) == pytest.approx(0.25, abs=0.02)
    assert not boxes(probability=0.0)
    assert len(boxes(probability=1.0)) == len(SEEDS)


def test_area_aspect_and_place_are_distributed_as_said():
    drawn = np.array(boxes(probability=1.0), dtype=float)
    top, left, height, width, _ = drawn.T
    area, aspect = height * width / 224**2, np.log(height / width)
    quantiles = np.linspace(0, 1, 11)
    # Boxes that do not fit are few: the tall and the wide ones among the largest.
    assert np.quantile(area, quantiles) == pytest.approx(
        0.02 + quantiles * (1 / 3 - 0.02), abs=0.015
    )
    bound = np.log(1 / 0.3)
    assert np.quantile(aspect, quantiles) == pytest.approx((2 * quantiles - 1) * bound, abs=0.12)
    for place, room in ((top, 224 - height), (left, 224 - width)):
        assert (place / np.maximum(room, 1)).mean() == pytest.approx(0.5, abs=0.02)
        assert (place == 0).any()
        assert (place == room).any()


@given(
    st.integers(0, 2**63 - 1),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.floats(0.01, 1),
    st.floats(0.05, 1),
)
@settings(max_examples=100)
def test_boxes_lie_within_the_frame(seed, size, area, aspect):
    erasing = RandomErasing(1.0, (area / 2, area), aspect)
    box = erasing.draw(torch.tensor([seed]), size)[0]
    if box is not None:
        assert 0 <= box.top <= box.top + box.height <= size[0]
        assert 0 <= box.left <= box.left + box.width <= size[1]
        assert box.seed == seed


def test_the_box_alone_becomes_normal_noise():
    clip = torch.full((3, 8, 60, 80), 9.0)
    erasing = RandomErasing(1.0, (0.2, 0.3))
    box = erasing.draw(torch.tensor([3]), (60, 80))[0]
    assert box is not None
    erasing(clip, box)
    inside = torch.zeros(60, 80, dtype=torch.bool)
    inside[box.top : box.top + box.height, box.left : box.left + box.width] = True
    assert (clip[..., ~inside] == 9).all()
    noise = clip[..., inside]  # (3, 8, height * width)
    assert noise.mean().abs() < 0.03
    assert noise.std().sub(1).abs() < 0.03
    correlation = np.corrcoef(noise.flatten(0, 1).numpy())
    assert np.abs(correlation - np.eye(24)).max() < 0.15  # other in each channel and frame
    again = torch.zeros(3, 8, 60, 80)
    erasing(again, box)
    assert torch.equal(again[..., inside], noise)
    erasing(again, box._replace(seed=4))
    assert not torch.equal(again[..., inside], noise)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"probability": -0.1}, "probability must be in"),
        ({"area": (0.0, 0.3)}, "area must be two shares"),
        ({"area": (0.4, 0.3)}, "area must be two shares"),
        ({"area": (0.4, 1.3)}, "area must be two shares"),
        ({"aspect": 0.0}, "aspect must be in"),
        ({"aspect": 3.0}, "aspect must be in"),
    ],
)
def test_wrong_arguments_are_one_line(wrong, message):
    with pytest.raises(ValueError, match=message):
        RandomErasing(**wrong)
