"""Boxes against pytorchvideo's head, a slow RoIAlign, and clips without any."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import RoIAlign

from hiera_video import create_detector, create_model, load_weights
from hiera_video.errors import CheckpointError
from hiera_video.models.action_detector import sample_boxes
from hiera_video.tasks.optimization import parameter_groups
from tests.models.reference import make_video, randomize
from tests.models.small import TINY

BOXES = torch.tensor(
    [[0.1, 0.2, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.53, 0.56], [0.3, 0.0, 0.9, 0.4]]
)
CLIPS = torch.tensor([1, 0, 1, 1])
NO_BOXES = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
SMALLEST = {"embed_dim": 8, "stages": (1, 1), "q_pool": 1}


def tiny_detector(**kwargs):
    model = create_detector("hiera_tiny_16x224", **{**TINY, "num_classes": 6, **kwargs})
    randomize(model)
    return model.eval()


def pytorchvideo_head(model, stride):
    with warnings.catch_warnings():  # of other libraries, about what this imports
        warnings.simplefilter("ignore")
        from pytorchvideo.models.head import create_res_roi_pooling_head
    frames = model.geometry.tokens[0]
    head = create_res_roi_pooling_head(
        in_features=model.head.projection.in_features,
        out_features=model.head.projection.out_features,
        resolution=(7, 7),
        spatial_scale=1 / stride,
        roi=partial(RoIAlign, aligned=True),
        pool_kernel_size=(frames, 1, 1),
        pool_spatial=nn.MaxPool2d,
        dropout_rate=0.0,
    )
    head.proj.load_state_dict(model.head.projection.state_dict())
    return head


@torch.no_grad()
def test_is_the_head_of_pytorchvideo():
    model = tiny_detector(input_size=(4, 96, 160))
    video = make_video(model, 2)
    features = model.norm(model.forward_features(video))  # (B, T', 3, 5, C)
    pixels = BOXES * torch.tensor([160, 96, 160, 96])
    rows = torch.cat([CLIPS[:, None].float(), pixels], dim=1)
    expected = pytorchvideo_head(model, 32)(features.permute(0, 4, 1, 2, 3), rows)
    logits = model(video, BOXES, CLIPS)
    assert logits.shape == (4, 6)
    assert logits.std(0).min() > 1e-2  # boxes matter
    torch.testing.assert_close(logits, expected)


def slow_roi_align(features, box, size):
    """One box `(4,)` in cells on a map `(H, W, C)`, from the paper and Detectron2's half pixel."""
    height, width, _ = features.shape

    def at(y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return np.zeros(features.shape[2])
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        below, right = y - y0, x - x0
        upper = features[y0, x0] * (1 - right) + features[y0, x1] * right
        lower = features[y1, x0] * (1 - right) + features[y1, x1] * right
        return upper * (1 - below) + lower * below

    left, top, right, bottom = box - np.float32(0.5)
    step = ((bottom - top) / np.float32(size), (right - left) / np.float32(size))
    taken = [math.ceil(s) for s in step]  # samples of a place along each axis
    out = np.zeros((size, size, features.shape[2]))
    for i, j in np.ndindex(size, size):
        samples = [
            at(
                top + (i + (a + 0.5) / taken[0]) * step[0],
                left + (j + (b + 0.5) / taken[1]) * step[1],
            )
            for a, b in np.ndindex(*taken)
        ]
        out[i, j] = np.mean(samples, axis=0)
    return out


# A box without an area has no samples, and is zero.
sides = st.tuples(st.floats(0, 0.875, width=32), st.floats(0.0625, 1, width=32)).map(
    lambda side: (side[0], min(1.0, side[0] + side[1]))
)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), sides, sides)
def test_samples_as_a_slow_implementation(height, width, size, x, y):
    features = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([x[0], y[0], x[1], y[1]])
    sampled = sample_boxes(features, box[None], torch.tensor([1]), size)
    cells = box.numpy() * np.array([width, height, width, height], np.float32)
    expected = slow_roi_align(features[1].permute(1, 2, 0).numpy(), cells, size)
    np.testing.assert_allclose(sampled[0].permute(1, 2, 0), expected, atol=1e-4)


