"""A video of three persons who are black or white, and a network that says which."""

import numpy as np
import torch

from datamodules.clips.format import ClipFormat
from datamodules.synthetic import write_h264
from hiera_video.predicting.actions import ActionPredictor

CLIP = ClipFormat(num_frames=4, stride=2, fps=30, height=64, width=64)


class Network(torch.nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, video, boxes, box_clip):
        return self.function(video, boxes, box_clip)


class Brightness(torch.nn.Module):
    """Says how bright a box is, at the keyframe and at the first frame."""

    def __init__(self):
        super().__init__()
        self.clips = []

    def forward(self, video, boxes, box_clip):
        assert video.shape[1:] == (3, 4, 64, 64)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        self.clips.append(len(video))
        return brightness(video, boxes, box_clip)


def brightness(video, boxes, box_clip):
    """Logits of boxes at the keyframe and at the first frame."""
    height, width = video.shape[-2:]
    pixels = (boxes * torch.tensor([width, height, width, height])).round().int()
    logits = []
    for (x1, y1, x2, y2), clip in zip(pixels.tolist(), box_clip.tolist(), strict=True):
        inside = video[clip, :, :, y1:y2, x1:x2].mean(dim=(0, 2, 3))  # -2 black, 2.4 white
        logits.append(torch.stack([inside[2], inside[0]]) * 4)
    return torch.stack(logits)


# Each has a third of a wide frame; all change from black to white (or back) with the second.
SECONDS = 11


def write_hall(folder):
    """Write hall.mp4 and boxes.csv, nobody being there at second 4; returns who is white when."""
    rows = []
    rng = np.random.default_rng(0)
    white = rng.random((SECONDS, 3)) < 0.5
    frames = np.zeros((SECONDS * 30 - 6, 72, 216, 3), np.uint8)
    for i, frame in enumerate(frames):
        for person in range(3):
            frame[:, 72 * person : 72 * person + 72] = 230 * white[(i + 3) // 30 % SECONDS, person]
    for second in range(0, SECONDS):
        for person in range(3):
            if second != 4:
                x = person / 3
                rows.append(f"hall,{second:04d},{x + 0.06:.3f},0.2,{x + 0.27:.3f},0.8,,0.5\n")
    write_h264(folder / "hall.mp4", frames)
    (folder / "boxes.csv").write_text("".join(rows))
    return white


def predictor(network=None, **kwargs):
    """Says of each person whether they are bright."""
    names = ["bright, now", "bright before"]
    return ActionPredictor(network or Brightness(), names, CLIP, device="cpu", **kwargs)
