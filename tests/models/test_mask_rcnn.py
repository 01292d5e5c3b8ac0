"""A Mask R-CNN against torchvision's own with detectron2's parts, its positions and its size."""

import copy
import math

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN, roi_heads
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import RoIAlign

from hiera_video import create_mae, create_mask_rcnn, create_model, load_weights
from hiera_video.errors import CheckpointError
from hiera_video.models.complexity import cost_of
from hiera_video.models.mask_rcnn import MaskRCNNHiera, paste_mask
from hiera_video.models.mask_rcnn_parts import DETECTIONS, PROPOSALS
from hiera_video.models.names import model_arguments
from hiera_video.weights.description import Description
from hiera_video.weights.portable import read_model, write_model
from hiera_video.weights.positions import resize_space
from tests.models.reference import randomize

SMALL = {"embed_dim": 8, "stages": (1, 1, 1, 1)}
HEADS = {"width": 16, "box_features": 32, "box_samples": 16}
# Table 10 of the paper: millions of parameters; and the classifier's head of 1000 classes.
PAPER = {"base": (73, 0.769), "base_plus": (92, 0.897), "large": (236, 1.153)}
SIZE = (128, 160)


def small_detector(**kwargs):
    torch.manual_seed(0)
    return create_mask_rcnn("hiera_tiny_224", **{"num_classes": 3, **SMALL, **HEADS, **kwargs})


