"""Attention in windows: what it takes, and its kernels, in Triton's interpreter for a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hiera_video.models import blocks, window_attention
from hiera_video.models.zoo import create_model

triton = pytest.importorskip("triton")  # comes with torch, except on macOS and Windows
window_kernels = pytest.importorskip("hiera_video.models.window_kernels")
SOURCE = Path(__file__).parents[2]
# Queries, keys, heads, channels and number of windows, which seldom fill the last program.
WINDOWS = [
    (64, 64, 1, 96, 3),
    (16, 64, 2, 72, 5),
    (16, 16, 2, 96, 11),
    (4, 16, 4, 56, 9),
    (2, 8, 1, 24, 1),
    (1, 4, 3, 8, 37),
    (1, 1, 2, 128, 70),
]


def queries_keys_values(window, dtype, device="cpu"):
    """As `MaskUnitAttention` has them: views of one tensor, unless the queries were pooled."""
    queries, keys, heads, channels, number = window
    generator = torch.Generator(device).manual_seed(0)
    shape = (number, keys, 3, heads, channels)
    packed = torch.randn(shape, generator=generator, device=device).to(dtype)
    q, k, v = (t.transpose(1, 2) for t in packed.unbind(2))
    if queries < keys:
        q = q.unflatten(2, (-1, queries)).amax(2)
    return tuple(t.detach().requires_grad_() for t in (q, k, v))


def outputs_and_gradients(attend, tensors):
    out = attend(*tensors)
    grad = torch.linspace(-1, 1, out.numel(), device=out.device).sin().view(out.shape)
    return [out, *torch.autograd.grad(out, tensors, grad.to(out.dtype))]


def compare(window, dtype, tolerance, device="cpu"):
    """The kernels beside torch's attention in float64."""
    tensors = queries_keys_values(window, dtype, device)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    found = outputs_and_gradients(window_attention.attend_windows, tensors)
    expected = outputs_and_gradients(F.scaled_dot_product_attention, exact)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


def interpreted(script):
    """Run a script in which Triton interprets kernels, as it decides when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_kernels_compute_attention():
    interpreted(
        """
import torch
from hiera_video.models.window_attention import attend_windows
from tests.models.test_window_attention import WINDOWS, compare, network, queries_keys_values

network()
for window in WINDOWS:
    compare(window, torch.float32, 2e-6)
    compare(window, torch.float16, 4e-3)
torch.library.opcheck(attend_windows, queries_keys_values(WINDOWS[2], torch.float32))
q, k, v = queries_keys_values(WINDOWS[1], torch.float32)
attend_windows(q, k, v).sum().backward()  # whose gradient has no strides
assert v.grad.sum() > 0
"""
    )


def network():
    """Logits and gradients of a network with and without the kernels, also when it is compiled."""
    torch.manual_seed(0)
    few = {"stages": (1, 1, 1, 1), "embed_dim": 16, "num_classes": 5}
    model = create_model("hiera_tiny_16x224", input_size=(4, 32, 32), **few)
    video = torch.randn(2, 3, 4, 32, 32)

    def run():
        model.zero_grad()
        out = model(video)
        out.square().sum().backward()
        return [out, *(p.grad for p in model.parameters())]

    expected = run()
    fits, sizes = window_attention.fits, []

    def takes(q, k):
        sizes.append((q.shape[2], k.shape[2]))
        return fits(*sizes[-1], q.shape[3])

    blocks.takes = takes
    torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-6)
    assert set(sizes) >= {(64, 64), (16, 64), (4, 16)}
    model.blocks[1].compile(backend="aot_eager", fullgraph=True)  # it pools, within windows
    torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-6)


def test_kernels_compile_for_a_gpu():
    """In bfloat16, which the interpreter does not know; an A100 need not be there for it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {"QUERIES": 16, "KEYS": 16, "WINDOWS": 4, "CHANNELS": 96, "WIDTH": 128}
    for kernel in (window_kernels.attend_tile, window_kernels.attend_tile_backward):
        types = {
            name: ("i32",) * 3 if name.endswith("strides") else "*bf16" for name in kernel.arg_names
        }
        types |= {"total": "i32", "scale": "fp32"} | dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, types, constexprs=constants)
        code = triton.compile(source, target=GPUTarget("cuda", 80, 32))
        assert "mma.sync" in code.asm["ptx"]  # tensor cores
        assert code.metadata.shared < 99 * 1024  # what a program may have on the smallest such GPU


@pytest.mark.parametrize(
    ("queries", "keys", "channels", "fits"),
    [
        (64, 64, 96, True),
        (16, 64, 144, False),  # wider than a tile
        (8, 64, 96, False),  # pooled by more than 4
        (128, 128, 96, False),
        (49, 49, 96, False),
        (12, 48, 96, False),
        (64, 16, 96, False),
    ],
)
def test_what_fits(queries, keys, channels, fits):
    assert window_attention.fits(queries, keys, channels) == fits


@pytest.mark.parametrize(
    ("dtype", "capability", "triton", "takes"),
    [
        (torch.bfloat16, (9, 0), True, True),
        (torch.float16, (8, 0), True, True),
        (torch.float32, (9, 0), True, False),
        (torch.float16, (7, 5), True, False),
        (torch.bfloat16, (9, 0), False, False),
    ],
)
def test_what_is_taken(monkeypatch, dtype, capability, triton, takes):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(window_attention, "TRITON", triton)
    monkeypatch.setattr(window_attention, "builds", lambda: True)
    q = torch.empty(3, 2, 16, 96, dtype=dtype)
    assert window_attention.takes(q, q) == takes


def test_a_cpu_computes_windows_as_ever():
    q = torch.randn(3, 2, 16, 96, dtype=torch.bfloat16)
    assert not window_attention.takes(q, q)


def test_where_triton_cannot_build_pytorch_takes_its_place(caplog):
    """Here it finds no GPU; on a small container, no C compiler."""
    assert not window_attention.builds.__wrapped__("cpu")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "needs a C compiler and the headers of Python (" in record.message


def test_asking_for_the_gpu_breaks_no_compiled_code(monkeypatch):
    """The answer, for which something may have to run, becomes a constant of the code."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(window_attention, "TRITON", True)
    monkeypatch.setattr(window_attention, "builds", lambda: bool(torch.ones(2).sum() == 2))

    class Asking(nn.Module):
        def forward(self, x):
            return x + 1 if window_attention.is_able() else x

    compiled = torch.compile(Asking(), backend="eager", fullgraph=True)
    assert compiled(torch.zeros(1)) == 1
