"""Draw the animated reconstructions of the README: clips, what a model sees, what it makes of it.

python -m hiera_video fit --config demo/actions_pretrain run_dir=RUN
python -m docs.reconstructions RUN VIDEO...

The README's videos are the first ones in the test split of raise_arms, kick_left, bow_right, squat,
windmill_left and jump.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from hiera_video import load
from hiera_video.visualize.reconstruction import moving_pictures

PICTURE = Path(__file__).with_suffix(".gif")
SCALE = 2  # pixels of the demo are few
SHOWN = 3  # clip, what the model sees, reconstruction; the prediction alone would be the same here


def animated(run: str | Path, videos: Sequence[str | Path], milliseconds: int = 300) -> bytes:
    """Reconstructions of videos side by side, as the bytes of a GIF.

    Args:
        run: a pretraining whose target is ``pixels``.
        videos: files.
        milliseconds: duration of a frame.
    """
    model = load(run)
    results = [model.reconstruct(video) for video in videos]
    rows = torch.stack([torch.from_numpy(result.rows[:SHOWN]) for result in results])
    rows = rows.repeat_interleave(SCALE, 3).repeat_interleave(SCALE, 4)  # (B, R, T', 2H, 2W, 3)
    return moving_pictures(rows, results[0].captions[:SHOWN], milliseconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("videos", nargs="+")
    arguments = parser.parse_args()
    PICTURE.write_bytes(animated(arguments.run, arguments.videos))
