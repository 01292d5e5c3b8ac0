"""Weights of another network, which no shape shows, are refused."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from transformers import HieraForPreTraining

from hiera_video import create_mae, create_model, load_weights
from hiera_video.errors import CheckpointError
from tests.models.foreign import SMALL, transformers_config
from tests.models.small import TINY, tiny_mae, tiny_model

NAME = "hiera_tiny_16x224"


def export(folder, model, **arguments):
    """Weights of the model, and what the arguments were, as an export has them."""
    save_file(model.state_dict(), folder / "model.safetensors")
    record = {"name": NAME, "arguments": {**TINY, **arguments}}
    (folder / "model.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [
        ("mask_unit_attn", [True, True, True, False], "True, True, False"),
        ("patch_padding", [1, 2, 2], "1, 3, 3"),
        ("patch_stride", [2, 8, 8], "2, 4, 4"),
        ("mask_unit_size", [1, 16, 16], "1, 8, 8"),
        ("q_stride", [1, 2, 1], "1, 2, 2"),
        ("q_pool", 2, "3"),
    ],
)
def test_another_network_is_refused(tmp_path, name, value, own):
    saved = tiny_model(**{name: value, "input_size": (4, 128, 128)})
    source = export(tmp_path, saved, **{name: value, "input_size": [4, 128, 128]})
    message = rf"network with {name} {value}, and that of the model is .?{own}".replace("[", r"\[")
    with pytest.raises(CheckpointError, match=message):
        load_weights(tiny_model(), source)
    load_weights(tiny_model(), source, strict=False, quiet=True)
    load_weights(saved, source, quiet=True)
    torch.save(
        {
            "state_dict": saved.state_dict(),
            "config": {"model": {"name": NAME, "input_size": [4, 128, 128], name: value}},
        },
        tmp_path / "run.ckpt",
    )
    with pytest.raises(CheckpointError, match=message):
        load_weights(tiny_model(), tmp_path / "run.ckpt")


def test_values_that_change_nothing_are_not_compared(tmp_path):
    """An autoencoder pools less often; the last stage, of one block, attends as that before."""
    attends = [True, True, False, True]
    source = export(tmp_path, tiny_mae(), q_pool=2, decoder_num_heads=4, mask_unit_attn=attends)
    load_weights(tiny_model(), source, quiet=True)
    load_weights(tiny_mae(), source, quiet=True)


def test_heads_of_the_decoder_matter_only_with_a_decoder(tmp_path):
    source = export(tmp_path, tiny_mae(), decoder_num_heads=4)
    with pytest.raises(CheckpointError, match="decoder_num_heads 4, and that of the model is 8"):
        load_weights(tiny_mae(decoder_num_heads=8), source)
    load_weights(tiny_model(), source, quiet=True)


def test_heads_of_the_decoder_of_transformers(tmp_path):
    config = transformers_config(SMALL)
    config.num_query_pool = 2
    HieraForPreTraining(config).save_pretrained(tmp_path)
    decoder = {"decoder_embed_dim": 32, "decoder_depth": 2}
    with pytest.raises(CheckpointError, match="decoder_num_heads 4, and that of the model is 8"):
        load_weights(
            create_mae("hiera_tiny_224", **SMALL, **decoder, decoder_num_heads=8), tmp_path
        )
    model = create_mae("hiera_tiny_224", **SMALL, **decoder, decoder_num_heads=4)
    load_weights(model, tmp_path, quiet=True)


def test_images_and_videos_are_compared_in_space(tmp_path):
    small = {name: TINY[name] for name in ("embed_dim", "num_heads", "stages")}
    for padding in ([3, 3], [2, 2]):
        shape = {"input_size": [64, 64], "patch_padding": padding}
        image = create_model("hiera_tiny_224", **small, **shape, num_classes=5)
        source = export(tmp_path, image, **shape)
        if padding == [3, 3]:
            load_weights(tiny_model(), source, quiet=True, inflate=True)
            continue
        with pytest.raises(CheckpointError, match=r"patch_padding \[2, 2\], and .* is \[3, 3\]"):
            load_weights(tiny_model(), source, inflate=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_pool": "max"}, "global_pool 'max', and that of the model is 'avg'"),
        ({"mask_unit_attn": [True, True, True, False]}, "mask_unit_attn .True, True, True, False"),
        ({"patch_padding": [2, 2]}, r"patch_padding \[2, 2\]"),
    ],
)
def test_timm(tmp_path, changes, message):
    arguments = {"embed_dim": 16, "stages": [1, 2, 2, 1], "img_size": [64, 96], **changes}
    theirs = timm.create_model("hiera_tiny_224", num_classes=7, **arguments)
    save_for_hf(theirs, tmp_path, model_args=arguments)
    with pytest.raises(CheckpointError, match=message):
        load_weights(create_model("hiera_tiny_224", **SMALL, num_classes=7), tmp_path)
    pooled = "global_pool" in changes
    own = {**SMALL, **({} if pooled else changes), "num_classes": 3 if pooled else 7}
    load_weights(create_model("hiera_tiny_224", **own), tmp_path, quiet=True)
