"""Draw the picture of docs/saliency.md: the map of a network that learned a square's colour.

python -m docs.saliency
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hiera_video.predicting.batches import ClipNetwork
from hiera_video.predicting.saliency import Saliency, saliency_map
from hiera_video.predicting.saliency_files import saliency_sheet
from tests.coloured_squares import CLASSES, CLIP, coloured_squares, trained

PICTURE = Path(__file__).with_suffix(".png")
STAGE = 2
LABEL = "blue"


def sheet() -> Image.Image:
    """Train the network of the checks, and draw its map of a new clip."""
    network = ClipNetwork(trained(), device="cpu")
    clips, label = coloured_squares(8, seed=1_000_000), CLASSES.index(LABEL)
    clip = clips.video[int(np.argmax(clips.labels == label))]  # uint8 (T, H, W, 3)
    softmax = partial(torch.softmax, dim=1)
    heat, peak = saliency_map(network, clip, label, softmax, lambda _: {}, "grad_cam", STAGE)
    pixels = torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3)  # (1, 3, T, H, W)
    with torch.inference_mode():
        scores = softmax(network.run(network.normalized(pixels)))[0]
    times = np.arange(CLIP.num_frames) * CLIP.stride / CLIP.fps
    return saliency_sheet(
        Saliency(clip, heat, peak, LABEL, float(scores[label]), "grad_cam", times)
    )


if __name__ == "__main__":
    sheet().save(PICTURE, optimize=True)
