"""Anchors, RoIAlign, losses and first weights against detectron2's numbers and slow sums."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.image_list import ImageList

from hiera_video import create_mask_rcnn
from hiera_video.models.mask_rcnn_parts import RoIPool, mask_targets

MAPS = ("0", "1", "2", "3")


def detector(**kwargs):
    torch.manual_seed(0)
    arguments = {"embed_dim": 8, "stages": (1, 1, 1, 1), "width": 16, "box_features": 32, **kwargs}
    return create_mask_rcnn("hiera_tiny_224", num_classes=3, **arguments)


def test_anchors_of_detectron2():
    """Those of its tests and documents for sizes 32 and 64, and a grid from the corner."""
    maps = [torch.zeros(1, 16, 256 // stride, 256 // stride) for stride in (4, 8, 16, 32, 64)]
    images = ImageList(torch.zeros(1, 3, 256, 256), [(200, 100)])
    (anchors,) = detector().rpn.anchor_generator(images, maps)
    assert anchors.dtype == torch.float32
    assert len(anchors) == 3 * sum(m.shape[2] ** 2 for m in maps)
    expected = torch.tensor(
        [
            [-22.627417, -11.3137085, 22.627417, 11.3137085],
            [-16.0, -16.0, 16.0, 16.0],
            [-11.3137085, -22.627417, 11.3137085, 22.627417],
        ]
    )
    torch.testing.assert_close(anchors[:3], expected)
    torch.testing.assert_close(anchors[3:6], expected + torch.tensor([4.0, 0, 4, 0]))
    second = anchors[3 * 64 * 64 :]
    torch.testing.assert_close(second[3 * 33 :][:3], 2 * expected + torch.tensor([8.0, 8, 8, 8]))


@pytest.mark.parametrize("side", [7, 14])
def test_a_ramp_is_sampled_at_the_centres_of_the_bins(side):
    """Of pictures that fill a corner of the batch; each map holds the places of its cells."""
    maps = {}
    for level, name in enumerate((*MAPS, "pool")):
        stride = 4 * 2**level
        places = (torch.arange(1024 // stride) + 0.5) * stride
        x, y = torch.meshgrid(places, places, indexing="xy")
        maps[name] = torch.stack((x, y, torch.full_like(x, level))).repeat(2, 1, 1, 1)
    sizes = {  # in pixels; and detectron2's level: floor(4 + log2(sqrt(w * h) / 224)), from 2 to 5
        (9.5, 20.25): 0,
        (111.9, 111.9): 0,
        (112, 112): 1,
        (56, 448): 1,
        (224, 224): 2,
        (300, 170): 2,
        (448, 448): 3,
        (950, 800.5): 3,
    }
    boxes = torch.tensor([[33.3, 17.9, 33.3 + w, 17.9 + h] for w, h in sizes])
    pooled = RoIPool(MAPS, side, 4)(maps, [boxes[:3], boxes[3:]], [(120, 90), (64, 64)])
    assert pooled.shape == (len(sizes), 3, side, side)
    steps = (torch.arange(side) + 0.5) / side
    for (left, top, right, bottom), level, found in zip(
        boxes.tolist(), sizes.values(), pooled, strict=True
    ):
        x, y = left + steps * (right - left), top + steps * (bottom - top)
        x, y = torch.meshgrid(x, y, indexing="xy")
        torch.testing.assert_close(found, torch.stack((x, y, torch.full_like(x, level))))


def test_no_boxes_are_no_features():
    maps = {name: torch.zeros(2, 5, 8, 8) for name in MAPS}
    assert RoIPool(MAPS, 7, 4)(maps, [torch.zeros(0, 4)] * 2).shape == (0, 5, 7, 7)


def test_losses_of_proposals_are_divided_by_the_samples_that_were_wanted():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2 * 5, 1, generator=generator)
    found, wanted = torch.randn(2, 2 * 5, 4, generator=generator)
    labels = torch.tensor([1.0, 0, -1, 1, 0, 0, -1, 0, 1, 0])
    score_sum = box_sum = 0.0
    for score, label, one, two in zip(scores, labels, found, wanted, strict=True):
        if label >= 0:
            right = 1 / (1 + math.exp(-float(score)))
            score_sum -= math.log(right if label == 1 else 1 - right)
        if label == 1:
            box_sum += sum(abs(a - b) for a, b in zip(one.tolist(), two.tolist(), strict=True))
    losses = detector().rpn.compute_loss(
        scores, found, list(labels.split(5)), list(wanted.split(5))
    )
    assert [float(loss) for loss in losses] == pytest.approx([score_sum / 512, box_sum / 512])


class Fixed(nn.Module):
    """Gives the same whatever it gets."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, *_):
        return self.output


