"""Attention in windows: what it takes, and its kernels, in Triton's interpreter for a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hiera_video.models import window_attention

SOURCE = Path(__file__).parents[2]
kernels = pytest.mark.skipif(not window_attention.TRITON, reason="Triton comes with Linux only")


def interpreted(script):
    """Run a script in which Triton interprets kernels, as it decides when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@kernels
def test_kernels_compute_attention():
    interpreted(
        """
import torch
from hiera_video.models.window_attention import attend_windows, attend_windows_backward
from tests.models.windows import WINDOWS, compare, network, queries_keys_values

network()
for window in WINDOWS:
    compare(window, torch.float32, 2e-6)
    compare(window, torch.float16, 2e-3)
q, k, v = queries_keys_values(WINDOWS[1], torch.float32)
torch.library.opcheck(attend_windows, (q, k, v))
out = attend_windows(q, k, v)
torch.library.opcheck(attend_windows_backward, (*(t.detach() for t in (q, k, v)), out.detach()))
out.sum().backward()  # whose gradient has no strides
assert torch.isclose(v.grad.sum(), torch.tensor(float(out.numel())))
assert attend_windows(q[:0], k[:0], v[:0]).shape == q[:0].shape
"""
    )


@kernels
@pytest.mark.parametrize("capability", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_kernels_compile_for_a_gpu(capability, tmp_path, monkeypatch):
    """The largest, in bfloat16, which the interpreter does not know; no GPU is needed for it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from hiera_video.models.window_kernels import attend_tile, attend_tile_backward

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"QUERIES": 64, "KEYS": 64, "WINDOWS": 1, "CHANNELS": 128, "WIDTH": 128}
    for kernel in (attend_tile, attend_tile_backward):
        types = {
            name: ("i32",) * 3 if name.endswith("strides") else "*bf16" for name in kernel.arg_names
        }
        types |= {"total": "i32", "scale": "fp32"} | dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, types, constexprs=constants)
        code = triton.compile(source, target=GPUTarget("cuda", capability, 32))
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
        (0, 0, 96, False),
    ],
)
def test_what_fits(queries, keys, channels, fits):
    assert window_attention.fits(queries, keys, channels) == fits


@pytest.mark.parametrize(
    ("dtype", "capability", "triton", "hip", "takes"),
    [
        (torch.bfloat16, (9, 0), True, None, True),
        (torch.float16, (8, 0), True, None, True),
        (torch.float32, (9, 0), True, None, False),
        (torch.float16, (7, 5), True, None, False),
        (torch.bfloat16, (9, 0), False, None, False),
        (torch.bfloat16, (9, 4), True, "7.0", False),  # of AMD
    ],
)
def test_what_is_taken(monkeypatch, dtype, capability, triton, hip, takes):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", {torch.device("meta"): capability}.get)
    monkeypatch.setattr(window_attention, "TRITON", triton)
    monkeypatch.setattr(window_attention, "builds", lambda: True)
    q = torch.empty(3, 2, 16, 96, dtype=dtype, device="meta")  # for a GPU that is not current
    assert window_attention.takes(q, q) == takes


def test_a_cpu_computes_windows_as_ever():
    q = torch.randn(3, 2, 16, 96, dtype=torch.bfloat16)
    assert not window_attention.takes(q, q)


def test_where_triton_cannot_build_pytorch_takes_its_place(monkeypatch, caplog):
    """Here its driver is missing; in a small container, it finds no C compiler."""
    monkeypatch.setitem(sys.modules, "triton.runtime", None)
    assert not window_attention.builds.__wrapped__()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "needs a C compiler and the headers of Python (" in record.message


def test_asking_for_the_gpu_breaks_no_compiled_code(monkeypatch):
    """The answer, for which something may have to run, becomes a constant of the code."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(window_attention, "TRITON", True)
    monkeypatch.setattr(window_attention, "builds", lambda: bool(torch.ones(2).sum() == 2))

    class Asking(nn.Module):
        def forward(self, x):
            return x + 1 if window_attention.is_able(x.device) else x

    compiled = torch.compile(Asking(), backend="eager", fullgraph=True)
    assert compiled(torch.zeros(1)) == 1
