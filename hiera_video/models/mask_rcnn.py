"""Instance segmentation: a Mask R-CNN on the maps of a Hiera, all four stages by way of an FPN.

Hiera, section 5 and table 15, after Li et al., "Exploring Plain Vision Transformer Backbones for
Object Detection", 2022 (ViTDet). The detector is made of torchvision's modules.

Legend: B pictures, C channels, H W pixels, H' W' a map of tokens, N instances of one picture.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hiera_video.models.blocks import autocast_type, layer_norm
from hiera_video.models.hiera import Hiera
from hiera_video.models.positions import resize_bicubic, resize_windows
from hiera_video.models.token_order import join_units, unroll

POSITIONS = ("windows", "interpolate")
# What a detector has and a classifier lacks, by the beginnings of the names.
DETECTOR_PARTS = ("stage_norms.", "fpn.", "rpn.", "roi_heads.")
# Of these, what depends on the classes.
PREDICTORS = tuple(
    f"roi_heads.{layer}.{part}"
    for layer in (
        "box_predictor.cls_score",
        "box_predictor.bbox_pred",
        "mask_predictor.mask_fcn_logits",
    )
    for part in ("weight", "bias")
)

Instances = dict[str, Tensor]


class MaskRCNNHiera(Hiera):
    """Finds objects: a box, a class, a score and a mask for each.

    The encoder has the names of a classifier's weights, so `load_weights` starts a detector from a
    classifier or a masked autoencoder. Each stage ends in a LayerNorm, as in MViTv2's detectors;
    that of the last stage is the encoder's own. The paper does not say whether there are any.

    Pictures may have any size that whole mask units fit in: multiples of 32 pixels with the
    published strides. Windows stay mask units, and the last two stages attend globally, as in
    classification. The position embedding is learned at the size of pretraining, `input_size`, and
    resized for each batch, so that a detector has as many parameters as the paper's.

    The heads follow table 15: two hidden convolutions in the RPN; four with LayerNorm and one fully
    connected layer for boxes; four with LayerNorm for masks. LayerNorm is over the channels of each
    position. Thresholds, numbers of samples, anchors, losses, RoIAlign and the weights that layers
    start from are those of detectron2, which the paper used (see `models.mask_rcnn_parts`).

    Args:
        input_size: ``(height, width)`` in pixels that the position embedding is learned at.
        num_classes: number of classes, without the background.
        positions: how the embedding is resized: ``windows`` tiles the pattern within mask units and
            interpolates the rest (see `models.positions`), ``interpolate`` stretches all of it.
        width: channels of the FPN and of the heads' convolutions.
        box_features: features of a box, after the fully connected layer.
        box_samples: boxes of a picture that a training step learns from.
        min_score: detections with a lower score are dropped.
        **encoder: further arguments of `Hiera`.

    Raises:
        ValueError: arguments that do not go together.

    Attributes:
        any_size: pictures need not have the size that the model is made for.
    """

    any_size = True

    def __init__(
        self,
        input_size: Sequence[int] = (224, 224),
        num_classes: int = 80,
        positions: str = "windows",
        width: int = 256,
        box_features: int = 1024,
        box_samples: int = 512,
        min_score: float = 0.05,
        **encoder: Any,
    ) -> None:
        from hiera_video.models.mask_rcnn_parts import (  # imports torchvision, which takes seconds
            box_and_mask_heads,
            feature_pyramid,
            proposal_network,
        )

        if len(input_size) != 2:
            raise ValueError(
                f"objects are detected in pictures: input_size must be (height, width), not "
                f"{tuple(input_size)}"
            )
        sizes = {"width": width, "box_features": box_features, "box_samples": box_samples}
        for name, number in sizes.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        if positions not in POSITIONS:
            raise ValueError(f"positions must be {' or '.join(POSITIONS)}, not {positions!r}")
        super().__init__(input_size, num_classes=num_classes, **encoder)
        if len(self.stage_dims) != 4:
            raise ValueError(f"a Mask R-CNN needs four stages, not {len(self.stage_dims)}")
        self.num_classes, self.positions = num_classes, positions
        self.pixels = tuple(  # of a mask unit
            s * u for s, u in zip(self.patch_stride, self.geometry.unit, strict=True)
        )
        del self.head
        self.stage_norms = nn.ModuleList(layer_norm(dim) for dim in self.stage_dims[:-1])
        self.fpn = feature_pyramid(self.stage_dims, width)
        self.rpn = proposal_network(width)
        self.roi_heads = box_and_mask_heads(
            num_classes + 1, width, box_features, box_samples, min_score, self.patch_stride[0]
        )
        # Under autocast these would be bfloat16, in which boxes are off by several pixels.
        for module in (self.rpn.head, self.roi_heads.box_predictor, self.roi_heads.mask_predictor):
            module.register_forward_hook(_to_float32)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        targets: list[Instances] | None = None,
    ) -> dict[str, Tensor] | list[Instances]:
        """Compute losses in training mode, and detections in evaluation mode.

        Args:
            images: normalised float ``(B, 3, H, W)``, each picture in the upper left corner.
            sizes: height and width of each picture, pixels; the rest is padding.
            targets: in training, for each picture ``boxes`` float32 ``(N, 4)`` (x1, y1, x2, y2 in
                pixels, with an area), ``labels`` int64 ``(N,)`` in [1, num_classes], and ``masks``
                uint8 ``(N, H, W)``, 0 or 1. N may be 0.

        Returns:
            In training, scalars by name, whose sum is the loss. In evaluation, for each picture
            ``boxes`` ``(N, 4)`` within it, ``labels`` ``(N,)``, ``scores`` ``(N,)`` in descending
            order, and ``masks`` ``(N, 1, 28, 28)``: the probability of the object in its box.

        Raises:
            ValueError: another shape, or no targets in training.
        """
        from torchvision.models.detection.image_list import ImageList

        if self.training and targets is None:
            raise ValueError("training needs targets")
        features = self.pyramid(images)
        sizes = [(int(height), int(width)) for height, width in sizes]
        proposals, losses = self.rpn(ImageList(images, sizes), features, targets)
        detections, head_losses = self.roi_heads(features, proposals, sizes, targets)
        return losses | head_losses if self.training else detections

    def pyramid(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Compute the maps that objects are found in.

        Args:
            images: as in `forward`.

        Returns:
            ``"0"``, ``"1"``, ``"2"``, ``"3"`` and ``"pool"``: float32 ``(B, width, H', W')``
            with strides of 4, 8, 16, 32 and 64 pixels, as published.
        """
        unit_grid = self._unit_grid(images)
        norms = [*self.stage_norms, self.norm]
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for stage, x in enumerate(self.encode(images, range(len(norms)))):
            x = join_units(self.unit_maps(norms[stage](x), stage), unit_grid)  # (B, H', W', C)
            maps[str(stage)] = x.permute(0, 3, 1, 2)  # (B, C, H', W')
        # Anchors take the type of the maps, and in bfloat16 they would be off by pixels.
        return OrderedDict((name, x.float()) for name, x in self.fpn(maps).items())

    def embed(self, video: Tensor, kept: Tensor | None = None) -> Tensor:
        """Turn pixels ``(B, 3, H, W)`` into tokens ``(B, U, L, C)`` and add their positions.

        Args:
            video: as ``images`` in `forward`.
            kept: None; no mask unit is hidden from a detector.

        Raises:
            ValueError: another shape, or units that are hidden.
        """
        if kept is not None:
            raise ValueError("a detector sees all mask units")
        unit_grid = self._unit_grid(video)
        tokens = tuple(n * u for n, u in zip(unit_grid, self.geometry.unit, strict=True))
        weight = self.patch_embed.proj.weight
        x = self.patch_embed(video.to(autocast_type(weight.device) or weight.dtype))
        return unroll(x + self._positions_at(tokens), unit_grid, self.levels)

    def _positions_at(self, tokens: tuple[int, ...]) -> Tensor:
        """The position embedding of a grid, ``(1, H'*W', C)``."""
        if tokens == self.geometry.tokens:
            return self.pos_embed
        x = self.pos_embed.transpose(1, 2).unflatten(2, self.geometry.tokens)  # (1, C, H', W')
        if self.positions == "windows":
            x = resize_windows(x, tokens, self.geometry.unit)
        else:
            x = resize_bicubic(x, tokens)
        return x.flatten(2).transpose(1, 2)

    def _unit_grid(self, images: Tensor) -> tuple[int, ...]:
        """Mask units of a batch along each axis."""
        height, width = self.pixels
        size = images.shape[2:]
        if (
            images.ndim != 4
            or images.shape[1] != self.in_chans
            or size[0] % height
            or size[1] % width
        ):
            raise ValueError(
                f"expected images of shape (B, {self.in_chans}, H, W), H a multiple of {height} "
                f"and W of {width}, got {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise ValueError(f"expected normalised float images, got {images.dtype}")
        return size[0] // height, size[1] // width


def paste_mask(
    mask: Tensor, box: Tensor, height: int, width: int
) -> tuple[Tensor, tuple[int, int]]:
    """Draw the mask of a box into a picture, as exactly as it was predicted.

    A pixel is of the object if the mask, interpolated at the centre of the pixel, is at least 0.5.
    Beyond the middles of the mask's outer cells it falls to zero, as in detectron2.

    Args:
        mask: float ``(M, M)``, probabilities.
        box: float ``(4,)``: x1, y1, x2, y2 in pixels of the picture, with an area.
        height: of the picture.
        width: of the picture.

    Returns:
        bool ``(h, w)``, the part of the picture that the box touches; and the row and column of its
        upper left pixel.
    """
    x1, y1, x2, y2 = box.tolist()
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = max(left, min(width, math.ceil(x2))), max(top, min(height, math.ceil(y2)))
    x = (torch.arange(left, right) + 0.5 - x1) / (x2 - x1) * 2 - 1  # (w,), in [-1, 1] of the box
    y = (torch.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * 2 - 1  # (h,)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
    grid = grid.to(mask)
    if not grid.numel():
        return torch.zeros(grid.shape[:2], dtype=torch.bool), (top, left)
    drawn = F.grid_sample(mask[None, None], grid[None], align_corners=False)  # (1, 1, h, w)
    return drawn[0, 0] >= 0.5, (top, left)


def _to_float32(module: nn.Module, args: Any, output: Any) -> Any:
    return tree_map(lambda x: x.float() if isinstance(x, Tensor) else x, output)
