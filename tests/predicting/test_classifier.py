"""``load(...).predict(...)`` beside the arithmetic written out."""

import numpy as np
import pytest
import torch

from datamodules.clips.format import ClipFormat
from datamodules.clips.videos import EvaluationViews
from datamodules.errors import VideoDecodeError
from datamodules.manifests.splits import make_manifest
from hiera_video import load
from hiera_video.augment.basic import Normalize
from hiera_video.errors import CheckpointError
from hiera_video.metrics.top_classes import Prediction, top_classes
from hiera_video.predicting.classifier import Predictor
from hiera_video.weights.description import Description
from hiera_video.weights.portable import write_model
from tests.models.conftest import _one_thread  # noqa: F401
from tests.models.small import tiny_model
from tests.trained_models import CLASSES, write_run
from tests.video_files import moving_frames, write_video


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder, its model, and a video."""
    folder = tmp_path_factory.mktemp("run")
    normalize = {"mean": [0.3, 0.4, 0.5], "std": [0.2, 0.25, 0.3]}
    model = write_run(folder, augment={"normalize": normalize})
    video = write_video(folder / "video.mp4", moving_frames(40, 80, 120))
    return folder, model, video


def expected(model, video, views):
    """Probabilities of each view, from the data set that evaluation uses."""
    clip = ClipFormat(4, 2, 30, 64, 64)
    data = EvaluationViews(make_manifest([str(video)], [-1], ()), clip, views, seed=0)
    clips = data[0, 0]["video"].permute(0, 4, 1, 2, 3)
    normalize = Normalize((0.3, 0.4, 0.5), (0.2, 0.25, 0.3))
    with torch.no_grad():
        return torch.cat([model(normalize(c[None])).softmax(1) for c in clips]).double()


@pytest.mark.parametrize("views", [None, (1, 1), (3, 1), (5, 3)])
def test_probabilities_are_the_mean_over_views(run, views):
    folder, model, video = run
    predictor = load(folder, device="cpu")
    mean = expected(model, video, views or (2, 3)).mean(0).numpy()
    probabilities = predictor.probabilities(video, views)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, mean, atol=1e-6)
    answer = predictor.predict(str(video), top=3, views=views)
    order = mean.argsort()[::-1][:3]
    assert [p.label for p in answer] == [CLASSES[i] for i in order]
    np.testing.assert_allclose([p.probability for p in answer], mean[order], atol=1e-6)


def test_all_classes_of_few(run):
    folder, _, video = run
    answer = load(folder, "cpu").predict(video)
    assert sorted(p.label for p in answer) == sorted(CLASSES)
    assert sum(p.probability for p in answer) == pytest.approx(1)


def test_the_mean_is_taken_in_float64_and_ties_have_an_order():
    views = torch.tensor([[0.25, 0.5, 0.25], [0.75, 0.0, 0.25]])
    assert top_classes(views, ["a", "b", "c"], 2)[0] == Prediction("a", 0.5)
    many = torch.full((3000, 2), 0.1)
    assert top_classes(many, ["a", "b"], 1)[0].probability == pytest.approx(
        float(many[0, 0]), 1e-12
    )


def test_classes_without_names_are_numbers(tmp_path, run):
    description = Description(
        kind="classifier",
        name="hiera_tiny_16x224",
        arguments={
            "embed_dim": 16, "stages": [1, 1, 2, 1], "input_size": [4, 64, 64], "num_classes": 5
        },
        class_names=(),
        clip={"num_frames": 4, "stride": 2, "fps": 30, "size": [64, 64], "sampling": "segments",
              "test_views": [1, 1]},
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        source="test",
    )  # fmt: skip
    write_model(tmp_path, tiny_model(), description)
    predictor = load(tmp_path, "cpu")
    assert predictor.class_names == ("0", "1", "2", "3", "4")
    assert predictor.clip.sampling == "segments"
    assert len(predictor.predict(run[2], top=2)) == 2
    write_model(tmp_path, tiny_model(), description._replace(clip=None))
    with pytest.raises(CheckpointError, match="does not say what its input is"):
        load(tmp_path)
    clip = {**(description.clip or {}), "num_frames": 8}
    write_model(tmp_path, tiny_model(), description._replace(clip=clip))
    with pytest.raises(CheckpointError, match=r"clips of \(8, 64, 64\) for a model that takes"):
        load(tmp_path)


def test_many_views_do_not_go_through_the_model_at_once(run):
    seen = []

    class Model(torch.nn.Module):
        def forward(self, video):
            seen.append(len(video))
            return torch.zeros(len(video), 2)

    predictor = Predictor(Model(), ["a", "b"], ClipFormat(4, 2, 30, 64, 64), (7, 3), device="cpu")
    assert predictor.probabilities(run[2]).tolist() == [0.5, 0.5]
    assert sum(seen) == 21
    assert max(seen) <= 8


def test_views_go_to_the_device_when_the_model_takes_them(run, monkeypatch):
    events = []

    class Model(torch.nn.Module):
        def forward(self, video):
            events.append("seen")
            return torch.zeros(len(video), 2)

    predictor = Predictor(Model(), ["a", "b"], ClipFormat(4, 2, 30, 64, 64), (7, 3), device="cpu")
    to = torch.Tensor.to

    def counted(tensor, *args, **kwargs):
        if tensor.dtype == torch.uint8 and predictor.device in args:
            events.append("moved")
        return to(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", counted)
    predictor.probabilities(run[2])
    assert events == ["moved", "seen"] * 3


def test_wrong_input(tmp_path, run):
    folder, _, video = run
    predictor = load(folder, "cpu")
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    for wrong in (tmp_path / "broken.mp4", tmp_path / "gone.mp4"):
        with pytest.raises(VideoDecodeError, match=wrong.name):
            predictor.predict(wrong)
    for views in (0, (0, 3), (1, 2, 3)):
        with pytest.raises(ValueError, match="views must be"):
            predictor.predict(video, views=views)
    with pytest.raises(ValueError, match="top must be"):
        predictor.predict(video, top=0)