def targets(size=SIZE):
    """Of two pictures, of which the second is empty."""
    boxes = torch.tensor([[10.0, 12, 60, 70], [80, 30, 120, 100]])
    masks = torch.zeros(2, *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, *size, dtype=torch.uint8),
    }
    return [{"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}, empty]


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each position, by hand."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        x = (x - mean) / (var + 1e-6).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class SlowPool(nn.Module):
    """detectron2's ROIPooler; the map of each box by its formula."""

    def __init__(self, side):
        super().__init__()
        self.output_size = (side, side)

    def forward(self, maps, boxes, image_shapes):
        rows = [(i, *box) for i, group in enumerate(boxes) for box in group.tolist()]
        pooled = torch.zeros(len(rows), 16, *self.output_size)
        levels = [
            min(max(math.floor(4 + math.log2(math.sqrt((x2 - x1) * (y2 - y1)) / 224 + 1e-8)), 2), 5)
            for _, x1, y1, x2, y2 in rows
        ]
        for level in set(levels):
            here = [i for i, other in enumerate(levels) if other == level]
            align = RoIAlign(self.output_size, 1 / 2**level, sampling_ratio=0, aligned=True)
            pooled[here] = align(maps[str(level - 2)], torch.tensor([rows[i] for i in here]))
        return pooled


def binary_masks(masks, boxes, matches, side):
    """detectron2's BitMasks.crop_and_resize."""
    align = RoIAlign((side, side), 1.0, sampling_ratio=0, aligned=True)
    pairs = zip(matches, boxes, strict=True)
    seen = [align(masks[i][None, None].float(), [box[None]]) for i, box in pairs]
    return (torch.cat(seen)[:, 0] >= 0.5).float() if seen else torch.zeros(0, side, side)


class Maps(nn.Module):
    """The FPN's maps of a detector, as a backbone of torchvision."""

    def __init__(self, detector):
        super().__init__()
        self.pyramid, self.out_channels = detector.pyramid, 16

    def forward(self, images):
        return self.pyramid(images)


def torchvision_detector(detector):
    """torchvision's own Mask R-CNN with the weights of a detector and detectron2's parts."""
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    anchors.cell_anchors = [
        torch.tensor([[-w, -h, w, h] for w, h in ((r, s), (1, 1), (s, r))]) * side / 2
        for side in (32, 64, 128, 256, 512)
        for r, s in [(2**0.5, 0.5**0.5)]
    ]
    model = MaskRCNN(
        Maps(detector),
        min_size=128,
        max_size=160,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(16, 3, conv_depth=2),
        box_head=FastRCNNConvFCHead((16, 7, 7), [16] * 4, [32], ChannelNorm),
        box_predictor=FastRCNNPredictor(32, 4),
        mask_head=MaskRCNNHeads(16, [16] * 4, 1, ChannelNorm),
        mask_predictor=MaskRCNNPredictor(16, 16, 4),
        box_batch_size_per_image=16,
        rpn_post_nms_top_n_train=1000,
    )
    model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool = SlowPool(7), SlowPool(14)
    model.rpn.load_state_dict(detector.rpn.state_dict())
    model.roi_heads.load_state_dict(detector.roi_heads.state_dict())
    return model


@pytest.mark.parametrize("training", [True, False])
def test_is_a_mask_rcnn(training, monkeypatch):
    monkeypatch.setattr(
        nn.functional, "smooth_l1_loss", lambda one, two, **_: (one - two).abs().sum()
    )
    monkeypatch.setattr(roi_heads, "project_masks_on_boxes", binary_masks)
    model = small_detector()
    randomize(model)
    for predictor in (model.rpn.head.cls_logits, model.roi_heads.box_predictor.cls_score):
        nn.init.normal_(predictor.weight, std=0.5)  # so that scores differ
    other = torchvision_detector(model).train(training)
    model.train(training)
    images = torch.randn(2, 3, *SIZE)
    torch.manual_seed(1)
    expected = other(list(images), copy.deepcopy(targets()) if training else None)
    torch.manual_seed(1)
    if training:
        torch.rand(2)  # torchvision draws a size for each picture
    actual = model(images, [SIZE] * 2, targets() if training else None)
    if training:
        assert sum(actual.values()).requires_grad
        torch.testing.assert_close(dict(actual), dict(expected))
        return
    for one, two in zip(actual, expected, strict=True):
        assert len(one["boxes"]) > 3
        for key in ("boxes", "labels", "scores"):
            torch.testing.assert_close(one[key], two[key])
        assert one["masks"].shape == (len(one["boxes"]), 1, 28, 28)


def test_all_parameters_learn_and_none_from_an_empty_batch_alone_fails():
    model = small_detector(grad_checkpointing=True).train()
    for wanted in (targets(), [targets()[1]] * 2):
        model.zero_grad()
        losses = model(torch.randn(2, 3, *SIZE), [SIZE] * 2, wanted)
        sum(losses.values()).backward()
        assert not [name for name, p in model.named_parameters() if p.grad is None]
        assert all(p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ValueError, match="training needs targets"):
        model(torch.randn(1, 3, *SIZE), [SIZE])


def test_checkpointing_changes_no_gradient():
    images, wanted = torch.randn(2, 3, *SIZE), targets()
    gradients = []
    for saves in (False, True):
        model = small_detector(grad_checkpointing=saves).train()
        torch.manual_seed(1)
        sum(model(images, [SIZE] * 2, wanted).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_boxes_lie_in_the_picture_and_not_in_its_padding():
    model = small_detector().eval()
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)
    with torch.no_grad():
        (found,) = model(torch.randn(1, 3, 128, 160), [(100, 90)])
    assert len(found["boxes"])
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= torch.tensor([90.0, 100, 90, 100])).all()


def test_under_autocast_boxes_keep_their_precision():
    model = small_detector().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = model.pyramid(torch.randn(1, 3, *SIZE))
        (found,) = model(torch.randn(1, 3, *SIZE), [SIZE])
        objectness, deltas = model.rpn.head(list(maps.values()))
    assert {m.dtype for m in (*maps.values(), *objectness, *deltas)} == {torch.float32}
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    bfloat16 = found["boxes"].bfloat16().float()
    assert (found["boxes"] != bfloat16).any()


@pytest.mark.parametrize("positions", ["windows", "interpolate"])
def test_positions_are_those_that_weights_would_be_resized_to(positions):
    model = small_detector(positions=positions)
    randomize(model)
    images = torch.zeros(1, 3, 320, 256)
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
        model.patch_embed.proj.bias.zero_()
        maps = model.unit_maps(model.embed(images), 0)  # (1, U, 8, 8, C)
    if positions == "windows":
        expected = resize_space(model.pos_embed.detach(), (56, 56), (80, 64), (8, 8))
        expected = expected.view(80, 64, -1)
    else:
        x = model.pos_embed.detach().view(1, 56, 56, -1).permute(0, 3, 1, 2)
        x = nn.functional.interpolate(x, (80, 64), mode="bicubic", antialias=True)
        expected = x[0].permute(1, 2, 0)
    units = expected.view(10, 8, 8, 8, -1).permute(0, 2, 1, 3, 4).reshape(80, 8, 8, -1)
    torch.testing.assert_close(maps[0], units, atol=1e-5, rtol=1e-5)
    assert model.no_weight_decay() == {"pos_embed"}


def test_at_the_size_of_pretraining_maps_are_those_of_the_classifier():
    classifier = create_model("hiera_tiny_224", **SMALL)
    randomize(classifier)
    model = small_detector()
    model.load_state_dict(classifier.state_dict(), strict=False)
    images = torch.randn(1, 3, 224, 224)
    stages = classifier.forward_features(images, return_stages=True)
    norms = [*model.stage_norms, model.norm]
    maps = {
        str(i): n(x).permute(0, 3, 1, 2) for i, (n, x) in enumerate(zip(norms, stages, strict=True))
    }
    expected = model.fpn(maps)
    assert [m.shape[2] for m in expected.values()] == [56, 28, 14, 7, 4]
    torch.testing.assert_close(model.pyramid(images), expected)


def cost_at_1024(name):
    """Of a detector for COCO, with the most boxes that a picture has in each of its heads.

    Choosing boxes costs no multiply-adds, and RoIAlign is not counted.
    """
    with torch.device("meta"):
        model = MaskRCNNHiera(**{**model_arguments(name), "num_classes": 80})
        image = torch.empty(1, 3, 1024, 1024)

    def run():
        maps = model.pyramid(image)
        model.rpn.head(list(maps.values()))
        heads, channels = model.roi_heads, maps["0"].shape[1]
        boxes = torch.empty(PROPOSALS, channels, *heads.box_roi_pool.output_size, device="meta")
        heads.box_predictor(heads.box_head(boxes))
        boxes = torch.empty(DETECTIONS, channels, *heads.mask_roi_pool.output_size, device="meta")
        heads.mask_predictor(heads.mask_head(boxes))

    return cost_of(model, run)


@pytest.mark.parametrize("name", PAPER)
def test_size_beside_the_papers(name):
    """B has the paper's 73M. All three are its numbers, cut off, with the classifier's head."""
    cost = cost_at_1024(f"hiera_{name}_224")
    millions, head = PAPER[name]
    assert math.floor(cost.parameters / 1e6 + head) == millions
    assert abs(cost.parameters / 1e6 - millions) < 1.1


def test_cost_at_1024():
    cost = cost_at_1024("hiera_base_224")
    assert cost.multiply_adds / 1e9 == pytest.approx(730, abs=0.5)
    tokens, blocks = 4096, 15  # of stage 3, and its blocks that attend globally
    attention = 2 * tokens**2 * 384 * blocks + 2 * 4096 * 1024 * 768 + 2 * 1024**2 * 768 * 2
    assert 500 < (cost.multiply_adds - attention) / 1e9 < 550


def test_weights_of_classifiers_and_autoencoders_start_it(tmp_path, capsys):
    classifier = create_model("hiera_tiny_224", **SMALL, num_classes=5)
    mae = create_mae(
        "hiera_tiny_224", **SMALL, decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=1
    )
    for source, norm in ((classifier, "norm"), (mae, "encoder_norm")):
        randomize(source)
        torch.save({"model_state": source.state_dict()}, tmp_path / "source.pth")
        model = small_detector()
        before = copy.deepcopy(model.rpn.state_dict())
        report = load_weights(model, tmp_path / "source.pth")
        assert "new: stage_norms, fpn, rpn, roi_heads" in capsys.readouterr().out
        weights = source.state_dict()
        assert torch.equal(model.pos_embed, weights["pos_embed"])
        assert torch.equal(model.norm.weight, weights[f"{norm}.weight"])
        assert torch.equal(model.blocks[3].mlp.fc2.bias, weights["blocks.3.mlp.fc2.bias"])
        torch.testing.assert_close(model.rpn.state_dict(), before)
        assert not report.resized


def test_weights_of_a_detector_keep_all_but_the_classes(tmp_path):
    source = small_detector()
    randomize(source)
    torch.save({"model_state": source.state_dict()}, tmp_path / "source.pth")
    same, other = small_detector(), small_detector(num_classes=5)
    assert not load_weights(same, tmp_path / "source.pth", quiet=True).missing
    assert all(map(torch.equal, same.state_dict().values(), source.state_dict().values()))
    report = load_weights(other, tmp_path / "source.pth", quiet=True)
    assert len(report.missing) == 6
    assert all("predictor" in name for name in report.missing)
    damaged = {k: v for k, v in source.state_dict().items() if "fpn" not in k}
    torch.save({"model_state": damaged}, tmp_path / "damaged.pth")
    with pytest.raises(CheckpointError, match="missing: fpn"):
        load_weights(same, tmp_path / "damaged.pth")
    with pytest.raises(CheckpointError, match="not in the model: stage_norms"):
        load_weights(create_model("hiera_tiny_224", **SMALL), tmp_path / "source.pth")


def test_is_exported_and_read_back(tmp_path):
    model = small_detector()
    arguments = {**SMALL, **HEADS, "num_classes": 3}
    description = Description(
        "mask_rcnn", "hiera_tiny_224", arguments, ("a", "b", "c"), None, (0.5,) * 3, (0.5,) * 3, "x"
    )
    write_model(tmp_path, model, description)
    again = read_model(tmp_path, "mask_rcnn")
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": "tiled"}, "positions must be windows or interpolate"),
        ({"box_samples": 0}, "box_samples must be at least 1, not 0"),
        ({"stages": (1, 1, 1)}, "needs four stages"),
        ({"input_size": (4, 224, 224)}, "objects are detected in pictures"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_detector(**{"q_pool": 2, **arguments})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 100, 128), "a multiple of 32"),
        (torch.zeros(1, 3, 128, 128, dtype=torch.uint8), "normalised float"),
    ],
)
def test_wrong_pictures(images, message):
    with pytest.raises(ValueError, match=message):
        small_detector().eval()(images, [(100, 128)])


