"""Models become one graph, forward and backward."""

import shutil

import pytest
import torch

from tests.models.reference import make_video
from tests.models.small import tiny_mae, tiny_model

KEPT = torch.tensor([[0, 3, 5], [6, 2, 7]])
SMALLEST = {"embed_dim": 8, "stages": (1, 1), "q_pool": 1}


def run(model, compiled, *args, **kwargs):
    """Output and gradients of a call of `model` through `compiled`."""
    model.zero_grad()
    out = compiled(make_video(model, 2), *args, **kwargs)
    (out.loss if hasattr(out, "loss") else out.square().mean()).backward()
    return out, [parameter.grad.clone() for parameter in model.parameters()]


def check(model, backend, **kwargs):
    torch.compiler.reset()
    compiled = run(model, torch.compile(model, backend=backend, fullgraph=True), **kwargs)
    torch.testing.assert_close(compiled, run(model, model, **kwargs), rtol=1e-3, atol=1e-5)


def test_one_graph():
    check(tiny_model(**SMALLEST), "aot_eager")
    check(tiny_mae(stages=(1, 1, 1, 1)), "aot_eager", mask=KEPT)


def test_one_graph_with_gradient_checkpointing():
    check(tiny_mae(**SMALLEST, grad_checkpointing=True), "aot_eager", mask=KEPT)


def test_drop_path_compiles():
    model = tiny_model(**SMALLEST, drop_path_rate=0.3).train()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert run(model, compiled)[0].shape == (2, 5)


def test_one_graph_of_evaluation_under_autocast():
    model = tiny_model(**SMALLEST).eval()
    video = make_video(model, 2)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = compiled(video)
        torch.testing.assert_close(logits, model(video), rtol=1e-2, atol=1e-2)
    assert logits.dtype == torch.float32


def test_exports_with_any_batch_size():
    model = tiny_model(**SMALLEST).eval()
    batch = {"video": {0: torch.export.Dim("batch", min=1, max=512)}}
    program = torch.export.export(model, (make_video(model, 2),), dynamic_shapes=batch)
    video = make_video(model, 3)
    torch.testing.assert_close(program.module()(video), model(video))


@pytest.mark.slow  # two minutes of g++
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs g++ for a CPU")
def test_one_graph_with_inductor():
    check(tiny_model(**SMALLEST), "inductor")
    check(tiny_mae(**SMALLEST), "inductor", mask=KEPT)
