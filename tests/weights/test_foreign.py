"""Files of timm, transformers and SAM 2 against the code that wrote them."""

import json
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import HieraBackbone, HieraModel, Sam2HieraDetConfig, Sam2HieraDetModel

from hiera_video.errors import CheckpointError
from hiera_video.models.zoo import create_model
from hiera_video.weights.foreign import translate
from hiera_video.weights.load import load_weights
from tests.models import foreign
from tests.models.foreign import (
    SMALL,
    from_birder,
    from_sam2,
    from_timm,
    from_transformers,
    image,
    published,
)
from tests.models.reference import difference, randomize

NAME = "hiera_tiny_224"
WINDOWS = {"abs_win_pos_embed": True, "global_pos_size": (5, 5)}
SMALL_224 = {**SMALL, "input_size": (224, 224)}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def small_timm(**kwargs):
    arguments = {**SMALL, **kwargs}
    model = timm.create_model(NAME, img_size=arguments.pop("input_size"), **arguments)
    randomize(model)
    return model.eval()


def small_model(**kwargs):
    return create_model(NAME, **{**SMALL, **kwargs})


def test_timm(tmp_path):
    assert from_timm(tmp_path, NAME, NAME, **SMALL) < 1e-5


def test_timm_at_published_size(tmp_path):
    assert from_timm(tmp_path, NAME, NAME) < 1e-5


def test_timm_with_absolute_windows_and_layer_scale(tmp_path):
    # timm's own interpolates the part across windows, so the size need not be that of the file.
    assert from_timm(tmp_path, "hiera_base_abswin_256", NAME, **SMALL) < 1e-5


def test_timm_embedding_across_windows_at_another_size(tmp_path, capsys):
    saved, other = small_timm(**WINDOWS), small_timm(**WINDOWS, input_size=(128, 64))
    torch.save(saved.state_dict(), tmp_path / "pytorch_model.bin")
    other.load_state_dict(saved.state_dict())
    model = small_model(input_size=(128, 64)).eval()
    report = load_weights(model, tmp_path)
    assert difference(model(image(model)), other(image(model))) < 1e-5
    assert report.resized == []
    assert report.renamed["pos_embed_win"] == "pos_embed"
    text = capsys.readouterr().out
    assert "as timm has them" in text
    assert "CC-BY-NC" in text
    assert "renamed pos_embed_win, head -> pos_embed, norm, head" in text


def test_transformers(tmp_path):
    assert from_transformers(tmp_path, NAME, **SMALL) < 1e-5


@pytest.mark.parametrize("size", [224, 256, 448])
@pytest.mark.parametrize("origin", ["published", "timm", "transformers", "birder"])
def test_pictures_of_other_sizes(origin, size, tmp_path):
    small = {**SMALL, "input_size": (size, size)}
    compare = {
        "published": partial(published, tmp_path, NAME),
        "timm": partial(from_timm, tmp_path, NAME, NAME),
        "transformers": partial(from_transformers, tmp_path, NAME),
        "birder": partial(from_birder, tmp_path, NAME),
    }
    assert compare[origin](**small) < 1e-5


def test_birder(tmp_path, capsys):
    assert from_birder(tmp_path, NAME, **SMALL) < 1e-5
    report = load_weights(small_model(num_classes=1000), tmp_path / "0.pth")
    assert report.renamed["body.stage2.1.mlp.3.bias"] == "blocks.2.mlp.fc2.bias"
    assert report.missing == report.unexpected == []
    assert "as birder has them; the page of the weights says" in capsys.readouterr().out
    report = load_weights(small_model(num_classes=7), tmp_path / "1.pth", quiet=True)
    left_out = [name for name in report.unexpected if name.startswith("encoder.")]
    assert left_out == ["encoder.features.1.weight", "encoder.classifier.bias"]


def test_birder_with_absolute_windows(tmp_path):
    saved = small_timm(**WINDOWS)
    weights = {
        name.replace("head.fc.", "head.projection.").replace("head.norm.", "norm."): value
        for name, value in saved.state_dict().items()
    }
    torch.save({"state": foreign.birder_names(weights, SMALL["stages"])}, tmp_path / "a.pt")
    model = small_model().eval()
    report = load_weights(model, tmp_path / "a.pt", quiet=True)
    assert report.renamed["pos_embed_win"] == "pos_embed"
    assert difference(model(image(model)), saved(image(model))) < 1e-5


