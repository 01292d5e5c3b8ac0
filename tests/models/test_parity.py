"""The same weights give the same numbers as the published code."""

import pytest
import torch

from hiera_video.models.names import MODELS
from hiera_video.models.zoo import create_mae, create_model
from tests.models.reference import (
    autoencoders,
    classifier_differences,
    difference,
    initial_autoencoder,
    initial_classifier,
    mae_differences,
    make_video,
)


def small(name):
    """Few pixels; everything else as published, but for the depth of large and huge."""
    size = (4, 64, 64) if "16x" in name else (64, 64)
    is_deep = "large" in name or "huge" in name
    return {"input_size": size} | ({"stages": (1, 1, 1, 1)} if is_deep else {})


def check(differences):
    for what, error in differences.items():
        assert error <= 1e-5, (what, differences)


# The large ones are between base plus and huge, and have nothing of their own.
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if "large" in name else []) for name in MODELS]


@pytest.mark.parametrize("name", NAMES)
def test_classifier_equals_reference(name):
    check(classifier_differences(name, 2, **small(name)))


@pytest.mark.parametrize("name", NAMES)
def test_masked_autoencoder_equals_reference(name):
    check(mae_differences(name, 2, mask_ratio=0.5, **small(name)))


def test_published_input_size():
    check(classifier_differences("hiera_base_16x224", gradients=False, stages=(1, 1, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hiera_base_224", "hiera_base_16x224", "hiera_large_16x224"])
def test_published_size_and_depth(name):
    check(classifier_differences(name, gradients=False))
    check(mae_differences(name))


@pytest.mark.slow
@pytest.mark.parametrize("side", [256, 448, 1024])
def test_larger_pictures(side):
    check(classifier_differences("hiera_base_224", gradients=False, input_size=(side, side)))


@pytest.mark.parametrize("heads", [8, 16])
def test_decoder_heads_of_either_kind(heads):
    kwargs = small("hiera_tiny_16x224")
    kwargs |= {"decoder_num_heads": heads, "decoder_depth": 2}
    check(mae_differences("hiera_tiny_16x224", gradients=False, mask_ratio=0.5, **kwargs))


def test_masked_encoder_equals_reference():
    ours, reference = autoencoders("hiera_tiny_16x224", **small("hiera_tiny_16x224"))
    video = make_video(ours, 2)
    with torch.no_grad():
        out = ours(video, 0.5)
        kept = out.mask.nonzero()[:, 1].view(2, -1)
        expected, _ = reference.forward_encoder(video, 0.9, mask=out.mask)
        assert difference(ours.encode_fused(video, kept), expected) <= 1e-5


@pytest.mark.parametrize("kind", ["classifier", "autoencoder"])
@pytest.mark.parametrize("name", ["hiera_tiny_224", "hiera_tiny_16x224"])
def test_initial_weights_are_drawn_as_in_the_reference(name, kind):
    """Mean and deviation of every tensor are those of the published code's own draw."""
    if kind == "classifier":
        ours, reference = create_model(name), initial_classifier(name)
    else:
        ours, reference = create_mae(name), initial_autoencoder(name)
    expected = reference.state_dict()
    for key, value in ours.state_dict().items():
        mean, std = expected[key].mean(), expected[key].std(correction=0)
        noise = 6 * std / value.numel() ** 0.5 + 1e-7
        assert abs(value.mean() - mean) <= noise, key
        assert abs(value.std(correction=0) - std) <= noise, key
