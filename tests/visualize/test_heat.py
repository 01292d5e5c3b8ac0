import matplotlib
import numpy as np
from PIL import Image

from hiera_video.visualize.heat import (
    enlarged,
    heat_colours,
    heat_over,
    heat_sheet,
    outlined,
    with_legend,
)


def test_the_colours_are_those_of_inferno_and_grow_lighter():
    steps = np.linspace(0, 1, 101)
    colours = heat_colours(steps).astype(int)
    expected = matplotlib.colormaps["inferno"](steps)[:, :3] * 255
    assert np.abs(colours - expected).max() < 20
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()


def test_no_heat_is_grey_and_more_heat_is_more_colour():
    clip = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    heat = np.zeros((2, 4, 6), np.float32)
    heat[1] = 1
    cold, hot = heat_over(clip, heat)
    assert (np.ptp(cold, axis=-1) == 0).all()
    assert np.abs(cold[..., 0] - clip[0] @ [0.299, 0.587, 0.114]).max() <= 0.5
    assert (hot > [200, 200, 120]).all()


def test_a_box_is_drawn_at_its_place_in_every_frame():
    clip = np.full((3, 50, 100, 3), 90, np.uint8)
    drawn = outlined(clip, (0.2, 0.2, 0.8, 1.0))
    changed = (drawn != clip).any(axis=-1)
    assert (changed == changed[:1]).all()
    rows, columns = changed[0].nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 49, 20, 79)
    assert not changed[:, 20:40, 30:70].any()
    assert (clip == 90).all()


def test_small_clips_are_enlarged_by_whole_pixels():
    clip = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert enlarged(clip, 3) is not None
    assert np.array_equal(enlarged(clip, 3), clip)
    large = enlarged(clip, 7)
    assert large.shape == (2, 9, 12)
    assert np.array_equal(large[:, 1::3, 1::3], clip)


def test_a_sheet_has_every_frame_twice_with_its_time():
    clip = np.full((16, 100, 120, 3), 50, np.uint8)
    sheet = heat_sheet(clip, clip + 100, "a title", "the end", np.arange(16) / 10)
    assert sheet.size == (8 * 124, 4 * 104 + 40)
    pixels = np.asarray(sheet)[20:-20].reshape(4, 104, 8, 124, 3)
    middles = pixels[:, 50, :, 60, 0]
    assert (middles == [[50], [150], [50], [150]]).all()
    corners = pixels[:, :18, :, :60, 0].transpose(0, 2, 1, 3)
    assert (corners[::2] == 255).any(axis=(2, 3)).all()  # written
    assert len({corner.tobytes() for corner in corners[::2].reshape(16, -1)}) == 16


def test_words_that_are_too_long_are_cut():
    picture = Image.new("RGB", (200, 50))
    whole = with_legend(picture, "a very long title " * 9, "long words " * 20)
    assert whole.size == (200, 90)
    edge = np.asarray(whole)[:20, -4:]
    assert (edge == 255).all()


def test_words_of_any_script_that_the_font_has_are_written():
    picture = Image.new("RGB", (200, 100))
    for words in (("бег", "1"), ("1", "бег")):
        other = [word.replace("бег", "шаг") for word in words]
        assert with_legend(picture, *words).tobytes() != with_legend(picture, *other).tobytes()
