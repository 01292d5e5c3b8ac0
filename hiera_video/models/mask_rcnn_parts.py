"""The parts of a Mask R-CNN behind its encoder: torchvision's, with the settings of detectron2.

Wu et al., detectron2, 2019, with which the paper's detectors were trained. What differs between the
two is written here as in detectron2. None of that has parameters of its own, so weights have the
names that torchvision gives them.

Legend: B pictures, N boxes of a batch, K classes.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection import faster_rcnn, mask_rcnn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

ANCHORS = (32, 64, 128, 256, 512)  # side in pixels, one for each map of the FPN
RATIOS = (0.5, 1.0, 2.0)  # height / width of anchors
PROPOSALS = 1000  # of a picture, in training and in evaluation
DETECTIONS = 100  # of a picture, at most
# A box of this side in pixels is looked up in the map with this stride (Lin et al., FPN, 2017).
CANONICAL_SIDE, CANONICAL_STRIDE = 224, 16


class Anchors(AnchorGenerator):
    """Anchors that are not rounded to whole pixels."""

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Boxes around zero, float ``(ratios * scales, 4)``, in pixels."""
        roots = [math.sqrt(ratio) for ratio in aspect_ratios]  # ratio: height / width
        sides = [(scale / root, scale * root) for root in roots for scale in scales]
        half = torch.tensor(sides, dtype=dtype, device=device) / 2
        return torch.cat((-half, half), dim=1)


class ProposalNetwork(RegionProposalNetwork):
    """An RPN whose losses are sums over the sampled anchors, of boxes in L1.

    They are divided by the number of anchors that were to be sampled.
    """

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The losses of objectness and of boxes, as torchvision calls it."""
        objects, others = (torch.cat(chosen).bool() for chosen in self.fg_bg_sampler(labels))
        chosen, wanted = objects | others, torch.cat(regression_targets)
        scores, truth = objectness.flatten()[chosen], torch.cat(labels)[chosen]
        score_loss = F.binary_cross_entropy_with_logits(scores, truth, reduction="sum")
        box_loss = F.l1_loss(pred_bbox_deltas[objects], wanted[objects], reduction="sum")
        count = len(labels) * self.fg_bg_sampler.batch_size_per_image
        return score_loss / count, box_loss / count


class RoIPool(nn.Module):
    """RoIAlign with half-pixel alignment, and as many samples in a bin as it has cells of the map.

    The scale of a map comes from its size, so pictures may fill any part of a batch.

    Args:
        maps: names of the maps, from fine to coarse.
        side: of the result, cells.
        stride: of the first map, pixels.

    Attributes:
        output_size: height and width of the result.
    """

    def __init__(self, maps: Sequence[str], side: int, stride: int) -> None:
        super().__init__()
        self.maps, self.output_size, self.stride = tuple(maps), (side, side), stride

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Any = None) -> Tensor:
        """Sample each box in the map that suits its size.

        Args:
            maps: float ``(B, C, H', W')`` by name.
            boxes: of each picture, ``(n, 4)`` in pixels.
            sizes: of the pictures; not needed.

        Returns:
            ``(N, C, side, side)``, picture by picture.
        """
        levels = [maps[name] for name in self.maps]
        height = self.stride * levels[0].shape[2]  # of the batch, pixels
        rows = torch.cat([F.pad(box, (1, 0), value=i) for i, box in enumerate(boxes)])  # (N, 5)
        area = (rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2])
        octave = math.log2(CANONICAL_STRIDE / self.stride)
        wanted = (torch.log2(area.sqrt() / CANONICAL_SIDE + 1e-8) + octave).floor()
        wanted = wanted.clamp(0, len(levels) - 1)
        pooled = rows.new_zeros(len(rows), levels[0].shape[1], *self.output_size)
        for number, x in enumerate(levels):
            (here,) = torch.where(wanted == number)
            scale = x.shape[2] / height
            pooled[here] = roi_align(x, rows[here], self.output_size, scale, 0, aligned=True)
        return pooled


class Heads(RoIHeads):
    """Heads of boxes and masks: boxes learn by L1, masks from what is seen in at least half a cell.

    Their layers start from detectron2's random weights, and without biases.
    """

    mask_roi_pool: nn.Module  # torchvision's may be missing
    mask_head: nn.Module
    mask_predictor: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.box_predictor.cls_score.weight, std=0.01)
        nn.init.normal_(self.box_predictor.bbox_pred.weight, std=0.001)
        nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.001)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections and no losses in evaluation mode, losses and no detections in training."""
        if not self.training or targets is None:
            return super().forward(features, proposals, image_shapes, targets)
        boxes, matches, labels, wanted = self.select_training_samples(proposals, targets)
        classes, wanted = torch.cat(labels), torch.cat(wanted)  # (N,), (N, 4)
        x = self.box_head(self.box_roi_pool(features, boxes, image_shapes))
        scores, offsets = self.box_predictor(x)  # (N, 1 + K), (N, 4 + 4 * K)
        objects = classes > 0
        offsets = offsets.unflatten(1, (-1, 4))[objects, classes[objects]]
        box_loss = F.l1_loss(offsets, wanted[objects], reduction="sum") / len(classes)

        chosen = [label > 0 for label in labels]
        boxes = [box[c] for box, c in zip(boxes, chosen, strict=True)]
        matches = [match[c] for match, c in zip(matches, chosen, strict=True)]
        x = self.mask_head(self.mask_roi_pool(features, boxes, image_shapes))
        masks = self.mask_predictor(x)  # (objects, 1 + K, 28, 28)
        masks = masks[torch.arange(len(masks), device=masks.device), classes[objects]]
        truth = [
            mask_targets(target["masks"], box, match, masks.shape[1])
            for target, box, match in zip(targets, boxes, matches, strict=True)
        ]
        mask_loss = F.binary_cross_entropy_with_logits(masks, torch.cat(truth), reduction="sum")
        return [], {
            "loss_classifier": F.cross_entropy(scores, classes),
            "loss_box_reg": box_loss,
            "loss_mask": mask_loss / max(1, masks.numel()),
        }


