"""``load(...).saliency(...)`` of files, and the command ``explain``."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.errors import VideoDecodeError
from datamodules.synthetic import write_h264
from datamodules.video.decoding import VideoFile
from datamodules.video.playback import play
from hiera_video import cli, load
from hiera_video.errors import ChoiceError
from hiera_video.predicting.persons import BoxFile
from hiera_video.predicting.saliency import Saliency
from hiera_video.predicting.saliency_files import saliency_sheet, write_saliency
from tests.hall import predictor, write_hall
from tests.models.conftest import _one_thread  # noqa: F401

LEGACY = Path(__file__).parents[1] / "legacy"
CLIP = LEGACY / "clip.mp4"


@pytest.fixture(scope="module")
def classifier():
    return load(LEGACY / "classifier", "cpu")


@pytest.fixture(scope="module")
def detector():
    return load(LEGACY / "detector", "cpu")


@pytest.fixture(scope="module")
def hall(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hall")
    return folder, write_hall(folder)


@pytest.mark.parametrize(("method", "stage"), [("grad_cam", None), ("grad_cam", 2)])
def test_a_classifier(method, stage, classifier):
    saliency = classifier.saliency(CLIP, method=method, stage=stage)
    (best,) = classifier.predict(CLIP, top=1, views=(1, 1))
    assert saliency.label == best.label
    assert saliency.probability == pytest.approx(best.probability, abs=1e-6)
    assert saliency.clip.shape == classifier.clip.shape
    assert saliency.clip.dtype == np.uint8
    assert saliency.map.shape == saliency.clip.shape[:3]
    assert saliency.map.dtype == np.float32
    assert (saliency.map.min(), saliency.map.max()) == (0, 1)
    assert saliency.box is None
    with VideoFile(CLIP) as file:
        assert saliency.times.mean() == pytest.approx(file.duration / 2, abs=0.1)


def test_another_class_and_another_moment(classifier):
    scores = classifier.probabilities(CLIP, views=(1, 1))
    least = classifier.class_names[scores.argmin()]
    saliency = classifier.saliency(CLIP, least, "occlusion", cuboid=(4, 32, 32))
    assert (saliency.label, saliency.method) == (least, "occlusion")
    assert saliency.probability == pytest.approx(scores.min(), abs=1e-6)
    early = classifier.saliency(CLIP, second=0.25)
    assert early.times.mean() == pytest.approx(0.25)
    assert not np.array_equal(early.clip, saliency.clip)


def test_what_a_classifier_cannot_answer(classifier, tmp_path):
    with pytest.raises(ChoiceError, match="no class 'lefft'; did you mean left"):
        classifier.saliency("gone.mp4", "lefft")  # before any file is opened
    with pytest.raises(ChoiceError, match="there is no second 99"):
        classifier.saliency(CLIP, second=99)
    with pytest.raises(VideoDecodeError, match=r"gone\.mp4"):
        classifier.saliency(tmp_path / "gone.mp4")
    predictor = load(LEGACY / "classifier", "cpu")
    predictor.clip = predictor.clip._replace(sampling="segments")
    with pytest.raises(ChoiceError, match="leave out the second"):
        predictor.saliency(CLIP, second=1)


def test_occlusion_finds_the_person_that_the_score_is_about(hall):
    """The network sees only the brightness of the box; of three persons it is about one."""
    folder, white = hall
    second, person = next(
        (s, p) for s in (1, 2, 3, 5, 6) for p in range(3) if white[s, p] and white[s - 1, p]
    )
    saliency = predictor().saliency(
        folder / "hall.mp4",
        *("bright, now", "occlusion", second, BoxFile(folder / "boxes.csv"), person),
        cuboid=(1, 8, 8),
    )
    assert saliency.label == "bright, now"
    assert saliency.probability > 0.9
    assert saliency.box is not None
    x1, y1, x2, y2 = np.round(np.array(saliency.box) * 64).astype(int)
    inside = np.zeros(saliency.map.shape, bool)
    inside[2, y1:y2, x1:x2] = True  # the frame at the second
    assert saliency.map[inside].min() > 0.1
    around = np.zeros_like(inside)
    around[2, max(0, y1 - 8) : y2 + 8, max(0, x1 - 8) : x2 + 8] = True
    assert saliency.map[~around].max() < 1e-4


def test_by_default_the_strongest_person_and_action_near_the_middle(hall):
    folder, white = hall
    options = {"method": "occlusion", "boxes": BoxFile(folder / "boxes.csv")}
    saliency = predictor(times_person_score=True).saliency(folder / "hall.mp4", **options)
    assert saliency.times[2] == pytest.approx(5)  # of 10.8 s; clips begin four frames before
    assert saliency.label == ("bright, now" if white[5].any() else "bright before")
    assert saliency.probability == pytest.approx(0.5, abs=0.01)  # times the person's score
    with pytest.raises(ChoiceError, match=r"hall\.mp4: nobody is there at second 4"):
        predictor().saliency(folder / "hall.mp4", second=4, **options)


def test_grad_cam_of_a_detector(detector):
    (person,) = detector.predict(CLIP, "full_frame")[1].persons
    saliency = detector.saliency(CLIP, second=1, boxes="full_frame")
    assert saliency.label == person.actions[0].label
    assert saliency.probability == pytest.approx(person.actions[0].score, abs=1e-6)
    assert saliency.map.shape == saliency.clip.shape[:3]
    assert (saliency.map.min(), saliency.map.max()) == (0, 1)
    assert saliency.box == (0, 0, 1, 1)
    other = detector.saliency(CLIP, person.actions[-1].label, second=1, boxes="full_frame")
    assert other.label == person.actions[-1].label
    assert not np.array_equal(other.map, saliency.map)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "upp"}, "no class 'upp'; did you mean up"),
        ({"second": 0.5}, "whole seconds, 0 to 1"),
        ({"second": 9}, "there is no second 9"),
        ({"second": 1, "person": 1}, "no person 1 at second 1; there are 0 to 0"),
        ({"method": "lime"}, "method must be grad_cam or occlusion, not 'lime'"),
    ],
)
def test_what_a_detector_cannot_answer(options, message, detector):
    with pytest.raises(ChoiceError, match=message):
        detector.saliency(CLIP, boxes="full_frame", **options)


def test_files(detector, tmp_path):
    saliency = detector.saliency(CLIP, second=1, boxes="full_frame")
    picture, film = write_saliency(saliency, tmp_path / "a.clip")
    assert (picture.name, film.name) == ("a.clip.png", "a.clip.mp4")
    with Image.open(picture) as image:
        assert image.width > 8 * 160
        assert image.height > 2 * 160
    frames = list(play(str(film)))
    assert len(frames) == len(saliency.clip)
    spans = [float(frame.end - frame.start) for frame in frames]
    np.testing.assert_allclose(spans, np.diff(saliency.times).mean(), atol=1e-3)
    left, right = np.split(frames[3].picture, 2, axis=1)
    assert (
        np.ptp(left[:300].astype(int), axis=-1).mean()
        != np.ptp(right[:300].astype(int), axis=-1).mean()
    )


def test_times_lie_within_a_short_video(classifier, detector, tmp_path):
    path = tmp_path / "short.mp4"
    write_h264(path, np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8))
    for saliency in (
        classifier.saliency(path, second=0.1),
        detector.saliency(path, second=0, boxes="full_frame"),
    ):
        assert saliency.times[0] < 0
        assert saliency.times[-1] > 8 / 30
        with VideoFile(path) as file:
            last = file.duration - 1 / float(file.rate)
        times = saliency.shown_times
        assert (times[0], times[-1]) == pytest.approx((0, last))
        inside = (saliency.times >= 0) & (saliency.times <= last)
        assert np.array_equal(times[inside], saliency.times[inside])
        for beyond in (saliency.times < 0, saliency.times > last):
            assert len(np.unique(saliency.clip[beyond], axis=0)) == 1
        # The sheet's labels are those of the shown times; the film goes on at its speed.
        shown = saliency._replace(times=times)
        assert np.array_equal(*(np.asarray(saliency_sheet(s)) for s in (saliency, shown)))
        film = list(play(str(write_saliency(saliency, tmp_path / "map")[1])))
        spans = [float(frame.end - frame.start) for frame in film]
        np.testing.assert_allclose(spans, np.diff(saliency.times).mean(), atol=1e-3)


# The command.


def explain(monkeypatch, *words):
    """Run the command; returns its exit code."""
    monkeypatch.setattr("sys.argv", ["hiera-video", "explain", *map(str, words)])
    try:
        cli.main()
    except SystemExit as end:
        return end.code
    return 0


def test_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    shutil.copy(CLIP, tmp_path / "other.mp4")
    videos = [CLIP, tmp_path / "broken.mp4", tmp_path / "other.mp4"]
    words = [LEGACY / "classifier", *videos, "--out", tmp_path / "out", "--stage", 3]
    assert explain(monkeypatch, *words, "--label", "left") == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{CLIP}  left  0.")
    assert "broken.mp4" in output.err
    assert "Traceback" not in output.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{n}-grad_cam.{kind}" for n in ("clip", "other") for kind in ("png", "mp4")}


def test_the_command_for_actions(tmp_path, monkeypatch, capsys):
    words = [LEGACY / "detector", CLIP, "--out", tmp_path, "--boxes", "full_frame"]
    more = ["--second", 1, "--person", 0, "--method", "occlusion", "--cuboid", 8, 32, 32]
    assert explain(monkeypatch, *words, *more) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "clip-occlusion.png",
        "clip-occlusion.mp4",
    }
    assert "clip.mp4  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "words", "message", "code"),
    [
        ("classifier", ["--label", "lefft"], "no class 'lefft'; did you mean left", 2),
        ("classifier", ["--boxes", "full_frame"], "--boxes is for action detectors", 2),
        ("classifier", ["--method", "gradcam"], "did you mean grad_cam", 2),
        ("classifier", ["--second", "99"], "there is no second 99", 2),
        ("classifier", ["gone.mp4"], "", 0),
        ("detector", ["--boxes", "full_fram"], "did you mean full_frame", 2),
        ("pretraining", [], "a masked autoencoder knows no classes", 2),
    ],
)
def test_wrong_words(run, words, message, code, tmp_path, monkeypatch, capsys):
    assert explain(monkeypatch, LEGACY / run, CLIP, *words, "--out", tmp_path) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_no_video_can_be_used(tmp_path, monkeypatch, capsys):
    words = [LEGACY / "classifier", tmp_path / "gone.mp4", "--out", tmp_path]
    assert explain(monkeypatch, *words) == 1
    assert "none of the videos could be used" in capsys.readouterr().err


def test_the_probability_is_seen_beside_a_long_name():
    clip, heat = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64), np.float32)
    low, high = (
        saliency_sheet(Saliency(clip, heat, 0.0, "a long name " * 9, p, "grad_cam", np.zeros(1)))
        for p in (0.12, 0.98)
    )
    assert low.tobytes() != high.tobytes()
