"""Maps of where a network looks: beside the arithmetic written out, and whether they mean it."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import nn

from hiera_video import create_detector, create_model
from hiera_video.errors import ChoiceError
from hiera_video.predicting.batches import ClipNetwork
from hiera_video.predicting.saliency import grad_cam, occlusion, saliency_map, stage_cam
from tests.coloured_squares import (
    SIDE,
    boxes_of,
    coloured_squares,
    trained,
    trained_detector,
    untrained,
)
from tests.models.conftest import _one_thread  # noqa: F401
from tests.models.small import tiny_model

SOFTMAX = partial(torch.softmax, dim=1)
WAYS = [("grad_cam", 2), ("grad_cam", None), ("occlusion", None)]  # methods and stages
CUBOID = (2, SIDE, SIDE)  # occlusion: as large as the square while it has its colour


def saliency_of(network, clip, label, method="grad_cam", stage=None):
    cuboid = CUBOID if method == "occlusion" else None
    return saliency_map(network, clip, int(label), SOFTMAX, lambda _: {}, method, stage, cuboid)


# The arithmetic.


def test_grad_cam_of_a_linear_network_by_hand():
    """For a head that averages, it is the class activation map: the features times the weights."""
    features = torch.tensor([[[1.0, 2.0], [0.0, -3.0]], [[4.0, 0.0], [-1.0, 1.0]]])  # (2, 2, C)
    layer, weights = nn.Identity(), torch.tensor([0.5, -1.0])
    cam = grad_cam(layer, lambda: layer(features[None]).mean(dim=(0, 1, 2)) @ weights)
    assert torch.equal(cam, torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
    # Not the features but the gradient is averaged: here only one place counts.
    cam = grad_cam(layer, lambda: layer(features[None])[0, 1, 0] @ weights)
    assert torch.equal(cam, torch.tensor([[0.0, 3.0], [2.0, 0.0]]))


@pytest.mark.parametrize("label", [0, 4])
def test_grad_cam_of_the_last_stage_in_raster_order(label):
    model = tiny_model().eval()
    video = torch.randn(1, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    cam = stage_cam(model, 4, lambda: model(video)[0, label])
    maps = model.forward_features(video).detach().requires_grad_()  # (1, T', H', W', C)
    logit = model.head(model.norm(maps.mean(dim=(1, 2, 3))))[0, label]
    (gradient,) = torch.autograd.grad(logit, maps)
    expected = (maps.detach()[0] @ gradient.sum(dim=(0, 1, 2, 3))).relu()
    assert cam.shape == (2, 2, 2)
    assert torch.allclose(cam, expected, atol=1e-5)
    assert (cam > 0).any()


def test_grad_cam_of_every_stage_has_the_shape_of_its_map():
    model = tiny_model().eval()
    video = torch.randn(1, 3, 4, 64, 64)
    for stage, features in enumerate(model.forward_features(video, return_stages=True), 1):
        assert stage_cam(model, stage, lambda: model(video)[0, 0]).shape == features.shape[1:-1]
    for stage in (0, 5):
        with pytest.raises(ChoiceError, match=f"stage must be 1 to 4, not {stage}"):
            stage_cam(model, stage, lambda: model(video)[0, 0])


@pytest.mark.parametrize("cuboid", [(1, 2, 2), (2, 3, 4), (3, 5, 6), (1, 1, 1)])
def test_occlusion_is_a_loop_over_all_places(cuboid):
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(3, 3, 5, 6, generator=generator)
    weights = torch.randn(3, 3, 5, 6, generator=generator)

    def probability(clips):
        assert len(clips) <= 8
        return (clips * weights).sum(dim=(1, 2, 3, 4)).sigmoid()

    total, count = np.zeros((2, *video.shape[1:]))
    whole = probability(video[None])[0].item()
    steps = [max(1, n // 2) for n in cuboid]
    lasts = [n - c for n, c in zip(video.shape[1:], cuboid, strict=True)]
    starts = [
        sorted({*range(0, last, step), last}) for last, step in zip(lasts, steps, strict=True)
    ]
    for t in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                hidden = video.clone()
                where = np.s_[t : t + cuboid[0], y : y + cuboid[1], x : x + cuboid[2]]
                hidden[:, *where] = 0
                total[where] += whole - probability(hidden[None])[0].item()
                count[where] += 1
    shown = []
    result = occlusion(probability, video, cuboid, lambda *numbers: shown.append(numbers))
    np.testing.assert_allclose(result, total / count, atol=1e-6)
    assert shown[-1] == (np.prod([len(s) for s in starts]),) * 2


# Whether the maps mean it: the checks of Adebayo et al., "Sanity Checks for Saliency Maps", 2018,
# and of Samek et al., "Evaluating the Visualization of What a Deep Neural Network Has Learned".


@pytest.fixture(scope="module")
def clips():
    return coloured_squares(8, seed=1_000_000)


@pytest.fixture(scope="module")
def network():
    return ClipNetwork(trained(), device="cpu")


class Case:
    """A trained network and an untrained one, and their maps of clips."""

    def __init__(self, kind, clips):
        self.clips, self.kind = clips, kind
        self.boxes = boxes_of(clips)
        create, self.scores = {
            "classifier": (create_model, SOFTMAX),
            "detector": (create_detector, torch.sigmoid),
        }[kind]
        model = trained() if kind == "classifier" else trained_detector()
        self.network = ClipNetwork(model, device="cpu")
        self.untrained = ClipNetwork(untrained(create, seed=1), device="cpu")

    def inputs(self, number, copies):
        if self.kind == "classifier":
            return {}
        boxes = self.boxes[number].expand(copies, 4)
        return {"boxes": boxes, "box_clip": torch.arange(copies)}

    @cache  # noqa: B019 -- one for each kind
    def maps(self, way, trained=True):
        """Float32 ``(B, T, H, W)``."""
        method, stage = way
        network, cuboid = self.network if trained else self.untrained, None
        if method == "occlusion":
            cuboid = CUBOID
        heat = []
        for i, (clip, label) in enumerate(zip(self.clips.video, self.clips.labels, strict=True)):
            inputs = partial(self.inputs, i)
            options = self.scores, inputs, method, stage, cuboid
            heat.append(saliency_map(network, clip, int(label), *options)[0])
        return np.stack(heat)

    def probability(self, number, clip):
        """Of the colour of a clip's square, for another clip in place of that one."""
        pixels = torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3)
        logits = self.network.logits(pixels, **self.inputs(number, 1))
        return float(self.scores(logits)[0, self.clips.labels[number]])


