"""Pictures and videos of white squares, and a network that finds them."""

import numpy as np
import torch

from datamodules.synthetic import write_h264
from hiera_video.augment.basic import Normalize
from hiera_video.predicting.instances import InstancePredictor

SIDE = 16


class FindsWhite(torch.nn.Module):
    """Finds what is white: an object of class 1 that scores 0.9, one of class 2 that scores 0.3."""

    input_size, pixels = (64, 64), (32, 32)

    def forward(self, images, sizes):
        (image,), ((height, width),) = images, sizes
        rows, columns = torch.nonzero(image[:, :height, :width].mean(0) > 0.75, as_tuple=True)
        count = 2 * bool(len(rows))
        box = [f(x) + n for n, f in ((0, min), (1, max)) for x in (columns, rows)] if count else []
        return [
            {
                "boxes": torch.tensor([box] * count, dtype=torch.float32).reshape(count, 4),
                "labels": torch.tensor([1, 2][:count], dtype=torch.int64),
                "scores": torch.tensor([0.9, 0.3][:count]),
                "masks": torch.ones(count, 1, 28, 28),
            }
        ]


def predictor(names=("square", "blob"), ids=(7, 12)):
    """Of pictures that are scaled and padded to 64 x 128."""
    return InstancePredictor(
        FindsWhite(), names, (64, 128), ids, Normalize((0, 0, 0), (1, 1, 1)), "cpu"
    )


def picture(left, top=20, size=(64, 128)):
    """Grey, with a white square; without one if ``left`` is None."""
    pixels = np.full((*size, 3), 60, np.uint8)
    if left is not None:
        pixels[top : top + SIDE, left : left + SIDE] = 255
    return pixels


def write_video(path, lefts):
    """A second has 30 frames; of each, the left side of its square."""
    write_h264(path, np.stack([picture(left) for left in lefts]))
    return path
