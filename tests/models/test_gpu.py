"""Models on a GPU beside the published code there."""

import copy

import pytest
import torch

from hiera_video.models import blocks
from hiera_video.models.blocks import attend
from hiera_video.models.compiling import compile_blocks
from hiera_video.models.recorded_pass import RecordedPass
from hiera_video.models.token_order import pool
from hiera_video.models.window_attention import takes
from tests.models.reference import autoencoders, classifiers, difference, make_video
from tests.models.windows import WINDOWS, compare, outputs_and_gradients, queries_keys_values

pytestmark = [
    pytest.mark.gpu,
    # Says where it hangs; nothing else would end it. Compiling takes minutes on busy cores.
    pytest.mark.timeout(300, method="thread"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),
    # To make code, torch looks at the gradient of each input, that of a block too.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # torch's own use of it
]


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def outputs(create, name):
    """Predictions of ours, of ours with compiled blocks, and of the published code; a function."""
    ours, published = (model.cuda().train() for model in create(name))
    compiled = copy.deepcopy(ours)
    compile_blocks(compiled)
    video = make_video(ours, 2).cuda()
    kept = torch.rand(2, ours.num_units, device="cuda").argsort(dim=1)[:, : ours.num_units // 5]
    mask = ours.unit_mask(kept)

    def run(model, dtype):
        with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            if create is classifiers:
                return model(video).float()
            out = model(video, mask=mask if model is published else kept)
            return out[1].float().flatten(0, -2)

    return lambda dtype: [run(model, dtype) for model in (ours, compiled, published)]


@pytest.mark.parametrize("create", [classifiers, autoencoders])
@pytest.mark.parametrize("name", ["hiera_base_16x224", "hiera_base_224"])
def test_parity(create, name):
    run = outputs(create, name)
    *ours, expected = run(torch.float32)
    for out in ours:
        assert difference(out, expected) < 1e-4
    *ours, published = run(torch.bfloat16)
    for out in ours:  # no further from float32 than the published code is
        assert (out - expected).norm() < 1.3 * (published - expected).norm()


@pytest.mark.parametrize("create", [classifiers, autoencoders])
def test_compiled_gradients(create):
    ours, _ = create("hiera_tiny_16x224", input_size=(4, 64, 64))
    ours = ours.cuda()
    compiled = copy.deepcopy(ours)
    compile_blocks(compiled)
    video = make_video(ours, 2).cuda()
    kept = torch.tensor([[0, 3, 5], [6, 2, 7]], device="cuda")
    for model in (ours, compiled):
        out = model(video) if create is classifiers else model(video, mask=kept).loss
        out.square().mean().backward()
    for (name, a), b in zip(ours.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_attention_in_windows(window, dtype, tolerance):
    compare(window, dtype, tolerance, "cuda")


def test_compiled_attention_in_windows():
    """More of them than torch's kernels take at once."""
    tensors = queries_keys_values((16, 16, 2, 96, 66_000), torch.bfloat16, "cuda")
    assert takes(*tensors[:2])
    eager = outputs_and_gradients(attend, tensors)
    compiled = outputs_and_gradients(torch.compile(attend, fullgraph=True), tensors)
    torch.testing.assert_close(compiled, eager, rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_with_attention_in_windows(compiled, monkeypatch):
    """Those in bfloat16 are as close to float32 as without the kernels."""
    model = classifiers("hiera_tiny_16x224", input_size=(4, 64, 64))[0].cuda()
    video = make_video(model, 2).cuda()

    def gradients(network, dtype):
        model.zero_grad()
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            network(video).float().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    exact = gradients(model, torch.float32)
    found = gradients(torch.compile(model) if compiled else model, torch.bfloat16)
    monkeypatch.setattr(blocks, "takes", lambda q, k: False)
    without = gradients(model, torch.bfloat16)
    assert not torch.equal(found, without)
    assert (found - exact).norm() < 1.3 * (without - exact).norm()


def test_gradient_of_pooling():
    x = torch.randn(8, 64, 64, 2, 96, device="cuda").bfloat16().requires_grad_()
    expected = x.unflatten(2, (4, -1)).amax(2)
    grad = torch.randn_like(expected)
    (a,), (b,) = (torch.autograd.grad(out, x, grad) for out in (pool(x, 4), expected))
    assert torch.equal(a, b)


def test_recording_uses_up_no_random_numbers():
    weight = torch.nn.Parameter(torch.ones(1000, device="cuda"))
    video = torch.ones(1000, device="cuda")

    def work(video):
        kept = torch.rand(1000, device="cuda") < 0.5
        return (video * weight * kept).sum(), kept

    torch.manual_seed(0)
    expected = work(video)[1]
    torch.manual_seed(0)
    recorded = RecordedPass(work, [weight], [video])
    assert torch.equal(recorded(video)[1], expected)
