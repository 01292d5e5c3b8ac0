"""`load` of every kind of model: runs of version 0.1.0 say what that version said."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.clips.sampling import keyframe_times
from datamodules.errors import VideoDecodeError
from datamodules.video.decoding import VideoFile
from hiera_video import cli, create_detector, create_mae, create_model, load
from hiera_video.augment.basic import Normalize
from hiera_video.errors import CheckpointError
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.autoencoder import Reconstructor
from hiera_video.predicting.classifier import Predictor
from hiera_video.weights.description import RECORD, to_record
from hiera_video.weights.portable import write_model
from hiera_video.weights.trained import read_trained
from tests.legacy.make import fixed_boxes, fixed_mask, fixed_video
from tests.models.conftest import _one_thread  # noqa: F401
from tests.models.small import tiny_mae, tiny_model
from tests.trained_models import write_mae_run

LEGACY = Path(__file__).parents[1] / "legacy"
EXPECTED = json.loads((LEGACY / "expected.json").read_text())
CLIP = LEGACY / "clip.mp4"
RUNS = ("classifier", "detector", "pretraining")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Each run of version 0.1.0, and a new export of it."""
    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        for name in RUNS:
            words = [str(LEGACY / name), "--format", "safetensors", "--out", str(folder / name)]
            patch.setattr("sys.argv", ["hiera-video", "export", *words])
            cli.main()
    return {"run": LEGACY, "export": folder}


@pytest.mark.parametrize("source", ["run", "export"])
def test_classifier(sources, source):
    expected, predictor = EXPECTED["classifier"], load(sources[source] / "classifier", "cpu")
    assert isinstance(predictor, Predictor)
    assert list(predictor.class_names) == expected["class_names"]
    answer = predictor.predict(CLIP)
    assert [p.label for p in answer] == [p["label"] for p in expected["predict clip.mp4"]]
    wanted = [p["probability"] for p in expected["predict clip.mp4"]]
    np.testing.assert_allclose([p.probability for p in answer], wanted, atol=1e-5)
    probabilities = predictor.probabilities(CLIP)
    np.testing.assert_allclose(probabilities, expected["probabilities clip.mp4"], atol=1e-5)
    with torch.inference_mode():
        logits = predictor.model(fixed_video())
    np.testing.assert_allclose(logits, expected["logits fixed_video"], atol=1e-5)


def test_an_export_of_version_0_1():
    answer = load(LEGACY / "exported", "cpu").predict(CLIP)
    wanted = EXPECTED["exported"]["predict clip.mp4"]
    assert [p.label for p in answer] == [p["label"] for p in wanted]
    for prediction, expected in zip(answer, wanted, strict=True):
        assert prediction.probability == pytest.approx(expected["probability"], abs=1e-5)


@pytest.mark.parametrize("source", ["run", "export"])
def test_detector(sources, source):
    expected, predictor = EXPECTED["detector"], load(sources[source] / "detector", "cpu")
    assert isinstance(predictor, ActionPredictor)
    with torch.inference_mode():
        logits = predictor.model(fixed_video(), *fixed_boxes())
    np.testing.assert_allclose(logits, expected["logits fixed_video fixed_boxes"], atol=1e-5)

    seconds = predictor.predict(CLIP, boxes="full_frame", top=8)
    assert [second.second for second in seconds] == [0, 1]
    for second, persons in seconds:
        with VideoFile(CLIP) as file:
            frames = torch.from_numpy(file.frames_at(keyframe_times(second, 8, 3, 30)))
        video = Normalize()(frames.permute(3, 0, 1, 2)[None])  # (1, 3, T, H, W)
        with torch.inference_mode():
            whole, clip = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0])
            scores = predictor.model(video, whole, clip)[0].sigmoid().tolist()
        ((box, person_score, actions),) = persons
        assert (box, person_score) == ((0, 0, 1, 1), 1)
        score_of = dict(actions)
        assert list(score_of.values()) == sorted(score_of.values(), reverse=True)
        for name, score in zip(predictor.class_names, scores, strict=True):
            assert score_of[name] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("source", ["run", "export"])
def test_masked_autoencoder(sources, source):
    expected, model = EXPECTED["pretraining"], load(sources[source] / "pretraining", "cpu")
    assert isinstance(model, Reconstructor)
    with torch.inference_mode():
        out = model.model(fixed_video(), mask=fixed_mask())
    assert float(out.loss) == pytest.approx(expected["loss fixed_video fixed_mask"], abs=1e-5)
    prediction = expected["prediction fixed_video fixed_mask"]
    assert list(out.prediction.shape) == prediction["shape"]
    first = out.prediction.flatten()[:8]
    np.testing.assert_allclose(first, prediction["first 8 numbers"], atol=1e-5)
    assert float(out.prediction.double().sum()) == pytest.approx(prediction["sum"], rel=1e-5)


def test_pictures_of_a_masked_autoencoder():
    model = load(LEGACY / "pretraining", "cpu")
    pictures = model.reconstruct(CLIP)
    assert pictures.rows.shape == (4, 4, 64, 64, 3)  # every second of 8 frames
    with VideoFile(CLIP) as file:
        middle = file.frames_at([file.duration / 2])[0].astype(int)
    assert np.abs(pictures.original[2] - middle).mean() < 20  # the clip is from the middle
    hidden = (pictures.masked == 96).all(axis=-1)
    assert hidden.mean() == pytest.approx(0.5, abs=0.02)  # the training's mask_ratio
    seen = ~hidden
    assert np.array_equal(pictures.masked[seen], pictures.original[seen])
    assert np.array_equal(pictures.reconstruction[seen], pictures.original[seen])
    assert not np.array_equal(pictures.reconstruction, pictures.original)

    again, other = model.reconstruct(CLIP), model.reconstruct(CLIP, seed=1)
    assert again.loss == pictures.loss
    assert np.array_equal(again.rows, pictures.rows)
    assert not np.array_equal(other.masked, pictures.masked)
    most = model.reconstruct(CLIP, mask_ratio=0.9)
    assert (most.masked == 96).all(axis=-1).mean() > 0.9


