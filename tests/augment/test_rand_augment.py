from collections import Counter

import numpy as np
import pytest
import torch
from timm.data import auto_augment as timm_ops
from timm.data import create_transform

from hiera_video.augment.pytorchvideo_ops import augmentations
from hiera_video.augment.rand_augment import ARGUMENTS, Operation, RandAugment
from tests.augment.clips import clip
from tests.augment.test_pil_ops import by_timm

SEEDS = torch.arange(4000) * 7919


@pytest.mark.parametrize("semantics", ["timm", "pytorchvideo"])
def test_each_operation_is_drawn_and_applied_equally_often(semantics):
    drawn = RandAugment(semantics=semantics).draw(SEEDS)
    lengths = Counter(map(len, drawn))
    assert [lengths[n] / len(SEEDS) for n in range(3)] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    names = Counter(operation.name for operations in drawn for operation in operations)
    assert set(names) == set(ARGUMENTS[semantics])
    share = 1 / len(names)
    assert max(abs(count / names.total() - share) for count in names.values()) < 0.2 * share


def test_timm_draws_with_replacement_and_pytorchvideo_without():
    def pairs(semantics):
        drawn = RandAugment(probability=1.0, semantics=semantics).draw(SEEDS)
        return Counter((first.name, second.name) for first, second in drawn)

    timm = pairs("timm")
    twice = sum(count for (first, second), count in timm.items() if first == second)
    assert twice / len(SEEDS) == pytest.approx(1 / 15, abs=0.01)
    assert len(timm) == 15 * 15
    pytorchvideo = pairs("pytorchvideo")
    assert len(pytorchvideo) == 14 * 13
    assert all(first != second for first, second in pytorchvideo)
    everything = RandAugment(num_layers=14, probability=1.0, semantics="pytorchvideo").draw(SEEDS)
    assert all(len({name for name, _ in operations}) == 14 for operations in everything)


@pytest.mark.parametrize("semantics", ["timm", "pytorchvideo"])
def test_magnitudes_are_normal_and_signs_even(semantics):
    drawn = RandAugment(semantics=semantics).draw(SEEDS)
    degrees = np.array([a for operations in drawn for name, a in operations if name == "Rotate"])
    magnitude = np.abs(degrees) / 3
    assert magnitude.mean() == pytest.approx(7, abs=0.1)
    assert magnitude.std() == pytest.approx(0.5, abs=0.08)
    assert (degrees > 0).mean() == pytest.approx(0.5, abs=0.08)
    clipped = RandAugment(magnitude=10, std=3, probability=1.0, semantics=semantics).draw(SEEDS)
    magnitude = np.array([abs(a) / 3 for row in clipped for name, a in row if name == "Rotate"])
    assert magnitude.max() == pytest.approx(10)
    assert (magnitude > 9.999).mean() == pytest.approx(0.5, abs=0.08)
    clipped = RandAugment(magnitude=0, std=3, probability=1.0, semantics=semantics).draw(SEEDS)
    degrees = np.array([a for row in clipped for name, a in row if name == "Rotate"])
    assert (degrees == 0).mean() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [0, 2.5, 6.913, 7, 10])
def test_arguments_are_those_of_timm(magnitude, sign, monkeypatch):
    monkeypatch.setattr(timm_ops, "_randomly_negate", lambda value: sign * value)
    for name, argument in ARGUMENTS["timm"].items():
        level = timm_ops.LEVEL_TO_ARG[name]
        if level is None:
            assert argument is None
        else:
            expected = level(magnitude, {"translate_pct": 0.45})
            assert (argument(magnitude / 10, sign),) == pytest.approx(expected)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [6.913, 10])
