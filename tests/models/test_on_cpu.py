"""What a CPU computes by quicker ways is what it would compute without them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hiera_video.models import blocks, on_cpu
from tests.models.reference import difference, make_video
from tests.models.small import tiny_mae, tiny_model

BF16 = torch.bfloat16


@pytest.fixture
def model():
    return tiny_model(drop_path_rate=0.5).eval()


@pytest.fixture
def processor(monkeypatch):
    """Changes what the processor says that it can do."""

    def change(**abilities):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
        on_cpu.emulates.cache_clear()

    yield change
    on_cpu.emulates.cache_clear()


@pytest.fixture
def parts(monkeypatch):
    """Shapes of the windows that go through a block in parts."""
    shapes = []

    def note(block, x):
        shapes.append(tuple(x.shape))
        return on_cpu.in_parts(block, x)

    monkeypatch.setattr(blocks, "in_parts", note)
    return shapes


@pytest.fixture
def tokens(monkeypatch):
    """Sets how many tokens go through a block at once."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return lambda number: monkeypatch.setattr(on_cpu, "TOKENS", number // 2)


@torch.no_grad()
@pytest.mark.parametrize("number", [2, 100, 128, 700, 10_000])
def test_windows_in_parts(model, parts, tokens, number):
    video = make_video(model, 3)
    tokens(10**9)
    expected = model(video)
    assert parts == []
    tokens(number)
    torch.testing.assert_close(model(video), expected, rtol=1e-5, atol=1e-6)
    # What stage 1 and both transitions take: 8 units in a clip.
    shapes = [(3, 8, 64, 16), (3, 8, 64, 16), (3, 8, 16, 32)]
    assert parts == [shape for shape in shapes if 24 * shape[2] > number]


def test_training_and_compiled_code_take_all_windows_at_once(model, parts, tokens):
    tokens(2)
    video = make_video(model, 1)
    model(video)  # with gradients
    with torch.no_grad():
        model.train()(video)  # drop path is drawn for a clip, not for a window
        torch.export.export(model.eval(), (video,))
    assert parts == []


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of checks of the shape
def test_a_trace_is_saved_and_takes_other_batches(model, tokens, tmp_path):
    tokens(2)
    torch.jit.trace(model, make_video(model, 1)).save(tmp_path / "model.pt")  # pyright: ignore
    traced, video = torch.jit.load(tmp_path / "model.pt"), make_video(model, 3)
    torch.testing.assert_close(traced(video), model(video))  # pyright: ignore[reportCallIssue]


EMULATING = {name: False for names in on_cpu.INSTRUCTIONS.values() for name in names}


@pytest.mark.parametrize("dtype", [BF16, torch.float16])
@pytest.mark.parametrize("create", [tiny_model, tiny_mae])
def test_emulated_products_are_taken_in_float32(create, dtype, processor):
    model = create()
    video = make_video(model, 2)
    arguments = {} if create is tiny_model else {"mask": torch.tensor([[0, 3, 5], [1, 2, 7]])}

    def run(video):
        out = model(video, **arguments)
        return out if create is tiny_model else out.prediction

    expected = run(video)
    model, video = model.to(dtype), video.to(dtype)
    seen = set()

    class Products(TorchDispatchMode):
        """Notes the types that products are taken in."""

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if any(word in str(function) for word in ("mm", "convolution", "attention")):
                seen.update(a.dtype for a in args if isinstance(a, torch.Tensor))
            return function(*args, **(kwargs or {}))

    for native, products in ((True, dtype), (False, torch.float32)):
        processor(architecture="x86_64", **{**EMULATING, "amx_bf16": native, "amx_fp16": native})
        seen.clear()
        with Products():
            out = run(video)
        assert seen == {products}
        assert out.dtype == dtype
        assert difference(out.float(), expected) < 0.03
    out.float().square().mean().backward()
    assert all(p.grad.dtype == dtype for p in model.parameters() if p.grad is not None)


def test_a_layer_that_was_replaced_is_called(processor):
    class Doubled(torch.nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    processor(architecture="x86_64", **EMULATING)
    layer, doubled = torch.nn.Linear(2, 2).to(BF16), Doubled(2, 2).to(BF16)
    doubled.load_state_dict(layer.state_dict())
    x = torch.ones(1, 2, dtype=BF16)
    torch.testing.assert_close(on_cpu.apply(doubled, x), 2 * on_cpu.apply(layer, x))


@torch.no_grad()
def test_threads_share_a_model(model, processor):
    processor(architecture="x86_64", **EMULATING)
    model, video = model.to(BF16), make_video(model, 2).to(BF16)
    expected = model(video)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(torch.no_grad()(model), [video] * 20))
    assert all(torch.equal(out, expected) for out in found)


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "abilities", "emulated"),
    [
        (BF16, {}, True),
        (BF16, {"amx_fp16": True}, True),
        (BF16, {"avx512_bf16": True}, False),
        (BF16, {"amx_bf16": None}, False),  # a version of torch that does not say
        (BF16, {"architecture": "aarch64"}, False),
        (torch.float16, {"amx_bf16": True}, True),
        (torch.float16, {"amx_fp16": True}, False),
        (torch.float32, {}, False),
    ],
)
def test_what_is_emulated(processor, dtype, abilities, emulated):
    processor(**{"architecture": "x86_64", **EMULATING, **abilities})
    x, weight = torch.ones(1, 2, dtype=dtype), torch.nn.Parameter(torch.ones(2, 2, dtype=dtype))
    assert on_cpu.is_emulated(x, weight) == emulated
    assert not on_cpu.is_emulated(x, weight.double())
    assert not on_cpu.is_emulated(x.to("meta"), weight)
    with torch.autocast("cpu", BF16):
        assert not on_cpu.is_emulated(x, weight)
