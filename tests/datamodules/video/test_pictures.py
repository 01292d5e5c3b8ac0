"""Pictures: the same pixels as Pillow's, turned for display, or one clear line."""

import io
import tarfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IFDRational

from datamodules import PictureFile, VideoDecodeError, VideoFile
from datamodules.clips.format import ClipFormat
from datamodules.clips.videos import clips_of_views
from datamodules.manifests.byte_range import ByteRange
from datamodules.video.opening import open_media
from datamodules.video.probing import probe
from tests.video_files import write_video

rng = np.random.default_rng(0)
SEVERAL = "it has several frames: not a single picture"


def smooth(height, width):
    """A picture with detail on several scales, as photographs have: uint8 (height, width, 3)."""
    total = np.zeros((height, width, 3))
    for step in (2, 8, 32, 128):
        noise = rng.normal(0, step**0.5, (height // step + 2, width // step + 2, 3))
        small = Image.fromarray((noise * 8 + 128).clip(0, 255).astype(np.uint8))
        total += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) - 128.0
    return (total + 128).clip(0, 255).astype(np.uint8)


def saved(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".ppm", ".tiff"])
def test_whole_pictures_are_pillow_s(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", smooth(50, 70))
    with PictureFile(path) as file:
        assert (file.width, file.height, file.duration, file.rate) == (70, 50, 1.0, 1)
        frames = file.frames_at([0.0, 7.5])
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert frames.shape == (2, 50, 70, 3)
    assert frames.dtype == np.uint8
    assert (frames == expected).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_scaled_crop_is_pillow_s_to_a_rounding(tmp_path, interpolation):
    path = saved(tmp_path / "a.png", smooth(300, 400))
    with PictureFile(path) as file:
        ours = file.frames_at([0], (112, 96), (30, 20, 330, 260), interpolation)[0]
    kind = getattr(Image.Resampling, interpolation.upper())
    with Image.open(path) as image:
        expected = image.crop((30, 20, 330, 260)).resize((96, 112), kind)
    assert np.abs(ours.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("crop", [(0, 0, 2000, 1500), (123, 77, 1823, 1477), (501, 3, 1497, 999)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_jpeg_decoded_at_a_part_of_its_size_is_within_the_stated_bound(
    tmp_path, crop, interpolation
):
    path = saved(tmp_path / "a.jpg", smooth(1500, 2000), quality=92)
    with PictureFile(path) as file:
        ours = file.frames_at([0], (224, 224), crop, interpolation)[0]
    kind = getattr(Image.Resampling, interpolation.upper())
    with Image.open(path) as image:
        expected = np.asarray(image.crop(crop).resize((224, 224), kind))
    difference = np.abs(ours.astype(int) - expected)
    assert difference.mean() <= 2
    shifted = np.abs(np.roll(expected, 1, axis=1).astype(int) - expected)
    assert difference.mean() < shifted.mean() / 3  # a pixel's shift would show


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1537, 2049), (767, 1023), (1501, 2003)])
def test_what_a_jpeg_shows_stays_in_its_place_where_sides_do_not_divide(
    tmp_path, size, orientation
):
    """Decoded at an eighth, 2049 pixels are 257, of which the last one has content in an eighth."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.jpg", smooth(*size), quality=92, exif=exif)
    with Image.open(path) as image:
        whole = ImageOps.exif_transpose(image)
    width, height = whole.size
    for crop in ((0, 0, width, height), (width // 3, height // 4, width - 7, height - 3)):
        with PictureFile(path) as file:
            ours = file.frames_at([0], (64, 64), crop, "bicubic")[0]
        expected = whole.crop(crop).resize((64, 64), Image.Resampling.BICUBIC)
        assert np.abs(ours.astype(int) - np.asarray(expected)).mean() < 0.8


@pytest.mark.parametrize("orientation", ["6", "top", b"\x06", IFDRational(0, 0)])
def test_an_orientation_that_is_no_number_turns_nothing(tmp_path, orientation, monkeypatch):
    path = saved(tmp_path / "a.png", smooth(40, 60))
    monkeypatch.setattr(PngImageFile, "getexif", lambda _: {0x0112: orientation})
    with PictureFile(path) as file:
        assert (file.height, file.width) == (40, 60)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    saved(path, smooth(40, 60), exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    with PictureFile(path) as file:
        assert (file.height, file.width) == expected.shape[:2]
        assert (file.frames_at([0])[0] == expected).all()
        crop = (5, 10, 25, 30)
        assert (file.frames_at([0], crop=crop)[0] == expected[10:30, 5:25]).all()  # opened again


def test_modes_of_colour_become_rgb(tmp_path):
    pixels = smooth(20, 30)
    rgb = Image.fromarray(pixels)
    palette = rgb.convert("P")
    palette.save(tmp_path / "palette.png", transparency=0)
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
    rgb.convert("L").save(tmp_path / "grey.jpg")
    rgb.convert("RGBA").save(tmp_path / "alpha.png")
    rgb.convert("1").save(tmp_path / "bits.png")
    for path in sorted(tmp_path.glob("*.*g")):
        with PictureFile(path) as file, Image.open(path) as image:
            assert file.frames_at([0]).shape == (1, 20, 30, 3)
            if path.name != "palette.png":  # there Pillow warns
                assert (file.frames_at([0])[0] == np.asarray(image.convert("RGB"))).all()
    deep = rng.integers(0, 1 << 16, (20, 30)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with PictureFile(tmp_path / "deep.png") as file:
        assert (file.frames_at([0])[0] == (deep >> 8)[..., None]).all()


def bomb(side):
    """A small PNG of many pixels."""
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def animated(kind):
    file = io.BytesIO()
    frames = [Image.fromarray(smooth(20, 20)) for _ in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def encoded(kind, pixels=None):
    file = io.BytesIO()
    Image.fromarray(smooth(64, 64) if pixels is None else pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg", b"", "the file is empty"),
        ("a.jpg", b"no picture", "not one of the pictures read here: JPEG, PNG, WEBP"),
        ("a.jpg", lambda: encoded("JPEG")[:-400], "truncated"),
        ("a.png", lambda: encoded("PNG")[:-4000], "truncated|broken"),
        ("a.webp", lambda: encoded("WEBP")[:-1000], "."),
        ("a.png", lambda: bomb(30_000), "it has more than the 67,108,864 pixels allowed"),
        ("a.png", lambda: bomb(9_000), "it has more than the 67,108,864 pixels allowed"),
        *((f"a.{kind}", partial(animated, kind), SEVERAL) for kind in ("WEBP", "PNG", "TIFF")),
        ("a.tiff", lambda: encoded("TIFF", np.ones((9, 9), np.float32)), "numbers, not colours"),
        ("a.tiff", lambda: encoded("TIFF", np.ones((9, 9), np.int32)), "numbers, not colours"),
        ("a.jpg", lambda: encoded("GIF"), "not one of the pictures read here"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(VideoDecodeError, match=reason) as caught, PictureFile(path) as file:
        file.frames_at([0])
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    facts = probe(str(path))
    assert not facts.ok
    assert facts.reason == caught.value.reason


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    with pytest.raises(VideoDecodeError, match="No such file"):
        PictureFile(tmp_path / "none.jpg")
    with pytest.raises(VideoDecodeError, match="not a file"):
        PictureFile(tmp_path)


def test_a_picture_in_a_tar_file(tmp_path):
    picture = saved(tmp_path / "a.jpg", smooth(40, 60))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(picture, "a.jpg")
    with tarfile.open(tmp_path / "a.tar") as tar:
        member = tar.getmember("a.jpg")
    source = ByteRange(str(tmp_path / "a.tar"), member.offset_data, member.size, "a.jpg")
    with open_media(source) as packed, open_media(picture) as alone:
        assert isinstance(packed, PictureFile)
        assert (packed.frames_at([0]) == alone.frames_at([0])).all()


def test_facts_of_a_picture(tmp_path):
    facts = probe(str(saved(tmp_path / "a.png", smooth(40, 60))))
    assert (facts.ok, facts.codec, facts.width, facts.height) == (True, "png", 60, 40)
    assert (facts.num_frames, facts.rotation, facts.duration, facts.rate) == (1, 0, None, None)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_rotation_of_a_picture_turns_what_is_stored_into_what_is_shown(tmp_path, orientation):
    pixels = smooth(40, 60)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        shown = np.asarray(ImageOps.exif_transpose(stored))
    rotation = probe(str(tmp_path / "a.png")).rotation
    assert np.array_equal(np.rot90(pixels, rotation // 90), shown)


@pytest.mark.parametrize("suffix", ["png", "mp4"])
def test_an_unknown_interpolation_is_no_damage(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        saved(path, smooth(8, 8))
    else:
        write_video(path, [smooth(16, 16)])
    wrong = pytest.raises(ValueError, match="interpolation must be bilinear or bicubic, not 'x'")
    with open_media(path) as file, wrong:
        file.frames_at([0.0], (8, 8), None, "x")


@pytest.mark.parametrize("opener", [open_media, VideoFile, PictureFile])
def test_what_is_no_path_is_told(tmp_path, opener):
    file = saved(tmp_path / "a.png", smooth(8, 8))
    with open(file, "rb") as opened:
        for given, words in {
            "None": None,
            "an object of type ndarray": np.zeros((2, 8, 8, 3), np.uint8),
            "an object of type Tensor": torch.zeros(2, 8, 8, 3),
            "an object of type list": [str(file)],
            "an object of type bytes": bytes(file),
            "an object of type BufferedReader": opened,
        }.items():
            message = f"^expected the path of a video or picture, not {given}$"
            with pytest.raises(TypeError, match=message):
                opener(words)


def test_another_suffix_is_a_video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    with pytest.raises(VideoDecodeError, match="not a video"):
        open_media(path)


def test_a_line_of_pixels_is_not_scaled_to_gigabytes(tmp_path):
    path = saved(tmp_path / "a.png", np.zeros((20_000, 1, 3), np.uint8))
    clip = ClipFormat(1, 1, 1.0, 224, 224)
    with PictureFile(path) as file, pytest.raises(VideoDecodeError, match="more than 67,108,864"):
        clips_of_views(file, clip, 1, 1)
