"""Models that transformers saved, as folders and from the hub's cache, without a network."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import HieraConfig, HieraForImageClassification, HieraForPreTraining, HieraModel

from hiera_video import create_model, load, load_weights
from hiera_video.errors import CheckpointError
from hiera_video.predicting.autoencoder import Reconstructor
from hiera_video.weights import read_trained

SMALL = {"embed_dim": 16, "num_heads": [1, 2, 4, 8], "depths": [1, 1, 1, 1]}
NAMES = {0: "cat", 1: "dog", 2: "owl"}


def config(**more):
    return HieraConfig(image_size=[64, 64], id2label=NAMES, **{**SMALL, **more})


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A classifier in the hub's cache, and the model of transformers."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--facebook--hiera-small-hf"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    model = HieraForImageClassification(config()).eval()
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder / "snapshots/abc")
    processor = {
        "size": {"shortest_edge": 64},
        "resample": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    (folder / "snapshots/abc/preprocessor_config.json").write_text(json.dumps(processor))
    return model


def test_a_name_in_the_cache_of_the_hub_is_a_predictor(cached, picture):
    predictor = load("facebook/hiera-small-hf", "cpu")
    assert predictor.class_names == ("cat", "dog", "owl")
    assert predictor.clip[-2:] == ("bilinear", 1.0)
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = cached(pixel_values=(pixels - 0.5) / 0.25).logits.softmax(1)[0]
    np.testing.assert_allclose(predictor.probabilities(picture), expected, atol=1e-5)


@pytest.mark.parametrize("size", [64, 96])
def test_it_starts_a_training_at_any_size(cached, size):
    model = create_model(
        "hiera_tiny_224", embed_dim=16, stages=(1, 1, 1, 1), num_classes=3, input_size=(size, size)
    )
    report = load_weights(model, "facebook/hiera-small-hf", quiet=True)
    assert not report.missing
    assert torch.equal(model.head.projection.weight, cached.classifier.weight)


def test_a_saved_autoencoder_reconstructs(tmp_path, picture):
    decoder = {"decoder_hidden_size": 32, "decoder_depth": 1, "decoder_num_heads": 4}
    HieraForPreTraining(config(num_query_pool=2, **decoder)).save_pretrained(tmp_path / "mae")
    model = load(tmp_path / "mae", "cpu")
    assert isinstance(model, Reconstructor)
    assert model.reconstruct(picture).rows.shape == (4, 1, 64, 64, 3)


@pytest.fixture
def saved(cached, tmp_path):
    """Change a file of the folder that is in the cache; None takes a key away."""
    folder = tmp_path / "models--facebook--hiera-small-hf/snapshots/abc"

    def change(file, **values):
        content = {**json.loads((folder / file).read_text()), **values}
        content = {key: value for key, value in content.items() if value is not None}
        (folder / file).write_text(json.dumps(content))
        return folder

    return change


def test_files_of_earlier_versions(saved):
    saved("config.json", architectures=["HieraModel", "HieraForImageClassification"])
    description = read_trained(saved("preprocessor_config.json", size=128)).description
    assert description.kind == "classifier"
    assert description.clip is not None
    assert description.clip["eval_crop"] == 0.5


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        ("config.json", {"num_heads": [0, 2]}),
        ("config.json", {"num_heads": 3}),
        ("config.json", {"depths": 3}),
        ("config.json", {"id2label": ["a"]}),
        ("config.json", {"embed_dim": None}),
        ("preprocessor_config.json", {"size": [64]}),
    ],
)
def test_a_wrong_file_is_one_line(saved, file, wrong):
    folder = saved(file, **wrong)
    with pytest.raises(CheckpointError, match=r"config\.json is incomplete or wrong"):
        read_trained(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 100_000, "not valid JSON"), ("[]", "not an object of JSON")],
)
def test_an_unreadable_file_is_one_line(saved, text, message):
    folder = saved("config.json")
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_trained(folder)


def test_what_has_no_head_and_what_is_not_there_say_so(tmp_path, monkeypatch):
    HieraModel(config()).save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="HieraModel has no head that is known here"):
        load(tmp_path / "model")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="no such run, file or published model"):
        load("facebook/hiera-small-hf")