@pytest.fixture(scope="module", params=["classifier", "detector"])
def case(request, clips):
    return Case(request.param, clips)


def test_the_network_has_learned(case):
    for i, clip in enumerate(case.clips.video):
        assert case.probability(i, clip) > 0.4


@pytest.mark.parametrize("way", WAYS)
def test_the_map_lies_on_the_square_while_it_has_its_colour(way, case):
    heat, square = case.maps(way), case.clips.square
    assert heat.dtype == np.float32
    assert heat.min() == 0
    assert (heat.max(axis=(1, 2, 3)) == 1).all()
    mass = (heat * square).sum() / heat.sum()
    print(f"{case.kind}, {way}: {mass:.3f} of the map on {square.mean():.3f} of the clip")
    assert mass > 1.5 * square.mean()


@pytest.mark.parametrize("way", WAYS)
def test_the_map_of_an_untrained_network_differs(way, case):
    pairs = zip(case.maps(way), case.maps(way, trained=False), strict=True)
    correlation = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
    print(f"{case.kind}, {way}: correlation {correlation:.3f}")
    assert abs(correlation) < 0.3


@pytest.mark.parametrize("way", WAYS)
def test_deleting_what_is_marked_lowers_the_probability_most(way, case):
    size = 4 * SIDE**2  # pixels that are deleted: twice the square while it has its colour
    falls = []
    for i, (heat, clip) in enumerate(zip(case.maps(way), case.clips.video, strict=True)):
        marked = np.zeros(heat.size, bool)
        marked[heat.ravel().argsort(kind="stable")[-size:]] = True
        marked = marked.reshape(heat.shape)
        elsewhere = np.roll(marked, [2, 32, 32], axis=(0, 1, 2))  # half the clip away on each axis
        whole = case.probability(i, clip)
        deleted = [np.where(w[..., None], np.uint8(115), clip) for w in (marked, elsewhere)]
        falls.append([whole - case.probability(i, one) for one in deleted])
    marked, elsewhere = np.mean(falls, axis=0)
    print(f"{case.kind}, {way}: {marked:.3f} marked, {elsewhere:.3f} elsewhere")
    assert marked > elsewhere + 0.02


