"""Models that transformers saved, as folders and from the hub's cache, without a network."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import HieraConfig, HieraForImageClassification, HieraForPreTraining, HieraModel

from hiera_video import create_mae, create_model, load, load_weights
from hiera_video.errors import CheckpointError
from hiera_video.predicting.autoencoder import Reconstructor
from hiera_video.weights import read_trained
from tests.models.foreign import randomize_transformers
from tests.models.reference import difference, make_video

# What transformers computes from these, no Hiera of ours does.
OTHER_NETWORKS = {
    "heads": ({"num_heads": [2, 2, 4, 8]}, "num_heads .2, 2, 4, 8. must grow by one factor"),
    "windows": (
        {"masked_unit_attention": [True, False, True, False]},
        "something else than a Hiera with masked_unit_attention .True, False, True, False.",
    ),
    "units": (
        {"depths": [1, 1, 1], "num_query_pool": 2, "masked_unit_attention": [True, True, False]},
        r"masked_unit_size \(8, 8\), not \(4, 4\)",
    ),
    "pooling": (
        {"num_query_pool": 1, "masked_unit_attention": [True, True, False, False]},
        "num_query_pool 1 with masked_unit_attention",
    ),
    "activation": ({"hidden_act": "relu"}, "hidden_act must be gelu, as in Hiera, not 'relu'"),
    "norm": ({"layer_norm_eps": 0.01}, "layer_norm_eps must be 1e-06, as in Hiera, not 0.01"),
}
WRONG = [
    ({"depths": [1, 1, 20000, 1]}, "depths must be a list .* together at most 1000"),
    ({"depths": "x"}, "depths must be a list"),
    ({"embed_dim": -16}, "embed_dim must be a whole number above 0, not -16"),
    ({"num_heads": [5, 10, 20, 40]}, "16 channels do not divide into 5 heads"),
    ({"num_heads": [0, 2, 4, 8]}, "num_heads must be"),
    ({"num_heads": [1, 2]}, "num_heads must be as many"),
    ({"num_heads": []}, "num_heads must be as many"),
    ({"image_size": "224"}, "image_size must be two whole numbers above 0, not '224'"),
    ({"image_size": [65, 64]}, "height 65 must be a multiple of 32"),
    ({"patch_padding": None}, "patch_padding must be two numbers, not None"),
    ({"num_channels": 1}, "num_channels is 1; pictures have 3"),
    ({"id2label": ["a", "b"]}, "id2label must have a name for each class"),
    ({"id2label": {"0": "a", "2": "b"}}, "id2label must have a name for each class"),
    ({"id2label": {"0": 0, "1": 1, "2": 2}}, "id2label must have a name for each class"),
    ({"id2label": {str(i): f"l{i}" for i in range(7)}}, "head.projection.weight"),
    ({"architectures": ["A", "B"]}, "A and B has no head that is known here"),
    ({"architectures": None}, "it has no head that is known here"),
    ({"architectures": 5}, "it has no head that is known here"),
]
SMALL = {"embed_dim": 16, "num_heads": [1, 2, 4, 8], "depths": [1, 1, 1, 1]}
NAMES = {0: "cat", 1: "dog", 2: "owl"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def config(**more):
    return HieraConfig(id2label=NAMES, **{"image_size": [64, 64], **SMALL, **more})


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
    (folder / "refs/main").write_text(COMMIT)
    model = HieraForImageClassification(config()).eval()
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder / f"snapshots/{COMMIT}")
    processor = {
        "size": {"shortest_edge": 64},
        "resample": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    (folder / f"snapshots/{COMMIT}/preprocessor_config.json").write_text(json.dumps(processor))
    return model


def test_a_name_in_the_cache_of_the_hub_is_a_predictor(cached, picture):
    predictor = load("facebook/hiera-small-hf", "cpu")
    assert predictor.class_names == ("cat", "dog", "owl")
    assert predictor.clip[-2:] == ("bilinear", 1.0)
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = cached(pixel_values=(pixels - 0.5) / 0.25).logits.softmax(1)[0]
    np.testing.assert_allclose(predictor.probabilities(picture), expected, atol=1e-5)


def test_a_cache_that_names_no_commit_is_left_alone(cached, tmp_path):
    main = tmp_path / "models--facebook--hiera-small-hf/refs/main"
    for content in (f"../snapshots/{COMMIT}".encode(), b"\xff"):
        main.write_bytes(content)
        with pytest.raises(CheckpointError, match="no such run, file or published model"):
            load("facebook/hiera-small-hf")


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


def test_files_of_earlier_versions(cached, tmp_path):
    folder = tmp_path / f"models--facebook--hiera-small-hf/snapshots/{COMMIT}"
    changes = {
        "config.json": {"architectures": ["HieraModel", "HieraForImageClassification"]},
        "preprocessor_config.json": {"size": 128},
    }
    for name, change in changes.items():
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **change}))
    description = read_trained(folder).description
    assert description.kind == "classifier"
    assert description.clip is not None
    assert description.clip["eval_crop"] == 0.5


def test_what_has_no_head_and_what_is_not_there_say_so(tmp_path, monkeypatch):
    HieraModel(config()).save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="HieraModel has no head that is known here"):
        load(tmp_path / "model")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="no such run, file or published model"):
        load("facebook/hiera-small-hf")


def saved(folder, model_class=HieraForImageClassification, **changes):
    """A folder with a model of transformers, all of whose parts matter, and the model."""
    model = model_class(config(**{"embed_dim": 48, **changes})).eval()
    randomize_transformers(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("case", OTHER_NETWORKS)
def test_another_network_is_refused(case, tmp_path):
    changes, message = OTHER_NETWORKS[case]
    saved(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=f"config.json: .*{message}"):
        load(tmp_path, "cpu")
    stages = changes.get("depths", SMALL["depths"])
    model = create_model("hiera_tiny_224", embed_dim=48, stages=stages, input_size=(64, 64),
                         num_classes=3, q_pool=min(3, len(stages) - 1))  # fmt: skip
    with pytest.raises(CheckpointError, match=f"config.json: .*{message}"):
        load_weights(model, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_heads": [1, 3, 9, 27], "embed_dim": 54},
        {"num_query_pool": 2},
        {"depths": [1, 1, 1], "num_heads": [1, 2, 4], "num_query_pool": 2,
         "masked_unit_size": [4, 4]},
        {"image_size": [64, 96], "num_query_pool": 1,
         "masked_unit_attention": [True, False, False, False]},
    ],
)  # fmt: skip
def test_what_is_read_computes_the_same(changes, tmp_path):
    theirs = saved(tmp_path, **changes)
    ours = load(tmp_path, "cpu").model
    with torch.no_grad():
        video = make_video(ours, 2)
        assert difference(ours(video), theirs(video).logits) < 1e-5


def test_weights_of_other_heads_are_refused(tmp_path):
    saved(tmp_path, num_heads=[2, 4, 8, 16])
    small = {"embed_dim": 48, "stages": (1, 1, 1, 1), "input_size": (64, 64), "num_classes": 3}
    message = r"attention heads \[2, 4, 8, 16\], and that of the model is \[1, 2, 4, 8\]"
    with pytest.raises(CheckpointError, match=message):
        load_weights(create_model("hiera_tiny_224", **small), tmp_path)
    load_weights(create_model("hiera_tiny_224", **small, num_heads=2), tmp_path, quiet=True)
    load_weights(create_model("hiera_tiny_224", **small), tmp_path, strict=False, quiet=True)


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_values_are_one_line(changes, message, tmp_path):
    saved(tmp_path, embed_dim=16)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message) as error:
        load(tmp_path, "cpu")
    assert "\n" not in str(error.value)
    assert "model.json" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{"])
def test_a_file_that_is_no_object_is_one_line(text, tmp_path):
    saved(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="config.json: not "):
        load(tmp_path, "cpu")


def test_weights_in_several_files_say_so(tmp_path):
    model = HieraForImageClassification(config())
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    index = tmp_path / "model.safetensors.index.json"
    ours = create_model("hiera_tiny_224", embed_dim=16, stages=(1, 1, 1, 1), input_size=(64, 64))
    for read in (load, create_model, partial(load_weights, ours)):
        with pytest.raises(CheckpointError, match=f"{tmp_path}: weights in several files; save"):
            read(tmp_path)
    for read in (load, partial(load_weights, ours)):
        with pytest.raises(CheckpointError, match="index.json: weights in several files; save"):
            read(index)


def test_two_classes_without_names(tmp_path):
    model = HieraForImageClassification(HieraConfig(image_size=[64, 64], num_labels=2, **SMALL))
    model.save_pretrained(tmp_path)
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    assert load(tmp_path, "cpu").class_names == ("0", "1")


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression", 3])
def test_outputs_that_are_no_single_class_are_refused(kind, tmp_path):
    saved(tmp_path, embed_dim=16)
    file = tmp_path / "config.json"
    stated = json.loads(file.read_text())
    for allowed in (None, "single_label_classification"):
        file.write_text(json.dumps({**stated, "problem_type": allowed}))
        load(tmp_path, "cpu")
    file.write_text(json.dumps({**stated, "problem_type": kind}))
    with pytest.raises(CheckpointError, match="problem_type must be single_label_classification"):
        load(tmp_path, "cpu")
    small = {"embed_dim": 16, "stages": (1, 1, 1, 1), "input_size": (64, 64), "num_classes": 3}
    load_weights(create_model("hiera_tiny_224", **small), tmp_path, quiet=True)


def test_a_folder_is_a_model_to_train_from(tmp_path):
    theirs = saved(tmp_path)
    model = create_model(tmp_path, drop_path_rate=0.1)
    assert torch.equal(model.head.projection.weight, theirs.classifier.weight)
    with pytest.raises(CheckpointError, match="holds a classifier; use create_model"):
        create_mae(tmp_path)
