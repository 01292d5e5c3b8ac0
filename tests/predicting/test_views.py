import numpy as np
import pytest
from PIL import Image

from datamodules.clips.format import ClipFormat
from datamodules.synthetic import write_h264
from hiera_video.predicting.classifier import Predictor
from tests.models.conftest import _one_thread  # noqa: F401
from tests.models.small import tiny_model

CLIP = ClipFormat(4, 2, 30, 64, 64)
NAMES = ["red", "green", "blue", "black", "white"]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds of 64 x 160; brighter to the right and with time."""
    x = np.linspace(0, 100, 160)[None, None, :, None]
    time = np.linspace(0, 150, 60)[:, None, None, None]
    frames = np.broadcast_to(x + time, (60, 64, 160, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("wide") / "wide.mp4"
    write_h264(path, frames)
    return path


@pytest.fixture(scope="module")
def predictor():
    return Predictor(tiny_model(), NAMES, CLIP, (2, 1), device="cpu")


@pytest.fixture(scope="module")
def views(predictor, video):
    return predictor.view_by_view(video, views=(5, 3))


def test_the_average_is_the_prediction(predictor, video, views):
    assert views.average(top=3) == predictor.predict(video, top=3, views=(5, 3))
    assert predictor.view_by_view(video).probabilities.shape == (2, 1, 5)  # as in its tests


def test_each_view_by_itself(predictor, views):
    assert views.clips.shape == (5, 3, 4, 64, 64, 3)
    rows = list(views.table(top=2))
    assert [(row.temporal, row.spatial) for row in rows] == [
        (t, s) for t in range(5) for s in range(3)
    ]
    for row in rows:
        clip = views.clips[row.temporal, row.spatial]
        probabilities = predictor.probabilities_of_clip(clip)
        best = np.argsort(-probabilities)[:2]
        assert [p.label for p in row.predictions] == [NAMES[i] for i in best]
        assert [p.probability for p in row.predictions] == pytest.approx(
            probabilities[best].tolist(), abs=1e-5
        )


def test_where_and_when_views_are(views):
    span = 3 * 2 / 30
    starts = np.linspace(0, 2 - 1 / 30 - span, 5)
    assert views.duration == pytest.approx(2)
    for row in views.table():
        assert row.start == pytest.approx(starts[row.temporal])
        assert row.end - row.start == pytest.approx(span)
        left = (0, 48, 96)[row.spatial]
        assert row.box == pytest.approx((left / 160, 0, (left + 64) / 160, 1))
        # The clip is that part of the frames: its middle frame, cut out of the whole one.
        whole = views.frames[row.temporal][:, left : left + 64].astype(int)
        seen = views.clips[row.temporal, row.spatial, 2].astype(int)
        assert np.array_equal(seen, whole)


def test_views_end_with_a_short_video(predictor, tmp_path):
    path = tmp_path / "short.mp4"
    write_h264(path, np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8))
    views = predictor.view_by_view(path)
    for row in views.table():
        assert (row.start, row.end) == pytest.approx((0, 3 / 30))
        assert np.array_equal(views.clips[row.temporal, row.spatial, 2], views.frames[0])
    assert views.times.max() < views.duration


def test_views_of_a_part_of_the_short_side(video):
    """As of pictures: scaled to 80 pixels, of which 64 are cropped."""
    clip = CLIP._replace(interpolation="bicubic", eval_crop=0.8)
    predictor = Predictor(tiny_model(), NAMES, clip, (2, 3), device="cpu")
    views = predictor.view_by_view(video)
    assert views.frames.shape == (2, 80, 200, 3)
    for row in views.table():
        left = (0, 68, 136)[row.spatial]
        assert row.box == pytest.approx((left / 200, 0.1, (left + 64) / 200, 0.9))
        whole = views.frames[row.temporal][8:72, left : left + 64]
        assert np.array_equal(views.clips[row.temporal, row.spatial, 2], whole)


def test_the_views_of_a_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    model, clip = tiny_model(input_size=(64, 64)), ClipFormat(1, 1, 1, 64, 64)
    predictor = Predictor(model, NAMES, clip, (1, 3), device="cpu")
    views = predictor.view_by_view(tmp_path / "noise.png", views=(1, 3))
    assert np.array_equal(views.clips[0, :, 0], [pixels[:, x : x + 64] for x in (0, 16, 32)])
    assert views.average() == predictor.predict(tmp_path / "noise.png", views=(1, 3))
    assert views.places().width == views.answers().width


def test_pictures_show_every_view(views):
    places, answers = np.asarray(views.places()), np.asarray(views.answers())
    assert places.shape[1] == answers.shape[1] == 1080
    assert places.std() > 10
    assert answers.shape[0] > 500
    fewer = np.asarray(views.answers(top=1))
    assert fewer.shape[0] < answers.shape[0]


def test_wrong_numbers_of_views(predictor, video):
    with pytest.raises(ValueError, match="views must be"):
        predictor.view_by_view(video, views=(0, 3))
