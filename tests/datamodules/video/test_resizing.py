"""Smaller copies of pictures, beside what Pillow makes of the originals."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from datamodules.video.pictures import PictureFile
from datamodules.video.resizing import resize_picture
from tests.video_files import moving_frames

(PIXELS,) = moving_frames(1, 90, 120)
MODES = ["RGB", "L", "LA", "RGBA", "P", "CMYK"]


def psnr(one, other):
    """Decibels between uint8 pictures."""
    error = np.asarray(one, float) - np.asarray(other, float)
    return 10 * np.log10(255**2 / np.square(error).mean())


@pytest.mark.parametrize("mode", MODES)
def test_a_copy_of_any_kind_of_colours_shows_what_a_training_sees_of_the_original(tmp_path, mode):
    image = Image.fromarray(PIXELS).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    options = {"transparency": 3} if mode == "P" else {}
    source, target = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}", tmp_path / "b.jpg"
    image.save(source, **options)
    facts = resize_picture(source, target, 45)
    assert (facts.ok, facts.width, facts.height, facts.codec) == (True, 60, 45, "jpeg")
    with Image.open(target) as copy, PictureFile(source) as original:
        assert (copy.mode, copy.size) == ("RGB", (60, 45))
        (seen,) = original.frames_at([0])
        expected = Image.fromarray(seen).resize((60, 45), Image.Resampling.BICUBIC)
        assert psnr(copy, expected) > 36


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_copy_is_turned_and_says_nothing_more_of_it(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(PIXELS).save(source, exif=exif, quality=98, subsampling=0)
    resize_picture(source, target, 45)
    with Image.open(source) as image, Image.open(target) as copy:
        upright = ImageOps.exif_transpose(image)
        size = (60, 45) if orientation < 5 else (45, 60)
        assert copy.size == size
        assert 0x0112 not in copy.getexif()
        assert psnr(copy, upright.resize(size, Image.Resampling.BICUBIC)) > 36


def test_a_small_picture_keeps_its_size(tmp_path):
    source = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(source)
    resize_picture(source, tmp_path / "b.jpg", 256)
    with Image.open(tmp_path / "b.jpg") as copy:
        assert copy.size == (120, 90)
        assert psnr(copy, PIXELS) > 36