@torch.no_grad()
def test_two_scales():
    model = tiny_detector(multi_scale=True)
    video = make_video(model, 2)
    fine, coarse = model.forward_features(video, return_stages=True)[2:]
    assert (fine.shape[2], coarse.shape[2]) == (4, 2)  # strides 16 and 32
    fine = (fine - fine.mean(-1, keepdim=True)) / (fine.var(-1, False, keepdim=True) + 1e-6).sqrt()
    boxed = []
    for features, stride in ((fine, 16), (model.norm(coarse), 32)):
        rows = torch.cat([CLIPS[:, None].float(), BOXES * 64], dim=1)
        align = RoIAlign(7, spatial_scale=1 / stride, sampling_ratio=0, aligned=True)
        boxed.append(align(features.mean(1).permute(0, 3, 1, 2), rows).flatten(2).amax(2))
    expected = model.head.projection(torch.cat(boxed, dim=1))
    torch.testing.assert_close(model(video, BOXES, CLIPS), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_box_depends_on_its_clip_alone():
    model = tiny_detector()
    video = make_video(model, 2)
    logits = model(video, BOXES, CLIPS)
    for clip in (0, 1):
        own = CLIPS == clip
        alone = model(video[clip : clip + 1], BOXES[own], CLIPS[own] - clip)
        torch.testing.assert_close(alone, logits[own])


def test_a_box_without_area():
    model = tiny_detector()
    boxes = torch.tensor([[1.0, 0.2, 1.0, 0.8], [0.5, 0.5, 0.5, 0.5]])
    logits = model(make_video(model, 1), boxes, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(logits, model.head.projection.bias.expand(2, -1))
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("multi_scale", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clips_without_boxes(dtype, multi_scale):
    model = tiny_detector(**SMALLEST, multi_scale=multi_scale).to(dtype).train()
    logits = model(make_video(model, 2).to(dtype), *NO_BOXES)
    assert logits.shape == (0, 6)
    assert logits.dtype == dtype
    logits.sum().backward()
    assert all((p.grad == 0).all() for p in model.parameters())  # and none is None


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16(autocast):
    model = tiny_detector()
    video = make_video(model, 2)
    exact = model(video, BOXES, CLIPS)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model = model if autocast else model.bfloat16()
        logits = model(video if autocast else video.bfloat16(), BOXES, CLIPS)
    assert logits.dtype == model.head.projection.weight.dtype  # of evaluation, also under autocast
    assert autocast != torch.equal(logits, logits.bfloat16())
    assert (logits.float() - exact).abs().max() < 0.15 * exact.abs().max()
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_one_graph():
    model = tiny_detector(**SMALLEST)
    video = make_video(model, 2)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for boxes, clips in ((BOXES, CLIPS), (BOXES[:2], CLIPS[:2]), NO_BOXES):
        logits_and_gradients = []
        for run in (compiled, model):
            model.zero_grad()
            logits = run(video, boxes, clips)
            logits.square().sum().backward()
            logits_and_gradients.append((logits, [p.grad.clone() for p in model.parameters()]))
        torch.testing.assert_close(*logits_and_gradients, rtol=1e-3, atol=1e-5)


def test_starts_from_a_classifier(tmp_path, capsys):
    classifier = create_model("hiera_tiny_16x224", **TINY, num_classes=5)
    randomize(classifier)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    for multi_scale in (False, True):
        model = tiny_detector(multi_scale=multi_scale)
        report = load_weights(model, tmp_path / "classifier.pth")
        assert sorted(report.missing) == ["head.projection.bias", "head.projection.weight"]
        assert not report.unexpected
        assert "new head" in capsys.readouterr().out
        for name, value in classifier.state_dict().items():
            if not name.startswith("head."):
                assert torch.equal(model.state_dict()[name], value)
    with pytest.raises(CheckpointError, match="sizes differ"):
        load_weights(tiny_detector(embed_dim=24), tmp_path / "classifier.pth")


def test_a_detectors_own_weights(tmp_path):
    model = tiny_detector(multi_scale=True)
    torch.save(model.state_dict(), tmp_path / "detector.pth")
    other = tiny_detector(multi_scale=True)
    assert load_weights(other, tmp_path / "detector.pth", quiet=True).missing == []
    assert torch.equal(other.head.projection.weight, model.head.projection.weight)


def test_layers_decay_as_those_of_a_classifier():
    groups = parameter_groups(tiny_detector(multi_scale=True), 1.0, 0.1, layer_decay=0.5)
    of = {name: group for group in groups for name in group["names"]}
    assert of["head.projection.weight"]["lr"] == of["norm.weight"]["lr"] == 1.0
    assert of["blocks.4.attn.proj.weight"]["lr"] == 0.5
    assert of["patch_embed.proj.weight"]["lr"] == 0.5**6
    assert of["pos_embed_spatial"]["weight_decay"] == of["norm.weight"]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": (64, 64)}, r"input_size must be \(frames, height, width\)"),
        ({"roi_size": 0}, "roi_size must be positive"),
        ({"stages": (1,), "q_pool": 0, "multi_scale": True}, "two stages"),
        ({"num_classes": 0}, "num_classes must be positive"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_detector("hiera_tiny_16x224", **{**TINY, **arguments})


@pytest.mark.parametrize("clip", [-1, 2])
def test_a_clip_that_is_not_there(clip):
    net = create_detector("hiera_tiny_16x224", **TINY, num_classes=3)
    with pytest.raises(RuntimeError, match="a clip that is not in the batch"):
        net(torch.rand(2, 3, 4, 64, 64), torch.rand(1, 4), torch.tensor([clip]))


def test_wrong_boxes():
    model = tiny_detector(**SMALLEST)
    video = make_video(model, 1)
    for boxes, clips in ((BOXES, CLIPS[:3]), (BOXES[:, :3], CLIPS), (BOXES, CLIPS[:, None])):
        with pytest.raises(ValueError, match=r"expected boxes \(N, 4\) and box_clip \(N,\)"):
            model(video, boxes, clips)


def test_published_sizes():
    with torch.device("meta"):
        model = create_detector("hiera_large_16x224")
        logits = model(torch.empty(1, 3, 16, 224, 224), torch.empty(3, 4), torch.empty(3).long())
    assert logits.shape == (3, 80)
    assert model.seen_stages == [3]
