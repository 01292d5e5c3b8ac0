import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.tv_tensors import Image

from datamodules.coco.jitter import Jitter, fit, large_scale_jitter
from datamodules.coco.rle import encode
from datamodules.coco.segmentation import draw

SQUARE = [20, 10, 60, 10, 60, 30, 20, 30]
OTHER = [2, 35, 20, 35, 20, 45, 2, 45]


def runs(mask):
    return {"size": [*mask.shape], "counts": encode(mask).tolist()}


def centre_of(mask):
    """The mean place of the pixels of a mask, x and y."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


@pytest.mark.parametrize("as_runs", [False, True])
def test_masks_and_boxes_move_with_the_picture(as_runs):
    rng = np.random.default_rng(0)
    objects = [[SQUARE], [OTHER]]
    drawn = [draw(one, 50, 70) for one in objects]
    if as_runs:
        objects = [runs(mask) for mask in drawn]
    image = Image(torch.from_numpy(np.logical_or(*drawn) * np.uint8(255)).expand(3, -1, -1))
    sizes, mirrored = set(), 0
    for _ in range(60):
        jitter = large_scale_jitter((50, 70), (64, 64), (0.1, 2.0), rng)
        moved = jitter.picture(image)
        masks, boxes = zip(*map(jitter.object, objects), strict=True)
        assert moved.shape[1:] == masks[0].shape == jitter.size
        assert max(jitter.size) <= 64
        # Pictures are interpolated and masks are not: they differ at edges only.
        edges = 4 * sum(jitter.size)
        assert ((moved[0] > 127).numpy() != np.logical_or(*masks)).sum() <= edges / 2
        sizes.add(jitter.size)
        if min(mask.sum() for mask in masks) > 20:
            mirrored += bool(boxes[1][0] > boxes[0][0])
    assert len(sizes) > 15
    assert (64, 64) in sizes
    assert mirrored > 5


@pytest.mark.parametrize("as_runs", [False, True])
def test_objects_lie_where_the_picture_has_them(as_runs):
    """On average to a twentieth of a pixel; with nearest neighbours rounded down it is a half."""
    rng = np.random.default_rng(1)
    errors, centres = [], []
    for _ in range(150):
        x1, y1 = rng.integers(0, [400, 300])
        width, height = rng.integers(20, 200, 2)
        x2, y2 = x1 + width, y1 + height
        square = [[int(n) for n in (x1, y1, x2, y1, x2, y2, x1, y2)]]
        segmentation = runs(draw(square, 480, 640)) if as_runs else square
        factor, mirror = rng.uniform(0.2, 2.0), bool(rng.integers(2))
        scaled = round(480 * factor), round(640 * factor)
        mask, box = Jitter((480, 640), mirror, scaled, (0, 0), scaled).object(segmentation)
        across, down = scaled[1] / 640, scaled[0] / 480
        x2, y2 = min(x2, 640), min(y2, 480)
        left, right = (640 - x2, 640 - x1) if mirror else (x1, x2)
        expected = np.array([left * across, y1 * down, right * across, y2 * down])
        errors.append(box - expected)
        centres.append(centre_of(mask) - expected.reshape(2, 2).mean(axis=0))
    assert np.abs(errors).max() < 1e-9
    assert np.abs(np.mean(centres, axis=0)).max() < 0.05
    assert np.abs(centres).max() <= 1.0


def test_pictures_are_those_of_torchvision():
    """With a factor of 1, no crop and no mirror, against v2's own transform."""

    class Fixed:
        def random(self, count):
            return np.array([0.9, *[0.5] * (count - 1)])

    image = Image(torch.randint(0, 255, (3, 60, 80), dtype=torch.uint8))
    for factor in (0.4, 0.8):
        jitter = large_scale_jitter((60, 80), (96, 128), (factor, factor), Fixed())  # pyright: ignore
        expected = v2.ScaleJitter((96, 128), (factor, factor))(image)
        size = round(60 * 1.6 * factor), round(80 * 1.6 * factor)  # v2 rounds down
        if expected.shape[1:] != size:
            expected = v2.Resize(size)(image)
        assert torch.equal(jitter.picture(image), expected)
    assert fit(image, (96, 96)).shape == (3, 72, 96)