# What a call leaves behind, and where it may be made.


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_the_model_stays_as_it_was(method, clips):
    model = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    saliency_of(ClipNetwork(model, device="cpu"), clips.video[0], 0, method)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_error_leaves_no_hook():
    layer = nn.Identity()

    def broken():
        layer(torch.zeros(1, 2))
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        grad_cam(layer, broken)
    assert not layer._forward_hooks


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_where_gradients_are_off_and_with_frozen_weights(mode, method, clips, network):
    expected, _ = saliency_of(network, clips.video[0], 0, method)
    model = untrained().requires_grad_(False)
    model.load_state_dict(trained().state_dict())
    with mode():
        heat, _ = saliency_of(ClipNetwork(model, device="cpu"), clips.video[0], 0, method)
    np.testing.assert_allclose(heat, expected, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_half_precision(way, clips, network):
    half = ClipNetwork(trained(), device="cpu", precision="bf16-mixed")
    for clip, label in zip(clips.video[:2], clips.labels, strict=False):
        expected, peak = saliency_of(network, clip, label, *way)
        heat, other_peak = saliency_of(half, clip, label, *way)
        assert heat.dtype == np.float32
        assert np.corrcoef(heat.ravel(), expected.ravel())[0, 1] > 0.95
        assert other_peak == pytest.approx(peak, rel=0.2)


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_on_a_gpu(way, clips, network):
    model = untrained()
    model.load_state_dict(trained().state_dict())
    expected, _ = saliency_of(network, clips.video[0], 0, *way)
    for precision in ("32-true", "16-mixed"):
        on_gpu = ClipNetwork(model, device="cuda", precision=precision)
        heat, _ = saliency_of(on_gpu, clips.video[0], 0, *way)
        assert np.corrcoef(heat.ravel(), expected.ravel())[0, 1] > 0.95


def test_nothing_speaks_for_a_class():
    class Constant(nn.Module):
        def forward(self, video):
            return torch.zeros(len(video), 3)

    clip = np.zeros((4, 64, 64, 3), np.uint8)
    heat, peak = saliency_of(ClipNetwork(Constant(), device="cpu"), clip, 1, "occlusion")
    assert peak == 0
    assert not heat.any()
    with pytest.raises(ChoiceError, match="Constant has no stages; use occlusion"):
        saliency_of(ClipNetwork(Constant(), device="cpu"), clip, 1, "grad_cam")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("gradcam",), "grad_cam or occlusion, not 'gradcam'; did you mean grad_cam"),
        (("grad_cam", 3, (1, 2, 2)), "a cuboid is for occlusion"),
        (("occlusion", 3), "occlusion has no stage"),
        (("occlusion", None, (8, 2, 2)), r"at most \(4, 64, 64\), not \(8, 2, 2\)"),
        (("occlusion", None, (2, 0, 2)), r"at most \(4, 64, 64\)"),
        (("occlusion", None, (2, 2)), "frames, height and width"),
        (("grad_cam", 4), "stage must be 1 to 3, not 4"),
    ],
)
def test_wrong_choices(options, message, network, clips):
    with pytest.raises(ChoiceError, match=message):
        saliency_map(network, clips.video[0], 0, SOFTMAX, lambda _: {}, *options)
