"""What several clips of one file cost beside one, and beside all frames.

    python benchmarks/clips_of_one_file.py [--files 4] [--turns 6] [FILE ...]

CPU seconds of one thread, opening the file included, on Kinetics-like files (340x256, H.264, one
keyframe, 10 s) that are written for it unless some are given: clips of 16 frames, stride 4, cropped
and scaled to 224 as in training; five temporal views, scaled as in a test; and every frame, decoded
in order and converted to RGB. All ways take turns. Prints a Markdown table.
"""

import argparse
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch

from datamodules import ClipFormat, make_manifest
from datamodules.clips.videos import EvaluationViews, TrainingClips
from hiera_video.commands.decode_rate import write_kinetics_like


def every_frame(path: str) -> None:
    """Decode all frames in order, and convert each."""
    with av.open(path) as container:
        codec = container.streams.video[0].codec_context
        codec.thread_count, codec.thread_type = 1, "NONE"
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("videos", nargs="*", metavar="FILE")
    parser.add_argument("--files", type=int, default=4, help="to write")
    parser.add_argument("--turns", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.videos or [f"{folder}/{i}.mp4" for i in range(arguments.files)]
        if not arguments.videos:
            for i, path in enumerate(paths):
                write_kinetics_like(Path(path), i)
        manifest = make_manifest(paths, [0] * len(paths), ["any"])
        clip = ClipFormat(16, 4, 30.0, 224, 224)
        crop = (0.5, 1.0), (3 / 4, 4 / 3)
        sets = {
            f"{n} clips": TrainingClips(manifest, clip, n, *crop, seed=0).__getitem__
            for n in (1, 2, 4)
        }
        sets["5 views"] = EvaluationViews(manifest, clip, (5, 1), seed=0).__getitem__
        ways = {**sets, "every frame": lambda key: every_frame(paths[key[1]])}
        seconds = dict.fromkeys(ways, 0.0)
        for turn in range(arguments.turns + 1):
            for index in range(len(paths)):
                for way, read in ways.items():
                    start = time.process_time()
                    read((turn, index))
                    seconds[way] += (time.process_time() - start) if turn else 0.0  # 0 warms up
    count = arguments.turns * len(paths)
    print("| | CPU ms | of one clip | of every frame |\n|---|--:|--:|--:|")
    for way, spent in seconds.items():
        shares = (np.float64(spent) / seconds[other] for other in ("1 clips", "every frame"))
        print(
            f"| {way} | {spent / count * 1e3:.0f} | "
            + " | ".join(f"{s:.2f}" for s in shares)
            + " |"
        )


if __name__ == "__main__":
    main()
