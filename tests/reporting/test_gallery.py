"""Videos to play in a notebook."""

import base64
import io
import re

import pytest
from IPython.core.formatters import HTMLFormatter
from PIL import Image

from hiera_video.errors import PredictionFileError
from hiera_video.reporting import Gallery, mistakes
from hiera_video.reporting.clips import Mistake, playable
from tests.reporting.runs import CLASSES, EVIL, write_run, write_test, write_videos
from tests.reporting.test_clips import decoded


def shown(gallery: Gallery) -> str:
    """What a notebook shows as the result of a cell."""
    return HTMLFormatter()(gallery)


def test_a_gallery_holds_every_video_with_its_caption(tmp_path):
    videos = write_videos(tmp_path / "videos", 2)
    page = shown(Gallery(videos, ["one", EVIL]))
    contents = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)
    assert [decoded(base64.b64decode(content))[0] for content in contents] == ["h264", "h264"]
    assert "<figcaption>one</figcaption>" in page
    assert "<script>" not in page
    assert repr(Gallery(videos)) == "videos/0.mp4\nvideos/1.mp4"


def test_a_video_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "<b>.mp4").write_bytes(b"no video")
    page = shown(Gallery([tmp_path / "<b>.mp4", tmp_path / "gone.mp4"]))
    assert "&lt;b&gt;.mp4 cannot be read." in page
    assert "gone.mp4 cannot be read." in page


def test_pictures_are_shown_too(tmp_path):
    Image.new("RGB", (600, 480), "red").save(tmp_path / "red.png")
    page = shown(Gallery([tmp_path / "red.png"], ["red"]))
    (content,) = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (300, 240)
    (clip,) = playable([Mistake("red.png", "red", "blue", 0.9, 0.1)], [tmp_path])
    assert clip.is_picture


def test_captions_and_length():
    with pytest.raises(ValueError, match="1 captions for 2 videos"):
        Gallery(["a.mp4", "b.mp4"], ["a"])
    gallery = Gallery([f"{i}.mp4" for i in range(30)])
    assert len(gallery.videos) == len(gallery.captions) == 24


def test_mistakes_of_a_test_to_play(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_videos(tmp_path / "videos", 3)
    run = write_run(tmp_path / "fit")
    write_test(run, tmp_path / "test", [f"videos/{i}.mp4" for i in range(3)], [0, 0, 1], [0, 2, 2])
    gallery = mistakes("test")
    assert [path.name for path in gallery.videos] == ["2.mp4", "1.mp4"]  # the surest first
    assert gallery.captions == [
        f"{CLASSES[1]}, predicted: {CLASSES[2]} (80%)",
        f"{CLASSES[0]}, predicted: {CLASSES[2]} (60%)",
    ]
    assert shown(gallery).count("<video") == 2
    assert len(mistakes(tmp_path / "test", count=1).videos) == 1
    monkeypatch.chdir("/")  # as the videos' folder is above that of the test
    assert shown(mistakes(tmp_path / "test")).count("<video") == 2
    with pytest.raises(PredictionFileError):
        mistakes(tmp_path / "nothing")