def test_a_clip_in_place_of_a_file():
    model = load(LEGACY / "pretraining", "cpu")
    clip = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    pictures = model.reconstruct(clip, seed=3)
    assert np.abs(pictures.original.astype(int) - clip[::2]).max() <= 1  # normalised and back
    for wrong in (clip[:4], clip.astype(np.float32)):
        with pytest.raises(ValueError, match=r"expected a clip uint8 \(8, 64, 64, 3\), not"):
            model.reconstruct(wrong)
    with pytest.raises(ValueError, match="mask_ratio must be in"):
        model.reconstruct(clip, mask_ratio=1.5)
    with pytest.raises(VideoDecodeError, match=r"gone\.mp4"):
        model.reconstruct("gone.mp4")


@pytest.mark.parametrize("name", RUNS)
def test_an_export_holds_the_model_and_what_the_run_says(sources, name):
    run, export = (read_trained(folder / name).description for folder in sources.values())
    added = ("training", "versions", "licence")
    for field in set(run._fields) - set(added):
        assert getattr(export, field) == getattr(run, field), field
    assert export.versions["torch"] == "2.14.1"
    assert export.training["epochs"] == 1
    create = {"classifier": create_model, "detector": create_detector, "pretraining": create_mae}
    model = create[name](sources["export"] / name)
    saved = torch.load(next((LEGACY / name).glob("checkpoints/*")), weights_only=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, saved["state_dict"][f"model.{key}"])
    card = (sources["export"] / name / "README.md").read_text()
    use = {"detector": "predict(", "classifier": "predict(", "pretraining": "reconstruct("}[name]
    assert f'load("{name}").{use}"video.mp4"' in card
    assert "| torch | 2.14.1 |" in card


def test_settings_of_tests_are_used(tmp_path):
    description = read_trained(LEGACY / "detector").description
    settings = {"short_side": 96, "person_score": True}
    model = load(LEGACY / "detector", "cpu").model
    write_model(tmp_path, model, description._replace(evaluation=settings))
    predictor = load(tmp_path, "cpu")
    scorer = predictor.scorer
    assert (scorer.short_side, scorer.times_person_score) == (96, True)
    (tmp_path / "boxes.csv").write_text("clip,0,0.2,0.2,0.8,0.8,,0.9\n")
    (person,) = predictor.predict(CLIP, tmp_path / "boxes.csv")[0].persons
    scorer.times_person_score = False
    (alone,) = predictor.predict(CLIP, tmp_path / "boxes.csv")[0].persons
    for one, other in zip(person.actions, alone.actions, strict=True):
        assert one.score == pytest.approx(0.9 * other.score, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 0.5}, "evaluation.short_side must be a whole number"),
        ({"pad": [64]}, "evaluation.pad must be two whole numbers"),
        ({"person_score": 3}, "evaluation.person_score must be true or false"),
        ({"mask_ratio": 1}, "evaluation.mask_ratio must be a number between 0 and 1"),
        ({"masks": "tube"}, r"no field evaluation\.masks; did you mean mask"),
        ({"mask": "none"}, "mask must be one of random, tube, block, not 'none'"),
    ],
)
def test_wrong_settings_of_tests(tmp_path, settings, message):
    description = read_trained(LEGACY / "pretraining").description
    model = load(LEGACY / "pretraining", "cpu").model
    write_model(tmp_path, model, description._replace(evaluation=settings))
    with pytest.raises(CheckpointError, match=message) as error:
        load(tmp_path, "cpu")
    assert "\n" not in str(error.value)


def test_what_cannot_be_loaded(tmp_path):
    write_mae_run(tmp_path / "mae")
    path = tmp_path / "mae/checkpoints/last.ckpt"
    description = read_trained(path).description
    content = torch.load(path, weights_only=True)
    custom = description._replace(kind="custom", name="MyNetwork", arguments={})
    torch.save(content | {RECORD: to_record(custom)}, path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: its model is MyNetwork, which is not"):
        load(path)
    for name, model, create in (
        ("masked_autoencoder", tiny_mae(), "create_mae"),
        ("classifier", tiny_model(), "create_model"),
    ):
        write_model(tmp_path, model, description._replace(kind=name, clip=None))
        with pytest.raises(CheckpointError, match=f"does not say what its input is; use {create}$"):
            load(tmp_path)
    write_model(tmp_path, tiny_model(), custom)
    for read in (load, create_model):
        with pytest.raises(CheckpointError, match="its model is MyNetwork"):
            read(tmp_path)


@pytest.mark.parametrize("given", [None, ["run"], b"run"])
def test_what_is_no_name_is_told(given):
    what = "None" if given is None else f"an object of type {type(given).__name__}"
    with pytest.raises(TypeError, match=f"^expected a run, a file .* name, not {what}$"):
        load(given)


def test_frames_in_place_of_a_file_are_refused():
    with pytest.raises(TypeError, match="expected the path of a video or picture, not .* ndarray"):
        load(LEGACY / "classifier", "cpu").predict(np.zeros((30, 64, 64, 3), np.uint8))
