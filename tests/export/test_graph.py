"""Exported graphs beside PyTorch: any batch, pixels or normalised input, and a check that bites."""

import onnx
import pytest
import torch

from hiera_video.augment.basic import Normalize
from hiera_video.export import graph
from hiera_video.models.zoo import create_model
from tests.models.reference import randomize
from tests.models.small import tiny_model

VIDEO, IMAGE = (3, 4, 64, 64), (3, 64, 96)
SHORT = {"stages": (1, 1, 1), "q_pool": 2}  # windows, pooling and global attention


@pytest.fixture(scope="module", params=["video", "image in uint8"])
def program(request):
    """Model, shape, whether it takes pixels, and its graph."""
    if request.param == "video":
        model = tiny_model(**SHORT).eval()
        return model, VIDEO, False, graph.trace(model, VIDEO, uint8=False)
    image = create_model(
        "hiera_tiny_224", **SHORT, input_size=IMAGE[1:], embed_dim=16, num_classes=5
    )
    randomize(image)
    model = graph.WithNormalisation(image.eval(), Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    return model, IMAGE, True, graph.trace(model, IMAGE, uint8=True)


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_any_batch_gives_what_pytorch_gives(program, kind, tmp_path):
    model, shape, uint8, traced = program
    file = tmp_path / f"model.{kind}"
    save, load = (
        (graph.save_pt2, graph.run_pt2) if kind == "pt2" else (graph.save_onnx, graph.run_onnx)
    )
    save(traced, file)
    run = load(file)
    for batch in (1, 2, 5):
        video = graph.random_input((batch, *shape), uint8, seed=batch)
        with torch.no_grad():
            torch.testing.assert_close(run(video), model(video), rtol=1e-5, atol=1e-5)
    difference = graph.compare(run, model, shape, uint8)
    assert 0 <= difference.relative < 1e-5
    if kind == "onnx":
        video, logits = (
            value.type.tensor_type
            for value in (*onnx.load(file).graph.input, *onnx.load(file).graph.output)
        )
        assert video.elem_type == (onnx.TensorProto.UINT8 if uint8 else onnx.TensorProto.FLOAT)
        axes = [d.dim_param or d.dim_value for d in video.shape.dim]
        assert axes == ["batch", *shape]
        assert [d.dim_param or d.dim_value for d in logits.shape.dim] == ["batch", 5]
        assert onnx.load(file).opset_import[0].version == graph.OPSET
    assert b"/tests/export" not in file.read_bytes()
    assert b"hiera_video/models" not in file.read_bytes()  # paths of the machine that traced


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3 * 8 * 8, 5)

    def forward(self, video):
        return self.linear(video.flatten(1))


def test_large_onnx_weights_lie_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "ONE_FILE", 1000)
    model = Linear()
    file = tmp_path / "model.onnx"
    graph.save_onnx(graph.trace(model, (3, 8, 8), uint8=False), file)
    assert (tmp_path / "model.onnx.data").stat().st_size >= 4 * 3 * 8 * 8 * 5
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (file, tmp_path / "model.onnx.data"):
        path.rename(moved / path.name)
    run = graph.run_onnx(moved / "model.onnx")
    difference = graph.compare(run, model, (3, 8, 8), uint8=False)
    assert difference.relative < 1e-5


def test_the_difference_is_what_it_says():
    model = tiny_model(**SHORT).eval()
    with torch.no_grad():
        largest = max(
            float(model(graph.random_input((b, *VIDEO), False, seed=b)).abs().max())
            for b in graph.BATCHES
        )
        difference = graph.compare(lambda video: model(video) + 0.25, model, VIDEO, uint8=False)
    assert difference.absolute == pytest.approx(0.25, rel=1e-5)
    assert difference.relative == pytest.approx(0.25 / largest, rel=1e-5)
    for wrong in (lambda video: model(video)[:1], lambda video: model(video) * torch.nan):
        assert not graph.compare(wrong, model, VIDEO, uint8=False).relative <= 1
