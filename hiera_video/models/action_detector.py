"""Action detection: a Hiera whose classifier sees one box at a time.

Hiera, appendix A.1, after Feichtenhofer et al., "SlowFast Networks", 2019, section 5: the features
of a box are taken from the last map, reduced to their spatial maximum, and classified linearly.

Legend: B clips, N boxes of all clips together, C channels, T' H' W' a map of tokens, R samples of a
box along each axis.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.models.blocks import Head
from hiera_video.models.hiera import Hiera


class HieraActionDetector(Hiera):
    """Scores the actions in each box of a clip.

    The map of the last stage is normed at each place, averaged over time, and sampled within the
    box (RoIAlign, He et al., 2017, with half-pixel alignment). Then come the maximum over the box,
    dropout and a linear map. The paper does not say where the norm belongs. A classifier has it
    after the mean over all tokens. Here it comes before any pooling, as in PySlowFast's MViT, the
    framework of the paper: without a norm, the few largest tokens would decide every maximum.

    The weights have the names and shapes of a classifier's, so `load_weights` starts a detector
    from a classifier, with a new head.

    The head computes what pytorchvideo's ``create_res_roi_pooling_head`` does with
    ``RoIAlign(aligned=True)``; a test compares the two. That head is not used because it raises if
    a batch has no box, and because neither a classifier's checkpoint nor layer-wise decay fits the
    names of its weights.

    Args:
        input_size: ``(frames, height, width)`` in pixels.
        num_classes: number of actions.
        head_dropout: probability of dropout before the linear map.
        head_init_scale: factor on the initial weights of the linear map.
        roi_size: R.
        multi_scale: use the stage before the last as well. Each map is sampled at its own stride
            (16 and 32 pixels as published), and their channels are concatenated. The earlier map is
            normed without learned weights, as no checkpoint has any for it.
        **encoder: further arguments of `Hiera`.

    Raises:
        ValueError: arguments that do not go together.
    """

    def __init__(
        self,
        input_size: Sequence[int] = (16, 224, 224),
        num_classes: int = 80,
        head_dropout: float = 0.0,
        head_init_scale: float = 0.001,
        roi_size: int = 7,
        multi_scale: bool = False,
        **encoder: Any,
    ) -> None:
        if len(input_size) != 3:
            raise ValueError(
                f"actions are detected in videos: input_size must be (frames, height, width), not "
                f"{tuple(input_size)}"
            )
        super().__init__(
            input_size,
            num_classes=num_classes,
            head_dropout=head_dropout,
            head_init_scale=head_init_scale,
            **encoder,
        )
        if roi_size < 1:
            raise ValueError(f"roi_size must be positive, not {roi_size}")
        if multi_scale and len(self.stage_dims) < 2:
            raise ValueError("multi_scale needs two stages")
        self.roi_size = roi_size
        last = len(self.stage_dims) - 1
        self.seen_stages = [last - 1, last] if multi_scale else [last]
        if multi_scale:
            self.head = Head(sum(self.stage_dims[-2:]), num_classes, head_dropout)
            nn.init.trunc_normal_(self.head.projection.weight, std=0.02 * head_init_scale)
            nn.init.zeros_(self.head.projection.bias)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, video: Tensor, boxes: Tensor, box_clip: Tensor
    ) -> Tensor:
        """Score the actions in boxes.

        Args:
            video: normalised float ``(B, 3, T, H, W)``.
            boxes: float ``(N, 4)``: x1, y1, x2, y2 as shares of the clip's width and height, in
                [0, 1]; N may be 0. A box without area, such as that of a person outside the crop,
                has features of zero.
            box_clip: int64 ``(N,)``: index of the clip of each box, in [0, B).

        Returns:
            Logits ``(N, classes)``. Their sigmoids are probabilities; a box may have several
            actions. In evaluation they have the type of the weights, also under autocast.

        Raises:
            ValueError: another shape.
            RuntimeError: `box_clip` is out of range; on a GPU it may come later.
        """
        if boxes.shape != (len(box_clip), 4) or box_clip.ndim != 1:
            raise ValueError(
                f"expected boxes (N, 4) and box_clip (N,), got {tuple(boxes.shape)} and "
                f"{tuple(box_clip.shape)}"
            )
        inside = ((box_clip >= 0) & (box_clip < len(video))).all()
        # An if would wait for the device.
        torch._assert_async(inside, "box_clip names a clip that is not in the batch")  # pyright: ignore
        sampled = [sample_boxes(m, boxes, box_clip, self.roi_size) for m in self.box_maps(video)]
        boxed = torch.cat(sampled, dim=1).amax(dim=(2, 3))  # (N, C, R, R) -> (N, C)
        return self.head(boxed.to(self.head.projection.weight.dtype))

    def box_maps(self, video: Tensor) -> list[Tensor]:
        """Compute the maps that boxes are sampled from.

        Args:
            video: as in `forward`.

        Returns:
            One ``(B, C, H', W')``, or with `multi_scale` two, the finer one first.
        """
        maps = []
        for stage, x in zip(
            self.seen_stages, self.stage_maps(video, self.seen_stages), strict=True
        ):
            is_last = stage == self.seen_stages[-1]  # x: (B, T', H', W', C)
            x = self.norm(x) if is_last else F.layer_norm(x, x.shape[-1:], eps=self.norm.eps)
            maps.append(x.mean(dim=1).permute(0, 3, 1, 2))  # (B, C, H', W')
        return maps


def sample_boxes(features: Tensor, boxes: Tensor, box_clip: Tensor, size: int) -> Tensor:
    """Sample the features in boxes by RoIAlign.

    In float32 whatever the precision: in bfloat16 an edge would move by up to a pixel.

    Args:
        features: ``(B, C, H', W')``.
        boxes: ``(N, 4)``, x1, y1, x2, y2 as shares of the frame, in [0, 1].
        box_clip: ``(N,)``, index of the map of each box, in [0, B).
        size: R.

    Returns:
        float32 ``(N, C, R, R)``.
    """
    from torchvision.ops import roi_align  # which only detectors need, and which loads slowly

    height, width = features.shape[-2:]
    x1, y1, x2, y2 = boxes.float().unbind(1)
    # A share times the size of the map is pixels divided by the stride.
    columns = [box_clip.float(), x1 * width, y1 * height, x2 * width, y2 * height]
    return roi_align(features.float(), torch.stack(columns, dim=1), size, aligned=True)
