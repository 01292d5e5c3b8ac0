"""The figures of the documentation can be drawn, and the pages show them all."""

import io

import matplotlib as mpl
import pytest
from PIL import Image

from docs import reconstructions, saliency
from docs.figures import FIGURES, FOLDER, save
from tests.trained_models import write_mae_run
from tests.video_files import moving_frames, write_video

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


def test_the_reconstructions_of_the_readme_are_drawn(tmp_path):
    write_mae_run(tmp_path / "run", mask_ratio=0.5)
    video = tmp_path / "video.mp4"
    write_video(video, moving_frames(12))
    moving = reconstructions.animated(tmp_path / "run", [video, video])
    with Image.open(io.BytesIO(moving)) as drawn:
        assert drawn.format == "GIF"
        assert drawn.n_frames == 2  # of 4 frames the model predicts two
        assert drawn.width > 2 * reconstructions.SCALE * 64
        assert drawn.height > reconstructions.SHOWN * reconstructions.SCALE * 64
    assert reconstructions.PICTURE.stat().st_size < 2_000_000
    readme = FOLDER.parents[1] / "README.md"
    assert f"](docs/{reconstructions.PICTURE.name})" in readme.read_text()
