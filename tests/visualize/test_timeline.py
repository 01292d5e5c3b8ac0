import numpy as np
import pytest
from PIL import Image

from hiera_video.visualize.text import PLACEHOLDER, font_of_size, lettering, shortened
from hiera_video.visualize.timeline import TimelineRow, clock, step_of_clock, write_timeline


def picture_of(tmp_path, names, **options):
    edges = np.arange(11.0)
    rows = [TimelineRow(name, np.linspace(0, 1, 10), [(5.0, 10.0)]) for name in names]
    write_timeline(tmp_path / "t.png", options.get("title", "video.mp4"), edges, rows, 0.5)
    with Image.open(tmp_path / "t.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "names",
    [
        ["a"],
        ["running"] * 8,
        ["springboard diving into an indoor swimming pool from the ten metre platform", "b"],
        ["Жонглирование мячами", "日本の踊り", "naïve café →", "$x_1$ is no formula", "\ud800"],
    ],
)
def test_names_of_any_kind_stay_left_of_the_curves(tmp_path, names):
    pixels = picture_of(tmp_path, names, title="any \udcff $name$.mp4")
    assert len(pixels) > 60 * len(names)
    curve = np.abs(pixels - (0x00, 0x72, 0xB2)).max(-1) < 3
    rows, columns = curve.nonzero()
    left = pixels[rows.min() : rows.max(), : columns.min()]
    assert (left[:, :3] > 250).all()  # nothing is cut off at the border
    assert (left < 100).any()  # the names


def test_a_segment_is_drawn_over_its_time(tmp_path):
    pixels = picture_of(tmp_path, ["a"])
    solid = np.abs(pixels - (0x00, 0x72, 0xB2)).max(-1) < 3
    widths = solid.sum(1)
    filled = pixels.shape[1] - 1 - np.argmax(solid[widths.argmax()][::-1])
    assert widths.max() == pytest.approx(filled / 2, rel=0.3)  # the second half


def test_times_are_written_as_the_length_asks_for():
    assert [clock(t, 10) for t in (0, 2.5)] == ["0 s", "2.5 s"]
    assert [clock(t, 600) for t in (0, 65)] == ["0:00", "1:05"]
    assert clock(3665, 7200) == "1:01:05"


def test_characters_that_no_font_has_are_marked():
    assert lettering("naïve\n café →").text == "naïve café →"
    assert lettering("a\U0010fffdb").text == f"a{PLACEHOLDER}b"


def test_a_text_is_cut_to_its_width():
    font = font_of_size(lettering("a").font, 14)
    assert shortened("short", font, 200) == "short"
    cut = shortened("a very long name of a class", font, 100)
    assert cut.endswith("…")
    assert font.getlength(cut) <= 100


def test_marks_are_at_round_times():
    longest = (119, 120, 600, 3000, 9000, 24 * 3600, 90 * 86400)
    assert [step_of_clock(t) for t in longest] == [None, 15, 60, 300, 900, 14400, 86400]