def test_a_head_of_birder_that_attends_is_refused(tmp_path):
    weights = foreign.birder_names(small_model().state_dict(), SMALL["stages"])
    torch.save({"state": weights | {"features.0.probe": torch.ones(1)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not in the model: features.0.probe"):
        load_weights(small_model(), tmp_path / "a.pt")


def test_sam2(tmp_path, capsys):
    small = {**SMALL_224, "embed_dim": 24}
    assert from_sam2(tmp_path, "sam2_hiera_tiny", NAME, **small) < 1e-5
    report = load_weights(create_model(NAME, **small), tmp_path / "sam2.pt")
    assert set(report.missing) == {
        *("norm.weight", "norm.bias", "head.projection.weight", "head.projection.bias")
    }
    assert report.unexpected == ["image_encoder.neck.convs.0.conv.weight", "no_mem_embed"]
    text = capsys.readouterr().out
    assert "renamed image_encoder -> " in text
    assert "left out image_encoder.neck.convs.0.conv.weight, no_mem_embed" in text
    assert "kept at initial values: norm.weight, norm.bias" in text
    assert "they differ" not in text


def test_sam2_trunk_alone_and_at_another_size(tmp_path, capsys):
    trunk = timm.create_model("sam2_hiera_tiny", **{k: SMALL[k] for k in ("embed_dim", "stages")})
    randomize(trunk)
    full = {k: v for k, v in foreign.sam2_names(trunk).items() if "trunk" in k}
    bare = {k.removeprefix("image_encoder.trunk."): v for k, v in full.items()}
    torch.save(full, tmp_path / "full.pt")
    torch.save(bare, tmp_path / "bare.pt")
    models = [small_model(), small_model()]
    for model, name in zip(models, ("full", "bare"), strict=True):
        load_weights(model, tmp_path / f"{name}.pt")
        assert "windows and Hiera does not: they differ" in capsys.readouterr().out
    a, b = (model.forward_features(image(model)) for model in models)
    assert torch.equal(a, b)


@pytest.mark.parametrize(("size", "same"), [(256, True), (224, False)])
def test_timms_hieradet_is_not_sam2(tmp_path, size, same, capsys):
    small = {"embed_dim": 24, "stages": SMALL["stages"], "global_att_blocks": (4,)}
    theirs = timm.create_model("hieradet_small", num_classes=7, **small)
    randomize(theirs)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    small = {**SMALL, "embed_dim": 24, "input_size": (size, size), "num_classes": 7}
    model = create_model(NAME, **small).eval()
    load_weights(model, tmp_path / "timm.pth")
    assert (difference(model(image(model)), theirs.eval()(image(model))) < 1e-5) == same
    text = capsys.readouterr().out
    assert "timm's hieradet, with LayerScale folded into the layers" in text
    assert "SAM 2" not in text
    assert ("Hiera does not: they differ" in text) == (not same)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "is not a Hiera: it has no patch embedding$"),
        ("convnext_atto", "is not a Hiera: it has no patch embedding$"),
        (
            "mvitv2_tiny",
            "does not fit the model; sizes differ: patch_embed.proj.weight is 96x3x7x7",
        ),
    ],
)
def test_other_networks_are_refused_for_what_they_are(name, message, tmp_path):
    torch.save(timm.create_model(name).state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        load_weights(small_model(), tmp_path / "other.pth")


def test_sam2_as_transformers_has_it(tmp_path):
    depths, width = list(SMALL["stages"]), 24
    config = Sam2HieraDetConfig(
        hidden_size=width,
        image_size=[224, 224],
        blocks_per_stage=depths,
        embed_dim_per_stage=[width * 2**i for i in range(4)],
        global_attention_blocks=[4],
    )
    theirs = Sam2HieraDetModel(config).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path)
    model = create_model(NAME, **{**SMALL_224, "embed_dim": width}).eval()
    report = load_weights(model, tmp_path, quiet=True)
    assert report.unexpected == []
    picture = image(model)
    expected = theirs(picture).intermediate_hidden_states
    for ours, stage in zip(
        model.forward_features(picture, return_stages=True), expected, strict=True
    ):
        assert difference(ours, stage) < 1e-5
    inner = {f"vision_encoder.backbone.{name}": w for name, w in theirs.state_dict().items()}
    torch.save(inner | {"no_memory_embedding": torch.ones(3)}, tmp_path / "whole.pth")
    again = create_model(NAME, **{**SMALL_224, "embed_dim": width}).eval()
    assert load_weights(again, tmp_path / "whole.pth").unexpected == ["no_memory_embedding"]
    assert torch.equal(again.pos_embed, model.pos_embed)


