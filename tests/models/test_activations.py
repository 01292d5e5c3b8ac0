"""Bytes counted on the meta device, beside those counted by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hiera_video.models.activations import activations, attention_sums
from hiera_video.models.zoo import create_model
from tests.models.small import TINY

MIB = 2**20


class Mlp(nn.Module):
    """Maps each number of a clip of 1 MiB in float32 to one of 1024 numbers and back."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(256), nn.Linear(256, 512), nn.Linear(512, 256)

    def forward(self, video):
        return self.down(F.gelu(self.up(self.norm(video))))


def mlp_activations(autocast=None, gpu=True):
    with torch.device("meta"):
        network = Mlp()
    return activations(network, lambda video: network(video).sum(), (1024, 256), autocast, gpu)


def test_what_an_mlp_keeps_is_counted_by_hand():
    counted = mlp_activations()
    # Kept are the clip and the output of norm (1 MiB each), the outputs of up and gelu (2 MiB
    # each), and the mean and deviation of 1024 tokens. The most is alive when gelu is undone: its
    # own output is gone, and there are the gradients of both of its sides (2 MiB each).
    assert int(counted.per_clip.max()) == (6 - 2 + 4) * MIB + 2 * 1024 * 4
    # The gradients of a layer before they are added to those of earlier batches, the loss and its
    # gradient.
    assert int(counted.fixed.max()) == 4 * (512 * 256 + 512 + 2)


def test_autocast_copies_weights_and_halves_products():
    full, half = mlp_activations(), mlp_activations(torch.bfloat16)
    assert int(half.per_clip.max()) < 0.75 * int(full.per_clip.max())
    weights = 2 * 512 * 256 * 2 + (512 + 256) * 2  # in half precision
    assert int(half.fixed.max()) >= weights


def test_layer_norm_is_in_float32_on_a_gpu_alone():
    class Narrow(nn.Sequential):
        """Its LayerNorm sees what a product has made in half precision."""

        def __init__(self):
            super().__init__(nn.Linear(256, 256), nn.LayerNorm(256), nn.Linear(256, 256))

    peaks = []
    for gpu in (False, True):
        with torch.device("meta"):
            network = Narrow()
        counted = activations(
            network, lambda v, n=network: n(v).sum(), (1024, 256), torch.bfloat16, gpu
        )
        peaks.append(int(counted.per_clip.max()))
    assert peaks[1] - peaks[0] >= MIB  # its input as float32, 1 MiB, is kept as well


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_batches_follow_from_any_two(checkpointing, monkeypatch):
    with torch.device("meta"):
        network = create_model("hiera_tiny_16x224", **TINY, grad_checkpointing=checkpointing)

    def peak(clips):
        size = (3, *TINY["input_size"])
        counted = activations(network, lambda v: network(v).sum(), size, torch.bfloat16)
        return counted.peak(clips)

    first = peak(50)
    monkeypatch.setattr("hiera_video.models.activations.BATCHES", (9, 50))
    assert peak(50) == first
    assert not [p for p in network.parameters() if p.grad is not None]


def test_checkpointing_saves_most():
    peaks = []
    for checkpointing in (False, True):
        with torch.device("meta"):
            network = create_model("hiera_tiny_16x224", grad_checkpointing=checkpointing)
        counted = activations(network, lambda v, n=network: n(v).sum(), (3, 16, 224, 224))
        peaks.append(counted.peak(8))
    assert peaks[1] < 0.35 * peaks[0]


def test_attention_keeps_no_matrix_of_weights():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(16, 48)

        def forward(self, tokens):
            q, k, v = self.qkv(tokens)[:, None].chunk(3, dim=-1)  # (B, 1, 4096, 16)
            return F.scaled_dot_product_attention(q, k, v)

    with torch.device("meta"):
        network = Attention()
    counted = activations(network, lambda tokens: network(tokens).sum(), (4096, 16))
    matrix = 4096 * 4096 * 4
    assert int(counted.per_clip.max()) < matrix / 10


@pytest.mark.parametrize(
    ("tokens", "dtype", "expected"),
    [
        (18, torch.bfloat16, 6 * 4 * 128 * 96 * 4),
        (18, torch.float32, 0),
        (16, torch.bfloat16, 0),  # a window, which has a kernel of its own
    ],
)
def test_sums_of_attention_are_padded_to_tiles(tokens, dtype, expected):
    """18 queries of 72 channels take the room of 128 queries of 96 channels, in float32."""
    query = torch.empty(6, 4, tokens, 72, dtype=dtype, device="meta", requires_grad=True)
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            sizes.append(attention_sums(func, args))
            return func(*args, **(kwargs or {}))

    with Sizes():
        out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, query, query)[0]
        out.sum().backward()
    assert max(sizes) == sum(sizes) == expected
