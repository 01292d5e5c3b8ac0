"""Models that hiera-transformer's own ``save_pretrained`` wrote."""

import json

import hiera
import pytest
import torch

from hiera_video import create_mae, create_model, load, load_weights
from hiera_video.errors import CheckpointError
from hiera_video.weights.trained import read_trained
from tests.models.reference import difference, make_video, randomize

VIDEO = {
    "q_stride": (1, 2, 2), "mask_unit_size": (1, 8, 8), "patch_kernel": (3, 7, 7),
    "patch_stride": (2, 4, 4), "patch_padding": (1, 3, 3), "sep_pos_embed": True,
}  # fmt: skip
SMALL = {"embed_dim": 16, "stages": (1, 1, 2, 1)}


def saved(folder, model_class=hiera.Hiera, **arguments):
    model = model_class(**{**SMALL, **arguments})
    randomize(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_size": (64, 96), "num_classes": 7},
        {"input_size": (8, 64, 96), "num_classes": 7, **VIDEO},
        {"input_size": (8, 64, 64), "num_heads": 2, **{**VIDEO, "sep_pos_embed": False}},
        {"input_size": (64, 64), "mask_unit_attn": (True, False, True, False), "q_pool": 2},
    ],
)
def test_what_is_read_computes_the_same(arguments, tmp_path):
    theirs = saved(tmp_path, **arguments).train()  # in evaluation: probabilities
    ours = create_model(tmp_path)
    video = make_video(ours, 2)
    with torch.no_grad():
        assert difference(ours(video), theirs(video)) < 1e-5


def test_an_autoencoder(tmp_path):
    decoder = {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4, "q_pool": 2}
    arguments = {"input_size": (8, 64, 64), "num_classes": 5, **VIDEO, **decoder}
    theirs = saved(tmp_path, hiera.MaskedAutoencoderHiera, **arguments)
    ours = create_mae(tmp_path)
    video = make_video(ours, 2)
    with torch.no_grad():
        out = ours(video, mask_ratio=0.5)
        expected = theirs(video, mask=out.mask)[1]
    assert difference(out.prediction.flatten(0, 1), expected) < 1e-5


def test_an_image_model_is_a_predictor(tmp_path):
    saved(tmp_path, input_size=(64, 64), num_classes=4)
    predictor = load(tmp_path, "cpu")
    assert predictor.class_names == ("0", "1", "2", "3")
    assert predictor.clip[-2:] == ("bicubic", 0.875)


def test_how_videos_are_sampled_is_known_for_the_published_size_alone(tmp_path):
    saved(tmp_path, input_size=(16, 224, 224), num_classes=3, **VIDEO)
    description = read_trained(tmp_path).description
    assert (description.clip["stride"], description.mean) == (4, (0.45, 0.45, 0.45))
    saved(tmp_path, input_size=(8, 64, 96), num_classes=3, **VIDEO)
    with pytest.raises(CheckpointError, match="does not say what its input is; use create_model"):
        load(tmp_path, "cpu")


def test_weights_alone_have_the_grid_and_heads_of_the_folder(tmp_path):
    theirs = saved(tmp_path, input_size=(8, 64, 96), num_classes=7, **VIDEO)
    model = create_model("hiera_base_16x224", **SMALL, input_size=(8, 64, 128), num_classes=7)
    assert load_weights(model, tmp_path, quiet=True).resized == ["pos_embed_spatial"]
    assert torch.equal(model.norm.weight, theirs.norm.weight)
    model = create_model(
        "hiera_base_16x224", **SMALL, input_size=(8, 64, 96), num_classes=7, num_heads=2
    )
    with pytest.raises(CheckpointError, match="attention heads"):
        load_weights(model, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_unit_size": [4, 4]}, r"with mask_unit_size \[4, 4\], not \[8, 8\]"),
        ({"norm_layer": "BatchNorm"}, "norm_layer must be LayerNorm, not 'BatchNorm'"),
        ({"input_size": "224"}, "input_size must be"),
        ({"stages": [1, 1, 20000, 1]}, "name 20006 blocks"),
        ({"stages": None}, "stages must be a list of whole numbers"),
        ({"embed_dim": "x"}, "embed_dim must be a whole number above 0"),
        ({"q_stride": [2]}, "mask_unit_size .8, 8., not .8."),
        ({"patch_kernel": 7}, "config.json"),
        ({"dim_mul": None}, "config.json"),
        ({"num_heads": 5}, "16 channels do not divide into 5 heads"),
    ],
)
def test_wrong_values_are_one_line(changes, message, tmp_path):
    saved(tmp_path, input_size=(64, 64), num_classes=4)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message) as error:
        load(tmp_path, "cpu")
    assert "\n" not in str(error.value)