@pytest.mark.parametrize("scaled", [(31, 57), (50, 70), (96, 133)])
def test_run_lengths_are_scaled_as_torch_does(scaled):
    """Where it takes the pixel that a centre lies in."""
    mask = np.random.default_rng(2).random((50, 70)) < 0.5
    moved, _ = Jitter((50, 70), False, scaled, (0, 0), scaled).object(runs(mask))
    tensor = torch.from_numpy(mask)[None, None].float()
    expected = torch.nn.functional.interpolate(tensor, scaled, mode="nearest-exact")
    assert (moved == expected[0, 0].bool().numpy()).mean() > 0.999  # torch computes in float32


corner = st.tuples(st.floats(-40, 110), st.floats(-40, 90))


@settings(max_examples=60)
@given(st.lists(corner, min_size=3, max_size=6), st.booleans(), st.floats(0.5, 2), st.data())
def test_a_box_reaches_around_what_a_crop_leaves(corners, mirrored, factor, data):
    """Against points all over the object, a tenth of a pixel apart."""
    scaled = round(50 * factor), round(70 * factor)
    size = data.draw(st.integers(1, scaled[0])), data.draw(st.integers(1, scaled[1]))
    place = tuple(data.draw(st.integers(0, n - m)) for n, m in zip(scaled, size, strict=True))
    jitter = Jitter((50, 70), mirrored, scaled, place, size)
    polygon = [float(n) for point in corners for n in point]
    mask, box = jitter.object([polygon])
    height, width = size
    fine = draw([(10 * jitter.points(np.array(corners))).ravel().tolist()], 10 * height, 10 * width)
    if not mask.any():
        assert not box.any()
        return
    x1, y1, x2, y2 = box
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # No pixel of the mask is wholly outside.
    assert (box[:2] < [columns[0] + 1, rows[0] + 1]).all()
    assert (box[2:] > [columns[-1], rows[-1]]).all()
    inside = jitter.points(np.array(corners))
    if (inside >= 0).all() and (inside <= [width, height]).all():
        rows, columns = np.flatnonzero(fine.any(axis=1)), np.flatnonzero(fine.any(axis=0))
        ends = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 10
        # Never inside what is drawn; sharp corners have no pixel of their own.
        assert (box[:2] <= ends[:2] + 0.11).all()
        assert (box[2:] >= ends[2:] - 0.11).all()


def test_a_box_ends_where_the_crop_does():
    """A triangle whose leftmost corner is above the crop: what is left begins further right."""
    jitter = Jitter((100, 100), False, (100, 100), (50, 0), (50, 100))
    mask, box = jitter.object([[10, 10, 90, 90, 90, 10]])
    assert box[0] == mask.any(axis=0).argmax()
    assert np.abs(box - [50, 0, 90, 40]).max() <= 1


def test_corners_far_away_are_drawn_before_they_are_scaled():
    far = [[-900_000.0, 0, 900_000, 0, 900_000, 40, -900_000, 40]]
    mask, box = Jitter((50, 50), False, (1600, 1600), (0, 0), (64, 64)).object(far)
    assert mask.all()
    assert box.tolist() == [0, 0, 64, 64]


def test_an_object_that_is_cropped_away_has_no_mask_and_no_box():
    for segmentation in ([SQUARE], runs(draw([SQUARE], 50, 70)), runs(np.zeros((50, 70), bool))):
        mask, box = Jitter((50, 70), False, (50, 70), (40, 0), (10, 15)).object(segmentation)
        assert not mask.any()
        assert not box.any()