@pytest.mark.parametrize("backbone", [True, False])
def test_an_encoder_of_transformers_without_a_norm(backbone, tmp_path):
    config = foreign.transformers_config(SMALL)
    theirs = HieraBackbone(config) if backbone else HieraModel(config, add_pooling_layer=False)
    foreign.randomize_transformers(theirs)
    theirs.eval().save_pretrained(tmp_path)
    model = small_model().eval()
    report = load_weights(model, tmp_path)
    assert report.missing[:2] == ["norm.weight", "norm.bias"]
    assert all(name.startswith("hidden_states_norms.") for name in report.unexpected)
    if not backbone:
        features = model.forward_features(image(model)).flatten(1, 2)
        assert difference(features, theirs(image(model)).last_hidden_state) < 1e-5


def test_what_the_network_cannot_compute_is_refused(tmp_path):
    save_file(small_timm(use_expand_proj=False).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.proj\.weight .*use_expand_proj=Fal"):
        load_weights(small_model(), tmp_path)


def test_names_that_mean_the_same_tensor_are_refused():
    weights = small_timm().state_dict()
    with pytest.raises(ValueError, match=r"^head.norm.weight and norm.weight are the same tensor"):
        translate(weights | {"norm.weight": torch.ones(128)}, (16, 24))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embed_win": torch.ones(1, 16, 8, 8)}, "pos_embed_win has no pos_embed"),
        ({"blocks.0.ls1.gamma": torch.ones(3)}, r"ls1.gamma has no blocks.0.attn.proj.weight of"),
        ({"blocks.0.ls1.gamma": torch.tensor(1.0)}, r"ls1.gamma has no blocks.0.attn.proj.weig"),
        ({"pos_embed_win": torch.ones(8), "pos_embed": torch.ones(1, 16, 5, 5)}, "has no pos_em"),
        ({"pos_embed_win": torch.ones(2, 16, 8, 8), "pos_embed": torch.ones(3, 16, 5, 5)}, "size"),
        ({"blocks.99.ls2.gamma": torch.ones(3)}, r"gamma has no blocks.99.mlp.fc2.weight of"),
        ({"pos_embed_window": torch.ones(1, 16, 8, 8)}, "pos_embed_window has no pos_embed"),
    ],
)
def test_incomplete_parts_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        translate({**small_timm().state_dict(), **change}, (16, 24))


def test_windows_that_do_not_divide_the_input_are_refused():
    model = small_timm(abs_win_pos_embed=True, input_size=(64, 64))
    with pytest.raises(ValueError, match="windows of 8x8 do not divide 16x20 tokens"):
        translate(model.state_dict(), (16, 20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embed_win": torch.ones(1, 16, 0, 0)}, r"pos_embed_win is empty \(1x16x0x0\)"),
        ({"pos_embed": torch.ones(1, 16, 0, 5)}, r"pos_embed is empty \(1x16x0x5\)"),
        ({"pos_embed": torch.ones(1, 16, 5, 5).to_sparse()}, "pos_embed holds no floating.*sparse"),
        ({"pos_embed": torch.full((1, 16, 5, 5), torch.nan)}, "pos_embed has 400 of 400 values"),
        ({"blocks.0.norm1.weight": torch.ones(16, dtype=torch.int8)}, "norm1.weight holds no flo"),
    ],
)
def test_values_are_checked_before_they_are_computed_with(change, message):
    with pytest.raises(ValueError, match=message):
        translate({**small_timm(**WINDOWS).state_dict(), **change}, (16, 24))


def test_an_embedding_of_windows_has_the_models_grid_whatever_the_file_says(tmp_path):
    saved = small_timm(**WINDOWS, input_size=(64, 64)).state_dict()
    save_file(saved, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_args": {"img_size": [64, 64]}}')
    for size in ((32, 128), (64, 64)):  # as many tokens
        model = small_model(input_size=size)
        assert load_weights(model, tmp_path, quiet=True).resized == []
        composed = translate(saved, (size[0] // 4, size[1] // 4)).weights["pos_embed"]
        assert torch.equal(model.pos_embed, composed)


@pytest.mark.parametrize("key", ["image_size", "model_args"])
def test_grid_beside_the_weights_of_a_foreign_export(tmp_path, key):
    save_file(small_timm(input_size=(64, 128)).state_dict(), tmp_path / "model.safetensors")
    value = {"image_size": [64, 128], "model_args": {"img_size": [64, 128]}}[key]
    model = small_model(input_size=(128, 64))
    assert load_weights(model, tmp_path, quiet=True).resized == []  # taken for the model's own
    (tmp_path / "config.json").write_text(json.dumps({key: value}))
    assert load_weights(model, tmp_path, quiet=True).resized == ["pos_embed"]


@pytest.mark.slow
@pytest.mark.parametrize("line", foreign.LINES, ids=lambda line: f"{line[0]}, {line[1]}")
def test_published_sizes(tmp_path, line):
    assert line[2](tmp_path) < 1e-5
