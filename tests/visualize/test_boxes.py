import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.visualize.boxes import COLOURS, MASK_ALPHA, LabelledBox, box_overlay, laid_over

SIZES = [(320, 180), (240, 320), (1920, 1080)]
LABELS = [("walk", 0.97), ("talk to (e.g., self, a person, a group)", 0.51)]


def draw_boxes(picture, people):
    """A frame with persons drawn in."""
    return laid_over(picture, box_overlay(picture.shape[1], picture.shape[0], people))


def plates(overlay):
    """Which pixels are of plates: black, or letters on it."""
    pixels = np.asarray(overlay)
    return (pixels[..., :3] < 40).all(-1) & (pixels[..., 3] > 200) & (pixels[..., 3] < 255)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_letters_are_large_enough_and_stand_out(width, height):
    overlay = box_overlay(width, height, [LabelledBox((0.3, 0.4, 0.5, 0.9), LABELS)])
    rows, columns = plates(overlay).nonzero()
    plate = np.asarray(overlay)[rows.min() : rows.max(), columns.min() : columns.max()]
    assert len(plate) / len(LABELS) >= max(13, 0.03 * height)  # of a row, pixels
    names = (plate[..., :3].min(-1) > 200).any(1)  # white letters
    assert names.sum() >= 2 * max(7, 0.015 * height)
    # On white and on black ground, the plate is dark and the letters are bright.
    for ground in (0, 255):
        picture = draw_boxes(
            np.full((height, width, 3), ground, np.uint8),
            [LabelledBox((0.3, 0.4, 0.5, 0.9), LABELS)],
        )
        dark, bright = picture[rows, columns].max(), plate[..., :3].max()
        assert bright - int(dark) > 180


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_box_is_where_it_should_be_and_the_rest_is_untouched(width, height):
    ground = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    before = ground.copy()
    picture = draw_boxes(ground, [LabelledBox((0.25, 0.25, 0.75, 0.5))])
    assert np.array_equal(ground, before)
    changed = (picture != ground).any(-1)
    rows, columns = changed.nonzero()
    assert [columns.min(), columns.max()] == pytest.approx([width / 4, 3 * width / 4], abs=3)
    assert [rows.min(), rows.max()] == pytest.approx([height / 4, height / 2], abs=3)
    assert not changed[
        height // 4 + 20 : height // 2 - 20, width // 4 + 20 : 3 * width // 4 - 20
    ].any()
    assert (picture[height // 4 + 1, width // 2] == COLOURS[0]).all()


def test_masks_are_tinted_in_the_colours_of_their_boxes_smaller_ones_on_top():
    large, small = np.zeros((2, 180, 320), bool)
    large[40:140, 20:200], small[60:100, 150:190] = True, True
    people = [
        LabelledBox((0.45, 0.3, 0.6, 0.6), mask=small),
        LabelledBox((0, 0, 0.7, 1), (), large),
    ]
    overlay = np.asarray(box_overlay(320, 180, people))
    assert overlay[80, 40].tolist() == [*COLOURS[0], MASK_ALPHA]  # the left one is first
    assert overlay[80, 170].tolist() == [*COLOURS[1], MASK_ALPHA]
    assert overlay[20, 300, 3] == 0


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(*[st.floats(-0.1, 1.1)] * 4, st.integers(0, 7), st.text(max_size=80)), max_size=6
    ),
    st.sampled_from([(320, 180), (64, 48), (1, 1), (200, 500)]),
)
def test_anything_can_be_drawn(people, size):
    people = [
        LabelledBox((min(a, c), min(b, d), max(a, c), max(b, d)), [(text, 0.5)] * count)
        for a, b, c, d, count, text in people
    ]
    assert box_overlay(*size, people).size == size


def test_plates_of_neighbours_do_not_cover_each_other():
    boxes = [(0.1, 0.4, 0.3, 0.9), (0.15, 0.42, 0.35, 0.9), (0.7, 0.0, 1.0, 0.5)]
    alone = [plates(box_overlay(1280, 720, [LabelledBox(box, LABELS)])).sum() for box in boxes]
    together = plates(box_overlay(1280, 720, [LabelledBox(box, LABELS) for box in boxes])).sum()
    assert together == pytest.approx(sum(alone), rel=0.01)


def test_a_plate_at_the_border_stays_in_the_frame_whole():
    inside = plates(box_overlay(640, 360, [LabelledBox((0.3, 0.5, 0.5, 0.9), LABELS)])).sum()
    for box in [(0, 0, 0.1, 1), (0.95, 0, 1, 0.1), (0.95, 0.9, 1, 1), (0, 0.9, 0.1, 1)]:
        assert plates(box_overlay(640, 360, [LabelledBox(box, LABELS)])).sum() >= 0.98 * inside


def test_no_more_rows_than_have_room():
    few, many = (
        plates(box_overlay(640, 360, [LabelledBox((0.3, 0.5, 0.5, 0.9), LABELS[:1] * count)])).sum()
        for count in (5, 12)
    )
    assert few == many


def test_neighbours_have_their_own_colours_from_left_to_right():
    people = [LabelledBox((x, 0.2, x + 0.05, 0.8)) for x in (0.5, 0.1, 0.3)]
    pixels = np.asarray(box_overlay(200, 100, people))
    for i, x in enumerate((0.1, 0.3, 0.5)):
        assert tuple(pixels[50, round(x * 199)][:3]) == COLOURS[i]


@pytest.mark.parametrize("name", ["танцует", "χορεύει", "رقص"])
def test_names_of_other_scripts_are_written_not_replaced_by_boxes(name):
    """The font of Matplotlib has them; Pillow's own would draw the same box for each character."""
    person = (0.2, 0.4, 0.8, 0.9)
    shown = [
        np.asarray(box_overlay(320, 180, [LabelledBox(person, [(text, 0.5)])]))
        for text in (name, name[::-1], "□" * len(name))
    ]
    assert not np.array_equal(shown[0], shown[1])  # the order of different letters shows
    assert not np.array_equal(shown[0], shown[2])