def test_losses_of_boxes_and_masks():
    """Of four proposals two are objects; all numbers are made up and added up slowly."""
    heads = detector(box_samples=8).roi_heads.train()
    generator = torch.Generator().manual_seed(0)
    scores, offsets = (
        torch.randn(4, 4, generator=generator),
        torch.randn(4, 16, generator=generator),
    )
    masks = torch.randn(2, 4, 28, 28, generator=generator)
    for name, output in (("box_predictor", (scores, offsets)), ("mask_predictor", masks)):
        setattr(heads, name, Fixed(output))
    for name in ("box_roi_pool", "box_head", "mask_roi_pool", "mask_head"):
        setattr(heads, name, Fixed(None))
    truth = torch.zeros(1, 96, 96, dtype=torch.uint8)
    truth[0, 10:66, 20:62] = 1
    box = torch.tensor([20.0, 10, 76, 66])
    shifted = box + torch.tensor([2.0, -4, 2, -4])
    proposals = [
        torch.stack((shifted, torch.tensor([0.0, 70, 9, 80]), torch.tensor([80.0, 0, 90, 9])))
    ]
    wanted = [{"boxes": box[None], "labels": torch.tensor([2]), "masks": truth}]
    detections, losses = heads({}, proposals, [(96, 96)], wanted)
    assert detections == []
    classes = [2, 0, 0, 2]  # the last is the object itself, which joins the proposals
    entropy = -sum(float(F.log_softmax(scores[i], 0)[c]) for i, c in enumerate(classes))
    assert float(losses["loss_classifier"]) == pytest.approx(entropy / 4)
    distances = 0.0  # the box lies -2/56 and 4/56 of its side away, which counts tenfold
    for row, deltas in ((0, (-20 / 56, 40 / 56, 0, 0)), (3, (0, 0, 0, 0))):
        found = offsets[row, 8:12].tolist()
        distances += sum(abs(a - b) for a, b in zip(found, deltas, strict=True))
    assert float(losses["loss_box_reg"]) == pytest.approx(distances / 4, rel=1e-5)
    total = 0.0
    for found, (left, top, *_) in zip(masks[:, 2], (shifted, box), strict=True):
        for y in range(28):
            for x in range(28):
                pixels = truth[0, int(top) + 2 * y :][:2, int(left) + 2 * x :][:, :2]
                right = 1 / (1 + math.exp(-float(found[y, x])))
                total -= math.log(right if pixels.float().mean() >= 0.5 else 1 - right)
    assert float(losses["loss_mask"]) == pytest.approx(total / (2 * 28 * 28), rel=1e-5)


def test_a_cell_that_is_half_full_belongs_to_the_mask():
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 2, (3, 24, 32), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[4.0, 2, 20, 18], [0, 0, 32, 24]])
    found = mask_targets(masks, boxes, torch.tensor([2, 0]), 8)
    one = F.avg_pool2d(masks[2:, 2:18, 4:20].float(), 2)
    two = F.avg_pool2d(masks[:1].float(), (3, 4))
    assert torch.equal(found, (torch.cat((one, two)) >= 0.5).float())
    assert 0.2 < found.mean() < 0.8


def test_first_weights_of_detectron2():
    model = detector(width=64, box_features=256)
    predictors = model.roi_heads.box_predictor, model.roi_heads.mask_predictor
    for layer, std in (
        (predictors[0].cls_score, 0.01),
        (predictors[0].bbox_pred, 0.001),
        (predictors[1].mask_fcn_logits, 0.001),
        (model.rpn.head.bbox_pred, 0.01),
    ):
        assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.15)
    linear = next(m for m in model.roi_heads.box_head.modules() if isinstance(m, nn.Linear))
    assert float(linear.weight.detach().abs().max()) == pytest.approx(
        math.sqrt(3 / linear.in_features), rel=1e-3
    )
    assert not any(p.any() for name, p in model.roi_heads.named_parameters() if "bias" in name)
