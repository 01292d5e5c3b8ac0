"""The figures of the documentation can be drawn, and the pages show them all."""

import matplotlib as mpl
import pytest
from PIL import Image

from docs import saliency
from docs.figures import FIGURES, FOLDER, save

PAGE = FOLDER.with_name("how_hiera_works.md")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_as_the_page_has_it(name, tmp_path):
    mpl.use("agg")
    save(FIGURES[name](), tmp_path / "figure.png")
    shown = FOLDER / f"{name}.png"
    assert f"](figures/{shown.name})" in PAGE.read_text()
    with Image.open(tmp_path / "figure.png") as drawn, Image.open(shown) as committed:
        # Fonts of another release may differ by some pixels.
        assert drawn.size == pytest.approx(committed.size, rel=0.05)


def test_the_map_of_the_page_on_saliency_is_drawn():
    with Image.open(saliency.PICTURE) as committed:
        assert saliency.sheet().size == committed.size
    assert f"]({saliency.PICTURE.name})" in saliency.PICTURE.with_suffix(".md").read_text()
