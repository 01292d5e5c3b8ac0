"""The layouts of timm and transformers, loaded by these."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    HieraForImageClassification,
    HieraForPreTraining,
    HieraModel,
    pipeline,
)

from hiera_video import create_mae, load
from hiera_video.errors import LayoutError
from hiera_video.export.layouts import write_timm
from hiera_video.export.model_card import loading_code
from hiera_video.export.transformers_layout import write_transformers
from hiera_video.models.zoo import create_model
from hiera_video.weights.description import PUBLISHED_PICTURE, Description
from tests.models.foreign import pretraining_difference
from tests.models.reference import difference, make_video, randomize
from tests.models.small import TINY

SMALL = {
    "input_size": (64, 96), "embed_dim": 16, "num_heads": 2, "stages": (1, 2, 1, 1),
    "num_classes": 7, "mlp_ratio": 3.0, "mask_unit_attn": (True, False, False, False),
}  # fmt: skip
CASES = {
    "published": ("hiera_tiny_224", {}),
    "small": ("hiera_tiny_224", SMALL),
    "square": ("hiera_tiny_224", {**SMALL, "input_size": (64, 64)}),
    "three stages": (
        "hiera_base_224",
        {**SMALL, "stages": (1, 2, 1), "q_pool": 2, "mask_unit_size": (4, 4), "head_mul": 1.0},
    ),
}


def made(case):
    name, arguments = CASES[case]
    model = create_model(name, **arguments).eval()
    randomize(model)
    classes = model.head.projection.out_features
    return model, Description(
        kind="classifier",
        name=name,
        arguments=arguments,
        class_names=tuple(f"class {i}" for i in range(classes)),
        clip=None,
        mean=(0.4, 0.5, 0.6),
        std=(0.1, 0.2, 0.3),
        source="test",
    )


@pytest.mark.parametrize("case", CASES)
def test_timm_gives_the_same_logits(case, tmp_path):
    model, description = made(case)
    write_timm(tmp_path, model, description)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    video = make_video(model, 2)
    with torch.no_grad():
        torch.testing.assert_close(theirs(video), model(video), rtol=1e-5, atol=1e-5)
    assert theirs.pretrained_cfg["mean"] == [0.4, 0.5, 0.6]
    assert theirs.pretrained_cfg["label_names"][1] == "class 1"
    # The other way that timm has.
    arguments = json.loads((tmp_path / "config.json").read_text())["model_args"]
    other = timm.create_model(
        description.name,
        checkpoint_path=str(tmp_path / "model.safetensors"),
        num_classes=model.head.projection.out_features,
        **arguments,
    ).eval()
    with torch.no_grad():
        assert torch.equal(other(video), theirs(video))


@pytest.mark.parametrize("case", CASES)
def test_transformers_gives_the_same_logits(case, tmp_path):
    model, description = made(case)
    write_transformers(tmp_path, model, description)
    theirs, problems = HieraForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(problems.values()), problems
    video = make_video(model, 2)
    with torch.no_grad():
        logits = theirs.eval()(video).logits
        torch.testing.assert_close(logits, model(video), rtol=1e-5, atol=1e-5)
    assert theirs.config.id2label[1] == "class 1"
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    pixels = processor(np.full((300, 400, 3), 51, np.uint8), return_tensors="pt").pixel_values
    assert pixels.shape[1:] == (3, *model.input_size)
    expected = (torch.tensor([0.2] * 3) - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor(
        [0.1, 0.2, 0.3]
    )
    torch.testing.assert_close(pixels[0, :, 5, 5], expected, rtol=1e-4, atol=1e-4)


DECODER = {"decoder_embed_dim": 32, "decoder_depth": 2, "decoder_num_heads": 4}
MAES = {
    "published pooling": {},
    "pixels as they are": {"target": "pixels", "decoder_num_heads": 2},
    "one pooling": {"q_pool": 1},
    "three poolings": {"q_pool": 3},
}


def made_mae(**changes):
    arguments = {**SMALL, **DECODER, **changes}
    del arguments["num_classes"]
    mae = create_mae("hiera_tiny_224", **arguments).eval()
    randomize(mae)
    return mae, made("small")[1]._replace(
        kind="masked_autoencoder",
        arguments=arguments,
        class_names=(),
        clip={**PUBLISHED_PICTURE, "size": [64, 96]},
        evaluation={"mask_ratio": 0.5},
    )


@pytest.mark.parametrize("case", MAES)
def test_transformers_reconstructs_the_same(case, tmp_path):
    mae, description = made_mae(**MAES[case])
    write_transformers(tmp_path, mae, description)
    theirs, problems = HieraForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(problems.values()), problems
    with torch.no_grad():
        assert pretraining_difference(mae, theirs.eval(), mask_ratio=0.5) < 1e-5
    assert list(AutoImageProcessor.from_pretrained(tmp_path).image_mean) == [0.4, 0.5, 0.6]
    code = loading_code("transformers", "folder", description, mae.input_size)
    assert 'HieraForPreTraining.from_pretrained("folder")' in code
    (tmp_path / "preprocessor_config.json").unlink()  # of an input that is not square
    again = load(tmp_path, "cpu")  # as any folder that transformers wrote
    assert (again.mask_ratio, again.model.q_pool) == (0.5, mae.q_pool)
    video = make_video(mae, 2)
    kept = torch.tensor([[0, 3, 5], [1, 2, 4]])
    with torch.no_grad():
        assert torch.equal(again.model(video, mask=kept).loss, mae(video, mask=kept).loss)


@pytest.mark.parametrize("kind", ["classifier", "masked_autoencoder"])
def test_the_encoder_alone_is_a_hiera_model(kind, tmp_path):
    model, description = made("small") if kind == "classifier" else made_mae()
    write_transformers(tmp_path, model, description)
    theirs, problems = HieraModel.from_pretrained(
        tmp_path, add_pooling_layer=kind == "classifier", output_loading_info=True
    )
    assert not problems["missing_keys"], problems
    video = make_video(model, 2)
    with torch.no_grad():
        last = theirs.eval()(video, output_hidden_states=True).reshaped_hidden_states[-1]
        assert difference(last, model.forward_features(video)) < 1e-5


def test_a_pipeline_names_the_classes_of_a_picture(tmp_path):
    model, description = made("square")
    clip = {**PUBLISHED_PICTURE, "size": [64, 64], "eval_crop": 1.0}
    write_transformers(tmp_path, model, description._replace(clip=clip))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    answers = pipeline("image-classification", model=str(tmp_path), device="cpu")(
        str(tmp_path / "picture.png"), top_k=7
    )
    predictor = load(tmp_path, "cpu")
    expected = predictor.probabilities(tmp_path / "picture.png")
    scores = {answer["label"]: answer["score"] for answer in answers}
    assert scores.keys() == set(description.class_names)
    np.testing.assert_allclose([scores[n] for n in description.class_names], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "hog"}, "predicts pixels alone"),
        ({"q_pool": 1, "mask_unit_attn": (True, True, False, False)}, r"q_pool 1 with mask_unit"),
    ],
)
def test_autoencoders_that_transformers_cannot_be(changes, message, tmp_path):
    mae, description = made_mae(**changes)
    with pytest.raises(LayoutError, match=message):
        write_transformers(tmp_path, mae, description)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_timm, write_transformers])
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("hiera_tiny_16x224", TINY, "no Hiera for video"),
        ("hiera_tiny_224", {**SMALL, "q_pool": 2}, "q_pool 2 for 4 stages"),
        ("hiera_tiny_224", {**SMALL, "mask_unit_size": (16, 16)}, r"mask_unit_size \(16, 16\)"),
        ("hiera_tiny_224", {**SMALL, "mask_unit_attn": (False, True, False, False)}, "unit_attn"),
    ],
)
def test_what_they_cannot_be_is_refused(write, name, arguments, message, tmp_path):
    if arguments.get("mask_unit_size"):
        arguments = {**arguments, "input_size": (64, 128)}
    model = create_model(name, **arguments)
    description = made("small")[1]._replace(name=name, arguments=arguments)
    with pytest.raises(LayoutError, match=message):
        write(tmp_path, model, description)
    assert not list(tmp_path.iterdir())
