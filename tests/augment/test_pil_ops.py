import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import auto_augment as timm_ops

from hiera_video.augment.affine import FILL, affine, rotate, shear_x
from hiera_video.augment.pil_ops import GEOMETRIC, OPERATIONS, apply, posterize
from hiera_video.augment.rand_augment import ARGUMENTS
from tests.augment.clips import SHAPES, clip

MEAN = (124, 116, 104)


def by_timm(pixels, name, argument, fill=FILL):
    """timm's function on each frame as a PIL image."""
    arguments = () if argument is None else (argument,)
    settings = {"fillcolor": fill, "resample": Image.Resampling.BICUBIC}
    frames = [
        timm_ops.NAME_TO_OP[name](Image.fromarray(frame), *arguments, **settings)
        for frame in pixels.permute(1, 2, 3, 0).contiguous().numpy()
    ]
    return torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(3, 0, 1, 2)


def arguments_of(name):
    argument = ARGUMENTS["timm"][name]
    if argument is None:
        return [None]
    drawn = {argument(share, sign) for share in (0, 0.31, 0.7, 0.7377, 1) for sign in (-1, 1)}
    # Keeping 0 bits is an error in newer PIL; older ones give black.
    return sorted(drawn - {0}) if name == "PosterizeIncreasing" else sorted(drawn)


@pytest.mark.parametrize("kind", ["noise", "smooth", "dark", "plain"])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in GEOMETRIC])
def test_operations_on_levels_give_the_pixels_of_pil(name, kind):
    for size in SHAPES:
        pixels = clip(kind, size)
        for argument in arguments_of(name):
            assert torch.equal(apply(pixels, [(name, argument)]), by_timm(pixels, name, argument))


@pytest.mark.parametrize(("kind", "fill"), [("noise", FILL), ("smooth", FILL), ("dark", MEAN)])
@pytest.mark.parametrize("name", sorted(GEOMETRIC))
def test_geometric_operations_are_within_a_level_of_pil(name, kind, fill):
    differences = []
    for size in SHAPES:
        pixels = clip(kind, size)
        for argument in arguments_of(name):
            expected = by_timm(pixels, name, argument, fill)
            off = (apply(pixels, [(name, argument)], fill).int() - expected.int()).abs()
            differences.append(off.flatten())
            if argument == 0:
                assert torch.equal(expected, pixels)
                assert not off.any()
    off = torch.cat(differences)
    assert off.max() <= 1
    assert (off > 0).float().mean() < 0.005


@pytest.mark.parametrize("name", sorted(GEOMETRIC))
@pytest.mark.parametrize("level", [0, 1, 77, 128, 255])
def test_a_plain_clip_of_the_fill_colour_or_its_inside_stays_plain(name, level):
    plain = torch.full((3, 2, 30, 40), level, dtype=torch.uint8)
    out = apply(plain, [(name, ARGUMENTS["timm"][name](0.7, 1))])
    assert set(out.unique().tolist()) == {level, *FILL}


def test_frames_and_channels_keep_their_places():
    pixels = clip("smooth", (40, 50), frames=4)
    turned = rotate(pixels, 12.3)
    for frame in range(4):
        assert torch.equal(turned[:, frame : frame + 1], rotate(pixels[:, frame : frame + 1], 12.3))
    assert torch.equal(turned.flip(0), rotate(pixels.flip(0), 12.3))


@given(st.integers(1, 12), st.integers(1, 12), st.lists(st.floats(-2, 2), min_size=6, max_size=6))
@settings(max_examples=60)
def test_any_affine_map_of_any_size_is_within_a_level_of_pil(height, width, matrix):
    matrix[2], matrix[5] = matrix[2] * 5, matrix[5] * 5
    pixels = clip("smooth", (height, width), frames=1)
    ours = affine(pixels, tuple(matrix[:3]), tuple(matrix[3:]))
    image = Image.fromarray(pixels[:, 0].permute(1, 2, 0).contiguous().numpy())
    image = image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=FILL
    )
    expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    assert (ours[:, 0].int() - expected.int()).abs().max() <= 1


def test_a_shear_moves_rows_by_their_distance_from_the_top():
    pixels = torch.zeros(3, 1, 8, 40, dtype=torch.uint8)
    pixels[..., 20] = 200
    out = shear_x(pixels, 2.0)  # the centre of row y lies at y + 0.5
    for row in range(8):
        assert out[0, 0, row].eq(200).nonzero().item() == 20 - 2 * row - 1


def test_keeping_no_bits_is_black():
    assert not posterize(clip("noise", (9, 9)), 0).any()


def test_the_table_of_operations_is_that_of_timm():
    assert list(OPERATIONS) == timm_ops._RAND_INCREASING_TRANSFORMS
    assert list(ARGUMENTS["timm"]) == list(OPERATIONS)


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_cpu_and_gpu_agree(name):
    pixels = clip("smooth", (112, 112), frames=4)
    for argument in arguments_of(name):
        on_cpu = apply(pixels, [(name, argument)]).int()
        off = (apply(pixels.cuda(), [(name, argument)]).cpu().int() - on_cpu).abs()
        assert off.max() <= (1 if name in GEOMETRIC else 0)
        assert (off > 0).float().mean() < 0.005