def mask_targets(masks: Tensor, boxes: Tensor, matches: Tensor, side: int) -> Tensor:
    """What the mask of each box should be.

    Args:
        masks: of the objects, ``(M, H, W)``, 0 or 1.
        boxes: float ``(n, 4)`` in pixels.
        matches: index of the object of each box, int64 ``(n,)``.
        side: of the result, cells.

    Returns:
        float ``(n, side, side)``: 1 where the object fills at least half a cell, else 0.
    """
    rows = torch.cat((matches[:, None].to(boxes), boxes), dim=1)  # (n, 5)
    seen = roi_align(masks[:, None].to(boxes), rows, (side, side), 1.0, 0, aligned=True)
    return (seen[:, 0] >= 0.5).to(boxes)


def feature_pyramid(dims: Sequence[int], width: int) -> nn.Module:
    """The FPN on maps with so many channels each, whose own maps all have `width`."""
    return FeaturePyramidNetwork(list(dims), width, LastLevelMaxPool())


def proposal_network(width: int) -> Any:
    """The RPN on maps with `width` channels."""
    anchors = Anchors(tuple((side,) for side in ANCHORS), (RATIOS,) * len(ANCHORS))
    return ProposalNetwork(
        anchors,
        RPNHead(width, len(RATIOS), conv_depth=2),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2000, "testing": 1000},
        post_nms_top_n={"training": PROPOSALS, "testing": PROPOSALS},
        nms_thresh=0.7,
    )


def box_and_mask_heads(
    outputs: int, width: int, features: int, samples: int, min_score: float, stride: int
) -> Any:
    """The heads of boxes and masks; see `MaskRCNNHiera`.

    Args:
        outputs: number of classes, the background included.
        width: channels of the maps and of the convolutions.
        features: of a box, after the fully connected layer.
        samples: boxes of a picture that a training step learns from.
        min_score: detections with a lower score are dropped.
        stride: of the first map, pixels.
    """
    # LayerNorm2d is over the channels of each position.
    norm, maps, convolutions = partial(LayerNorm2d, eps=1e-6), ["0", "1", "2", "3"], [width] * 4
    return Heads(
        box_roi_pool=RoIPool(maps, 7, stride),
        box_head=faster_rcnn.FastRCNNConvFCHead((width, 7, 7), convolutions, [features], norm),
        box_predictor=faster_rcnn.FastRCNNPredictor(features, outputs),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=samples,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=min_score,
        nms_thresh=0.5,
        detections_per_img=DETECTIONS,
        mask_roi_pool=RoIPool(maps, 14, stride),
        mask_head=mask_rcnn.MaskRCNNHeads(width, convolutions, 1, norm),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(width, width, outputs),
    )
