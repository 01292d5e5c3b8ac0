import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiera_video import create_mae, create_model
from hiera_video.tasks.optimization import parameter_groups, warmup_cosine

TINY = {"input_size": (4, 64, 64), "embed_dim": 8, "stages": (1, 2, 1, 1)}


def groups_by_name(model, **kwargs):
    groups = parameter_groups(model, lr=0.1, weight_decay=0.05, **kwargs)
    names = {name: group for group in groups for name in group["names"]}
    counted = sum(len(group["params"]) for group in groups)
    assert counted == len(names) == len(list(model.parameters()))
    return names


def test_layer_decay_is_that_of_pyslowfast():
    # depth 5: embeddings at decay**6, block i at decay**(5 - i), head and norm at 1
    names = groups_by_name(create_model("hiera_tiny_16x224", **TINY), layer_decay=0.5)
    expected = {
        "pos_embed_spatial": 6,
        "pos_embed_temporal": 6,
        "patch_embed.proj.weight": 6,
        "blocks.0.attn.qkv.weight": 5,
        "blocks.4.mlp.fc2.bias": 1,
        "norm.weight": 0,
        "head.projection.weight": 0,
    }
    for name, power in expected.items():
        assert names[name]["lr"] == pytest.approx(0.1 * 0.5**power), name


def test_biases_norms_and_positions_do_not_decay():
    names = groups_by_name(create_mae("hiera_tiny_16x224", **TINY, decoder_depth=1))
    spared = {name for name, group in names.items() if group["weight_decay"] == 0}
    assert {"pos_embed_spatial", "pos_embed_temporal", "mask_token", "decoder_pos_embed"} <= spared
    for name, parameter in create_mae(
        "hiera_tiny_16x224", **TINY, decoder_depth=1
    ).named_parameters():
        assert (name in spared) == (parameter.ndim == 1 or "pos_embed" in name or "token" in name)


def test_frozen_parameters_are_left_out():
    model = create_model("hiera_tiny_16x224", **TINY)
    model.patch_embed.requires_grad_(False)
    names = {n for g in parameter_groups(model, 0.1, 0.05) for n in g["names"]}
    assert not any(name.startswith("patch_embed") for name in names)


@given(st.integers(0, 50), st.integers(1, 200), st.floats(0, 1))
def test_schedule(warmup, after, floor):
    total = warmup + after
    factors = [warmup_cosine(step, warmup, total, floor) for step in range(total + 1)]
    assert all(floor - 1e-9 <= f <= 1 + 1e-9 for f in factors)
    assert max(factors) == pytest.approx(1)
    assert factors[total] == pytest.approx(floor)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    middle = warmup_cosine(warmup + after // 2, warmup, total, floor)
    share = 0.5 * (1 + math.cos(math.pi * (after // 2) / after))
    assert middle == pytest.approx(floor + (1 - floor) * share)


def test_a_fused_optimizer_takes_the_groups():
    model = create_model("hiera_tiny_16x224", **TINY)
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3, 0.05, 0.8), fused=True)
    model(torch.rand(1, 3, 4, 64, 64)).sum().backward()
    optimizer.step()
