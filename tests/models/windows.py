"""Attention in windows beside references: for its tests on a CPU and on a GPU."""

import torch
import torch.nn.functional as F

from hiera_video.models import blocks, window_attention
from hiera_video.models.zoo import create_model

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
    """The kernels beside torch's attention in float64; tolerance: of norms, as a share."""
    tensors = queries_keys_values(window, dtype, device)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    found = outputs_and_gradients(window_attention.attend_windows, tensors)
    expected = outputs_and_gradients(F.scaled_dot_product_attention, exact)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).norm() <= tolerance * max(b.norm(), 1)  # some are zero


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
