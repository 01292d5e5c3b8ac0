"""What `prepare --transcode` gains and costs, for each of its settings.

    python benchmarks/transcoding.py [CLIP ...] [--clips 24]

From each video (two that are generated, unless some are given) ten seconds become two sources, as
Kinetics has them: 340x256 and 1920x1080, H.264, 30 frames a second, GOP 250, B-frames. Each is
transcoded with the defaults but for one setting. Then random training clips (16 frames, stride 4,
a random part scaled to 224x224) are read from sources and new files in turns, so that all see the
same machine. Prints Markdown tables, means over the videos:

* speed: clips a second of CPU time, opening the file included, as a multiple of the source's;
* size: as a multiple of the source's;
* PSNR: to the source's frames scaled to the new size, dB;
* cost: seconds of CPU to transcode ten seconds, verifying included.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from datamodules import VideoFile
from datamodules.clips.sampling import clip_times, random_clip_start, random_resized_crop
from datamodules.video.transcoding import Encoding, peak_signal_to_noise, transcode
from hiera_video.commands.decode_rate import write_kinetics_like

DEFAULT = Encoding()
SETTINGS = {
    "**default**": DEFAULT,
    **{f"GOP {n}": replace(DEFAULT, gop=n) for n in (8, 16, 64, 250)},
    **{f"CRF {n}": replace(DEFAULT, crf=n) for n in (17, 23, 26)},
    "CABAC": replace(DEFAULT, cabac=True),
    **{f"short side {n}": replace(DEFAULT, short_side=n) for n in (224, 320, 480)},
}
SOURCES = {
    "340x256": (340, 256, {"crf": "20", "g": "250"}),
    "1920x1080": (1920, 1080, {"crf": "20", "g": "250", "preset": "veryfast"}),
}
FRAMES, SPAN = 300, 15 * 4 / 30


@dataclass
class File:
    """A file to read clips from, and what is found out about it."""

    path: Path
    size: int = 0
    psnr: float = 0.0
    cost: float = 0.0
    seconds: float = 0.0  # of CPU, for all clips


def write_source(video: Path, path: Path, width: int, height: int, options: dict[str, str]) -> None:
    """Ten seconds of a video, to and fro if it is shorter, as one file of Kinetics."""
    with av.open(str(video)) as container:
        frames = list(islice(container.decode(video=0), FRAMES))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for i, frame in enumerate(islice(cycle(chain(frames, frames[::-1])), FRAMES)):
            picture = frame.reformat(width, height, "yuv420p", interpolation="BICUBIC")
            picture.pts, picture.time_base, picture.pict_type = i, Fraction(1, 30), 0
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def read_clip(path: Path, seed: int) -> float:
    """Read one clip as training does; returns seconds of CPU."""
    rng, start = np.random.default_rng(seed), time.process_time()
    with VideoFile(path) as file:
        begin = random_clip_start(file.duration, SPAN, rng)
        size = file.width, file.height
        crop = random_resized_crop(*size, 1.0, (0.08, 1.0), (3 / 4, 4 / 3), rng)
        file.frames_at(clip_times(begin, 16, 4, 30), (224, 224), crop)
    return time.process_time() - start


def measured(video: Path, name: str, folder: Path, clips: int) -> dict[str, File]:
    """The source and its new files, by setting."""
    width, height, options = SOURCES[name]
    source = File(folder / f"{video.stem}-{name}.mp4")
    write_source(video, source.path, width, height, options)
    files = {"source": source}
    settings = (
        SETTINGS
        if name == "340x256"
        else dict(islice(SETTINGS.items(), 1))
        | {setting: encoding for setting, encoding in SETTINGS.items() if "side" in setting}
    )
    for i, (setting, encoding) in enumerate(settings.items()):
        file = files[setting] = File(folder / f"{video.stem}-{name}-{i}.mp4")
        start = time.process_time()
        transcode(str(source.path), file.path, encoding)
        file.cost = time.process_time() - start
        times = np.linspace(0.2, 9.8, 12)
        with VideoFile(source.path) as old, VideoFile(file.path) as new:
            expected = old.frames_at(times, (new.height, new.width))
            file.psnr = statistics.mean(map(peak_signal_to_noise, expected, new.frames_at(times)))
    for file in files.values():
        file.size = file.path.stat().st_size
        read_clip(file.path, 0)
    for seed in range(clips):
        for file in files.values():
            file.seconds += read_clip(file.path, seed)
    return files


def print_table(name: str, results: list[dict[str, File]], clips: int) -> None:
    """Print the means over all videos."""
    rate = statistics.mean(clips / files["source"].seconds for files in results)
    size = statistics.mean(files["source"].size for files in results) / 1e6
    print(f"\n{name}: {rate:.1f} clips a second of CPU, {size:.2f} MB\n")
    print("| | speed | size | PSNR | cost |\n|---|--:|--:|--:|--:|")
    for setting in results[0]:
        if setting == "source":
            continue
        pairs = [(files[setting], files["source"]) for files in results]
        speed = statistics.geometric_mean(old.seconds / new.seconds for new, old in pairs)
        size = statistics.geometric_mean(new.size / old.size for new, old in pairs)
        psnr = statistics.mean(new.psnr for new, _ in pairs)
        cost = statistics.mean(new.cost for new, _ in pairs)
        print(f"| {setting} | {speed:.2f} | {size:.2f} | {psnr:.1f} | {cost:.1f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("videos", nargs="*", type=Path, metavar="CLIP")
    parser.add_argument("--clips", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos = arguments.videos
        if not videos:
            videos = [Path(folder, f"generated-{i}.mp4") for i in range(2)]
            for i, video in enumerate(videos):
                write_kinetics_like(video, i)
        for name in SOURCES:
            results = [measured(video, name, Path(folder), arguments.clips) for video in videos]
            print_table(name, results, arguments.clips)


if __name__ == "__main__":
    main()