def test_arguments_and_pixels_are_those_of_pytorchvideo(magnitude, sign, monkeypatch):
    library = augmentations()
    monkeypatch.setattr(library, "_randomly_negate", lambda value: sign * value)
    assert list(ARGUMENTS["pytorchvideo"]) == list(library._TRANSFORM_MAX_PARAMS)
    randaugment = RandAugment(semantics="pytorchvideo")
    for kind, size in (("noise", (20, 30)), ("smooth", (41, 26)), ("plain", (16, 18))):
        pixels = clip(kind, size)
        for name, argument in ARGUMENTS["pytorchvideo"].items():
            transform = library.AugmentTransform(
                name, float(magnitude), prob=1.0, sampling_hparas={"sampling_std": 0.0}
            )
            expected = transform(pixels.transpose(0, 1).float() / 255)  # (T, 3, H, W)
            expected = (expected * 255).round().clamp(0, 255).to(torch.uint8).transpose(0, 1)
            value = argument and argument(magnitude / 10, sign)
            off = randaugment(pixels, [Operation(name, value)]).int() - expected.int()
            # The library's magnitude has passed through single precision.
            assert off.abs().max() <= 1
            assert (off != 0).float().mean() < 0.001


def test_pytorchvideo_keeps_floats_between_operations():
    library = augmentations()
    pixels = clip("smooth", (30, 30))
    names = ["AdjustContrast", "Equalize", "Rotate"]
    arguments = [ARGUMENTS["pytorchvideo"][name] for name in names]
    operations = [
        Operation(name, argument and argument(0.7, 1))
        for name, argument in zip(names, arguments, strict=True)
    ]
    frames = pixels.transpose(0, 1).float() / 255
    for name, value in operations:
        function = library._NAME_TO_TRANSFORM_FUNC[name]
        frames = function(frames, *([] if value is None else [value]), fill=(0.5, 0.5, 0.5))
    expected = (frames * 255).round().clamp(0, 255).to(torch.uint8).transpose(0, 1)
    assert torch.equal(RandAugment(semantics="pytorchvideo")(pixels, operations), expected)


def test_operations_follow_each_other_as_in_timm():
    pixels = clip("smooth", (40, 30))
    randaugment = RandAugment(num_layers=3, probability=1.0)
    levels = [
        operations
        for operations in randaugment.draw(torch.arange(60))
        if not any("Shear" in name or "Trans" in name or name == "Rotate" for name, _ in operations)
    ]
    assert len(levels) > 5
    for operations in levels:
        expected = pixels
        for name, argument in operations:
            expected = by_timm(expected, name, argument)
        assert torch.equal(randaugment(pixels, operations), expected)


def test_a_clip_is_filled_with_the_colour_of_its_recipe():
    # timm takes the mean for images: MAE's recipes
    mean = create_transform(224, is_training=True, auto_augment="rand-m9-mstd0.5-inc1")
    [rand] = [part for part in mean.transforms if isinstance(part, timm_ops.RandAugment)]
    fill = rand.ops[0].kwargs["fillcolor"]
    pixels = clip("smooth", (40, 30))
    turned = RandAugment(fill=fill)(pixels, [Operation("Rotate", 20.0)])
    off = turned.int() - by_timm(pixels, "Rotate", 20.0, fill).int()
    assert off.abs().max() <= 1
    assert turned[:, 0, 0, 0].tolist() == list(fill) == [124, 116, 104]


def test_a_draw_depends_on_the_seed_alone():
    randaugment = RandAugment()
    together = randaugment.draw(SEEDS[:50])
    assert [randaugment.draw(SEEDS[i : i + 1])[0] for i in range(50)] == together
    assert not any(RandAugment(probability=0.0).draw(SEEDS[:50]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"semantics": "pil"}, "semantics must be timm or pytorchvideo, not 'pil'"),
        ({"magnitude": 11}, "magnitude must be in"),
        ({"magnitude": float("nan")}, "magnitude must be in"),
        ({"std": -1}, "std must be at least 0"),
        ({"probability": 1.5}, "probability must be in"),
        ({"fill": [124, 116]}, "fill must be three whole numbers"),
        ({"fill": [124, 116, 256]}, "fill must be three whole numbers"),
        ({"fill": [0, 0, 0], "semantics": "pytorchvideo"}, "is for timm"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"num_layers": 15, "semantics": "pytorchvideo"}, "num_layers must be at most 14"),
    ],
)
def test_wrong_arguments_are_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as error:
        RandAugment(**wrong)
    assert "\n" not in str(error.value)
