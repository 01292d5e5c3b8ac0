"""The augmentation of training clips, apart from mixing."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hiera_video.augment.basic import FLIP_STREAM, Normalize
from hiera_video.augment.erasing import Box, RandomErasing
from hiera_video.augment.rand_augment import Operation, RandAugment
from hiera_video.augment.random import uniform


class Draw(NamedTuple):
    """What happens to each of ``B`` clips, as plain numbers that stay on the host.

    Attributes:
        flip: whether the clip is mirrored.
        operations: of RandAugment, in order; none if it is off.
        boxes: the part that is erased; None if nothing is.
    """

    flip: list[bool]
    operations: list[list[Operation]]
    boxes: list[Box | None]


class Augmentation(nn.Module):
    """Flip, RandAugment, normalise and erase, in this order, each clip by its own seed alone.

    What happens is drawn on the host before the batch goes to the device. So the device never
    waits, and it works only on clips for which something was drawn. The result for a clip is the
    same in every batch, and on every device up to rounding.

    Args:
        horizontal_flip: mirror half of the clips.
        rand_augment: None: off.
        erasing: None: off.
        normalize: with the mean and deviation that the model expects; None: `Normalize()`.
    """

    def __init__(
        self,
        *,
        horizontal_flip: bool = True,
        rand_augment: RandAugment | None = None,
        erasing: RandomErasing | None = None,
        normalize: Normalize | None = None,
    ) -> None:
        super().__init__()
        self.horizontal_flip, self.rand_augment = horizontal_flip, rand_augment
        self.erasing, self.normalize = erasing, normalize or Normalize()

    def draw(self, seed: Tensor, size: tuple[int, int]) -> Draw:
        """Draw what happens to each clip.

        Args:
            seed: int64 ``(B,)`` on the CPU.
            size: height and width of the clips, pixels.
        """
        flip = uniform(seed, 1, stream=FLIP_STREAM)[:, 0] < 0.5 * self.horizontal_flip
        return Draw(
            flip.tolist(),
            self.rand_augment.draw(seed) if self.rand_augment else [[] for _ in seed],
            self.erasing.draw(seed, size) if self.erasing else [None for _ in seed],
        )

    def move_boxes(self, boxes: Tensor, box_clip: Tensor, draw: Draw) -> Tensor:
        """Move boxes along with the picture, on the CPU.

        Args:
            boxes: ``(N, 4)``: x1, y1, x2, y2 in [0, 1] of their clip.
            box_clip: int64 ``(N,)``: the clip that each box belongs to.
            draw: what will happen to the clips.

        Returns:
            ``(N, 4)``; the boxes of mirrored clips are mirrored.
        """
        x1, y1, x2, y2 = boxes.unbind(1)
        mirrored = torch.stack([1 - x2, y1, 1 - x1, y2], dim=1)
        return torch.where(torch.tensor(draw.flip)[box_clip, None], mirrored, boxes)

    @torch.no_grad()
    def forward(self, video: Tensor, draw: Draw) -> Tensor:
        """Augment and normalise a batch.

        Args:
            video: uint8 ``(B, 3, T, H, W)``.
            draw: from `draw`, for these clips.

        Returns:
            float32 ``(B, 3, T, H, W)``, normalised.

        Raises:
            ValueError: the video is not uint8, or has another number of clips than the draw.
        """
        if video.dtype != torch.uint8:
            raise ValueError(f"augmentation takes uint8 clips, not {video.dtype}")
        if len(video) != len(draw.flip):
            raise ValueError(f"expected the {len(draw.flip)} clips of the draw, not {len(video)}")
        clips = []
        for clip, flip, operations in zip(video, draw.flip, draw.operations, strict=True):
            clip = clip.flip(-1) if flip else clip
            clips.append(self.rand_augment(clip, operations) if self.rand_augment else clip)
        out = self.normalize(torch.stack(clips))
        for clip, box in zip(out, draw.boxes, strict=True):
            if self.erasing and box:
                self.erasing(clip, box)
        return out