def slow_value(mask, box, row, column):
    """A mask at the centre of a pixel, interpolated between the middles of its cells."""
    cells = mask.shape[0]
    x = (column + 0.5 - box[0]) / (box[2] - box[0]) * cells - 0.5
    y = (row + 0.5 - box[1]) / (box[3] - box[1]) * cells - 0.5
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < cells and 0 <= j < cells:
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * float(mask[i, j])
    return total


@pytest.mark.parametrize(
    "box",
    [(3.3, 2.7, 11.9, 9.2), (0, 0, 7, 7), (-4.5, -3, 8, 5.5), (10.2, 6.6, 25, 17), (5, 5, 6, 5.5)],
)
def test_masks_are_drawn_where_they_belong(box):
    torch.manual_seed(0)
    mask = torch.rand(7, 7, dtype=torch.float64)
    part, (top, left) = paste_mask(mask, torch.tensor(box), 12, 16)
    drawn = torch.zeros(12, 16, dtype=torch.bool)
    drawn[top : top + part.shape[0], left : left + part.shape[1]] = part
    value = [[slow_value(mask, box, y, x) for x in range(16)] for y in range(12)]
    inside = [
        [box[0] <= x + 0.5 <= box[2] and box[1] <= y + 0.5 <= box[3] for x in range(16)]
        for y in range(12)
    ]
    expected = (torch.tensor(value) >= 0.5) & torch.tensor(inside)
    assert ((drawn == expected) | ~torch.tensor(inside)).all()
    assert paste_mask(mask, torch.tensor([-9.0, 1, -2, 5]), 12, 16)[0].numel() == 0
