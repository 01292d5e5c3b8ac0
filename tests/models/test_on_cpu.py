"""What a CPU computes in inference by other ways is what it would compute without them."""

import pytest
import torch

from hiera_video.models import blocks, hiera, on_cpu
from tests.models.reference import difference, make_video
from tests.models.small import tiny_model

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
def noted(monkeypatch):
    """Names of the ways that were taken, and shapes of what took them."""
    calls = []
    ways = {"in_parts": on_cpu.in_parts, "in_float32": on_cpu.in_float32}
    for name, way in ways.items():

        def note(work, x, name=name, way=way):
            calls.append((name, tuple(x.shape)))
            return way(work, x)

        monkeypatch.setattr(blocks, name, note)
        monkeypatch.setattr(hiera, name, note, raising=False)
    return calls


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 100, 128, 700, 10_000])
def test_windows_in_parts(model, noted, monkeypatch, tokens):
    video = make_video(model, 3)
    monkeypatch.setattr(on_cpu, "TOKENS", 10**9)
    expected = model(video)
    assert noted == []
    monkeypatch.setattr(on_cpu, "TOKENS", tokens)
    torch.testing.assert_close(model(video), expected, rtol=1e-5, atol=1e-6)
    # What stage 1 and both transitions take: 8 units in a clip.
    shapes = [(3, 8, 64, 16), (3, 8, 64, 16), (3, 8, 16, 32)]
    shapes = [shape for shape in shapes if 24 * shape[2] > tokens]
    assert [shape for _, shape in noted] == shapes


def test_training_and_compiled_code_take_all_windows_at_once(model, noted, monkeypatch):
    monkeypatch.setattr(on_cpu, "TOKENS", 1)
    video = make_video(model, 1)
    model(video)  # with gradients
    with torch.no_grad():
        model.train()(video)  # drop path is drawn for a clip, not for a window
        torch.export.export(model.eval(), (video,))
    assert noted == []


@torch.no_grad()
def test_emulated_products_are_taken_in_float32(model, noted, processor):
    video = make_video(model, 2)
    expected = model(video)
    model, video = model.to(BF16), video.to(BF16)
    processor(architecture="x86_64", amx_bf16=True)
    model(video)
    assert noted == []
    processor(architecture="x86_64", amx_bf16=False, avx512_bf16=False)
    logits, tokens = model(video), model.embed(video)
    assert [name for name, _ in noted] == ["in_float32"] * (2 + len(model.blocks))
    assert logits.dtype == tokens.dtype == BF16
    assert difference(logits.float(), expected) < 0.02
    found = model.run_block(model.blocks[0], tokens)
    model.float()  # its weights stay the rounded ones
    assert torch.equal(found, model.blocks[0](tokens.float()).to(BF16))


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "abilities", "emulated"),
    [
        (BF16, {"architecture": "x86_64", "avx512_f": True}, True),
        (BF16, {"architecture": "x86_64", "avx512_bf16": True}, False),
        (torch.float16, {"architecture": "x86_64", "amx_bf16": True}, True),
        (torch.float16, {"architecture": "x86_64", "amx_fp16": True}, False),
        (torch.float32, {"architecture": "x86_64"}, False),
        (BF16, {"architecture": "aarch64"}, False),
    ],
)
def test_what_is_emulated(processor, dtype, abilities, emulated):
    processor(**abilities)
    linear, x = torch.nn.Linear(2, 2).to(dtype), torch.ones(1, 2, dtype=dtype)
    assert on_cpu.is_emulated(linear, x) == emulated
    with torch.autocast("cpu", BF16):
        assert not on_cpu.is_emulated(linear, x)
    with torch.enable_grad():
        assert not on_cpu.is_emulated(linear, x)
