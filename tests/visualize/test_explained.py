"""Figures that explain the network; what they show is computed here in another way."""

import io

import numpy as np
import pytest
from PIL import Image

from hiera_video import create_model
from hiera_video.visualize import stage_figure, token_order_figure, unit_figure
from hiera_video.visualize.explained import unit_slices


@pytest.mark.parametrize("levels", [[(2, 2)], [(2, 2), (2, 2)], [(2, 1), (2, 2)]])
def test_a_slice_has_one_token_from_each_cell_of_the_first_pooling(levels):
    h, w, rows, columns = 2, 3, 2, 3
    high, wide = np.prod(levels, axis=0)  # tokens of a unit
    shape = rows * high * h, columns * wide * w, 3
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    slices = unit_slices(picture, (h, w), (rows, columns), levels)
    down, right = levels[0]
    for unit in range(rows * columns):
        top, left = unit // columns * high, unit % columns * wide
        for number in range(down * right):
            first, second = divmod(number, right)
            tokens = [
                [picture[y * h : (y + 1) * h, x * w : (x + 1) * w]
                 for x in range(left + second, left + wide, right)]
                for y in range(top + first, top + high, down)
            ]  # fmt: skip
            expected = np.concatenate([np.concatenate(row, axis=1) for row in tokens])
            assert np.array_equal(slices[unit, number], expected)


@pytest.fixture(scope="module")
def model():
    return create_model(
        "hiera_tiny_16x224", input_size=(4, 64, 96), embed_dim=8, stages=(1, 2, 2), q_pool=2
    )


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def drawn(figure):
    file = io.BytesIO()
    figure.savefig(file)
    return Image.open(file).size


def test_the_stages_of_any_network(model):
    figure = stage_figure(model, np.zeros((64, 96, 3), np.uint8))
    assert titles(figure) == [
        "input\n4 x 64 x 96 pixels",
        "stage 1: 2 x 16 x 24\n8 channels",
        "stage 2: 2 x 8 x 12\n16 channels",
        "stage 3: 2 x 4 x 6\n32 channels",
    ]
    labels = [ax.get_xlabel() for ax in figure.axes[1:]]
    assert labels[0] == "1 block, within a mask unit\nmask unit: 8 x 8 tokens"
    assert labels[1] == "2 blocks, within a mask unit\nmask unit: 4 x 4 tokens"
    assert labels[2] == "2 blocks, among all tokens\nmask unit: 2 x 2 tokens"
    assert drawn(figure)[0] > 500


def test_the_units_of_a_frame(model):
    figure = unit_figure(model, np.zeros((64, 96, 3), np.uint8))
    assert titles(figure) == ["frame: 2 x 3 mask units", "unit", *(f"slice {i}" for i in range(4))]
    assert len(figure.axes) == 1 + 4 * 5
    assert drawn(figure)[0] > 500


def test_the_order_of_tokens():
    figure = token_order_figure()
    assert "order in memory: unit by unit" in titles(figure)
    numbers = [int(text.get_text()) for text in figure.axes[1].texts]
    assert sorted(numbers) == list(range(64))
    assert [numbers[0], numbers[1], numbers[8], numbers[9]] == [0, 4, 8, 12]  # one cell
