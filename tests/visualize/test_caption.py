import numpy as np
import pytest

from hiera_video.visualize.caption import caption_overlay

LONG = "springboard diving into an indoor swimming pool from the ten metre platform"


def plate_of(overlay):
    """Left, top, right and bottom of what is drawn."""
    return overlay.getbbox()


@pytest.mark.parametrize(("width", "height"), [(340, 256), (1280, 720), (720, 1280), (64, 64)])
def test_a_plate_stands_still_and_leaves_most_of_the_frame(width, height):
    few = [("a", 1.0), ("b", 0.0), ("c", 0.5), ("d", 0.1), ("e", 0.0)]
    plates = {
        plate_of(caption_overlay(width, height, classes))
        for classes in (few, [(LONG, 0.5), ("Жонглирование", 0.3), ("日本の踊り", 0.1), *few[:2]])
    }
    ((left, top, right, bottom),) = plates
    assert 0 <= left < right <= width
    assert height / 2 <= top < bottom <= height
    if min(width, height) > 200:
        assert bottom - top > 5 * 11


def test_bars_are_as_long_as_classes_are_probable():
    for probability in (0.0, 0.25, 0.5, 1.0):
        pixels = np.asarray(caption_overlay(640, 480, [("a", probability)]))
        bright = (pixels[..., :3] == (230, 159, 0)).all(-1)
        grey = (pixels[..., :3] == (90, 90, 90)).all(-1)
        row = np.argmax((bright | grey).sum(1))  # a row through the bar
        start = int(np.flatnonzero(bright[row] | grey[row])[0])
        filled = int(bright[row, start : start + 100].sum())
        length = filled + int(grey[row].sum())
        assert filled == pytest.approx(probability * length, abs=2), probability


def test_a_long_name_does_not_reach_the_bar():
    pixels = np.asarray(caption_overlay(340, 256, [(LONG, 0.0)]))
    white = (pixels[..., :3] > 200).all(-1)
    track = (pixels[..., :3] == (90, 90, 90)).all(-1) & (pixels[..., 3] == 255)
    assert np.flatnonzero(white.any(0)).max() < np.flatnonzero(track.sum(0) > 5).min()


def test_nothing_is_drawn_without_classes():
    assert plate_of(caption_overlay(340, 256, [])) is None
