"""Time the reading of one training clip beside other decoders: 16 frames, stride 4, random place.

    python benchmarks/decoding.py [--clips 20] [--files gop250 gop16 1080p mkv avi vp9]
                                  [--folder FOLDER]

Each reader has a process of its own, with one decoder thread; they take turns clip by clip, so that
all see the same machine. What is not installed is named in the table (`pip install decord
torchcodec`; torchcodec takes FFmpeg's shared libraries from the system). Prints a Markdown table:

* clips a second of CPU time, opening the file included: whole frames in RGB; and a random part of
  them scaled to 224 x 224, by torchvision where the reader does not do that itself;
* peak memory: growth of the process over what it took before its first clip;
* largest difference of a pixel, over the first clips, to the frames that decoding in order gives.
"""

import argparse
import importlib.metadata
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

FRAMES, STRIDE, RATE, SECONDS = 16, 4, 30, 10
STEPS = np.arange(FRAMES) * STRIDE
LAST_START = SECONDS * RATE - FRAMES * STRIDE
COMPARED = 2  # clips


class File(NamedTuple):
    """A video that the benchmark writes."""

    name: str
    height: int
    width: int
    codec: str
    options: dict[str, str]


H264 = {"g": "250", "crf": "23"}
FILES = {
    "gop250": File("340x256, H.264, GOP 250", 256, 340, "libx264", H264),
    "gop16": File("340x256, H.264, GOP 16", 256, 340, "libx264", {"g": "16", "crf": "23"}),
    "1080p": File("1920x1080, H.264, GOP 250", 1080, 1920, "libx264", {"preset": "fast"}),
    "mkv": File("340x256, H.264 mkv, GOP 250", 256, 340, "libx264", H264),
    "avi": File("340x256, H.264 AVI, GOP 250", 256, 340, "libx264", H264),
    "vp9": File(
        "340x256, VP9 webm", 256, 340, "libvpx-vp9", {"g": "128", "crf": "32", "cpu-used": "6"}
    ),
}
CONTAINERS = {"mkv": "mkv", "avi": "avi", "vp9": "webm"}  # of the others: mp4


# ---------------------------------------------------------------- readers: whole frames, cropped

Crop = tuple[int, int, int, int]
Read = Callable[[str, int, Crop | None], np.ndarray]  # file, first frame -> uint8 (16, H, W, 3)


def ours() -> Read:
    """This project."""
    from datamodules import VideoFile

    def read(path: str, start: int, crop: Crop | None) -> np.ndarray:
        with VideoFile(path) as file:
            return file.frames_at((start + STEPS) / RATE, crop and (224, 224), crop)

    return read


def _resized(frames: Any, crop: Crop | None) -> np.ndarray:
    """Crop and scale a uint8 tensor (16, 3, H, W) as torchvision does."""
    if crop:
        from torchvision.transforms.v2.functional import resized_crop

        x1, y1, x2, y2 = crop
        frames = resized_crop(frames, y1, x1, y2 - y1, x2 - x1, [224, 224], antialias=True)
    return frames.permute(0, 2, 3, 1).numpy()


def decord() -> Read:
    """Seeks to the frame by its number."""
    import torch
    from decord import VideoReader  # type: ignore[import-not-found]

    def read(path: str, start: int, crop: Crop | None) -> np.ndarray:
        frames = VideoReader(path, num_threads=1).get_batch(start + STEPS).asnumpy()
        return _resized(torch.from_numpy(frames).permute(0, 3, 1, 2), crop) if crop else frames

    return read


def torchcodec(seek_mode: str) -> Read:
    """By time; ``exact`` reads through the whole file first, ``approximate`` trusts its header."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[import-not-found]

    order: Any = "NHWC"

    def read(path: str, start: int, crop: Crop | None) -> np.ndarray:
        options: dict[str, Any] = {"num_ffmpeg_threads": 1, "seek_mode": seek_mode}
        decoder = VideoDecoder(path, dimension_order=order, **options)
        # A quarter of a frame later, so that no rounding decides.
        frames = decoder.get_frames_played_at(((start + STEPS + 0.25) / RATE).tolist()).data
        return _resized(frames.permute(0, 3, 1, 2), crop)

    return read


def pytorchvideo() -> Read:
    """Every frame of the clip's seconds as float32, of which every fourth is kept."""
    import torch
    from pytorchvideo.data.encoded_video import EncodedVideo

    def read(path: str, start: int, crop: Crop | None) -> np.ndarray:
        video = EncodedVideo.from_path(path, decode_audio=False)
        begin, end = ((start + n - 0.25) / RATE for n in (0, FRAMES * STRIDE))
        clip = video.get_clip(max(0, begin), end)["video"][:, ::STRIDE]
        video.close()
        return _resized(clip.to(torch.uint8).permute(1, 0, 2, 3), crop)

    return read


READERS: dict[str, tuple[str, Callable[[], Read]]] = {
    "ours": ("av", ours),
    "decord": ("decord", decord),
    "torchcodec exact": ("torchcodec", partial(torchcodec, "exact")),
    "torchcodec approximate": ("torchcodec", partial(torchcodec, "approximate")),
    "pytorchvideo EncodedVideo": ("pytorchvideo", pytorchvideo),
}


# ---------------------------------------------------------------- one process a reader


def serve(reader: str, path: str, expected: str, connection: Connection) -> None:
    """Answer requests ``(start, crop)`` with seconds of CPU, and None with memory and difference.

    The first answer is empty, or says why there is no such reader here.
    """
    import torch

    torch.set_num_threads(1)
    try:
        read = READERS[reader][1]()
    except Exception as error:
        connection.send(f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}")
        return
    before = _memory("VmRSS")
    connection.send("")
    try:
        while (request := connection.recv()) is not None:
            begin = time.process_time()
            read(path, *request)
            connection.send(time.process_time() - begin)
        peak = _memory("VmHWM") - before
        reference = np.load(expected, mmap_mode="r")
        starts = connection.recv()
        clips = (read(path, start, None) for start in starts)
        worst = [_difference(c, reference[i]) for i, c in enumerate(clips)]
        connection.send((peak, max(worst)))
    except Exception as error:
        connection.send(f"{type(error).__name__}: {str(error).splitlines()[0][:80]}")


def _memory(name: str) -> int:
    """Bytes that this process has (``VmRSS``) or had at most (``VmHWM``).

    The peak of ``getrusage`` counts what the parent had when it started this process.
    """
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)
    )
    return int(line.split()[1]) * 1024


def _difference(clip: np.ndarray, expected: np.ndarray) -> int:
    if clip.shape != expected.shape:
        raise ValueError(f"a clip of shape {clip.shape}, not {expected.shape}")
    pairs = zip(clip, expected, strict=True)
    return max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in pairs)


def measure(path: Path, file: File, clips: int, folder: Path) -> Iterator[tuple[str, str]]:
    """The table's cells for each reader of one file."""
    rng = random.Random(0)
    starts = [rng.randrange(LAST_START) for _ in range(clips)]
    expected = folder / f"{path.stem}.npy"
    np.save(expected, in_order(path, starts[:COMPARED]))
    context = multiprocessing.get_context("spawn")
    pipes, failed = {}, {}
    for reader in READERS:
        pipes[reader], other = context.Pipe()
        context.Process(
            target=serve, args=(reader, str(path), str(expected), other), daemon=True
        ).start()
        other.close()
        if reason := pipes[reader].recv():
            failed[reader] = reason
    seconds: dict[tuple[str, bool], float] = dict.fromkeys(
        ((reader, cropped) for reader in READERS for cropped in (False, True)), 0.0
    )
    for turn, start in enumerate([starts[0], *starts]):  # the first one warms up
        height, width = (int(size * rng.uniform(0.6, 1)) for size in (file.height, file.width))
        x, y = rng.randrange(file.width - width + 1), rng.randrange(file.height - height + 1)
        for crop in (None, (x, y, x + width, y + height)):
            for reader, pipe in pipes.items():
                if reader in failed:
                    continue
                pipe.send((start, crop))
                if isinstance(answer := pipe.recv(), str):
                    failed[reader] = answer
                elif turn:
                    seconds[reader, crop is not None] += answer
    for reader, pipe in pipes.items():
        if reader not in failed:
            pipe.send(None)
            pipe.send(starts[:COMPARED])
            if isinstance(answer := pipe.recv(), str):
                failed[reader] = answer
                continue
            peak, difference = answer
            whole, cropped = (clips / seconds[reader, c] for c in (False, True))
            yield reader, f"{whole:.1f} | {cropped:.1f} | {peak / 2**20:.0f} | {difference}"
    for reader, reason in failed.items():
        yield reader, f"{reason} | | |"


def in_order(path: Path, starts: list[int]) -> np.ndarray:
    """Frames of clips, uint8 ``(clips, 16, H, W, 3)``, from decoding the file from its start."""
    wanted = {int(i) for start in starts for i in start + STEPS}
    kept = {}
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                kept[i] = frame.to_ndarray(format="rgb24")
    return np.stack([[kept[int(i)] for i in start + STEPS] for start in starts])


# ---------------------------------------------------------------- the videos


def write(path: Path, file: File) -> None:
    """Ten seconds of a panning texture with noise, in which textured squares move."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(file.codec, rate=RATE, options=file.options)
        stream.height, stream.width, stream.pix_fmt = file.height, file.width, "yuv420p"
        for picture in _pictures(file.height, file.width):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _pictures(height: int, width: int) -> Iterator[np.ndarray]:
    """Uint8 ``(height, width, 3)``, one a frame."""
    rng = np.random.default_rng(0)
    texture = np.zeros((2 * height, 2 * width, 3), np.float32)
    for octave in range(6):
        cell = 2**octave
        rows, columns = -(-2 * height // cell), -(-2 * width // cell)
        noise = rng.normal(0, cell**0.9, (rows, columns, 3)).astype(np.float32)
        texture += noise.repeat(cell, 0).repeat(cell, 1)[: 2 * height, : 2 * width]
    texture = 128 + 45 * texture / texture.std()
    side = height // 4
    for i in range(SECONDS * RATE):
        y, x = (0.5 + 0.5 * np.sin(i / 80)) * height, (0.5 + 0.5 * np.cos(i / 110)) * width
        picture = texture[int(y) : int(y) + height, int(x) : int(x) + width].copy()
        for k in range(4):
            row = int((0.5 + 0.5 * np.sin(i / (17 + 5 * k) + k)) * (height - side))
            column = int((0.5 + 0.5 * np.cos(i / (23 + 3 * k) + 2 * k)) * (width - side))
            square = texture[k * side : (k + 1) * side, 2 * i % width : 2 * i % width + side]
            picture[row : row + side, column : column + side] = square
        picture += rng.normal(0, 2, (height, width, 1)).astype(np.float32)
        yield picture.clip(0, 255).astype(np.uint8)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=20, help="of each file; a quarter in 1080p")
    parser.add_argument("--files", nargs="+", default=list(FILES), choices=FILES, metavar="NAME")
    parser.add_argument("--folder", type=Path, help="where the videos are kept for the next run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print("| video | reader | clips / CPU s | cropped | peak memory (MiB) | difference |")
        print("|---|---|--:|--:|--:|--:|")
        for name in arguments.files:
            file = FILES[name]
            path = folder / f"{name}.{CONTAINERS.get(name, 'mp4')}"
            if not path.exists():
                write(path, file)
            clips = max(2, arguments.clips // 4) if name == "1080p" else arguments.clips
            for reader, cells in measure(path, file, clips, Path(temporary)):
                print(f"| {file.name} | {reader}{_version(reader)} | {cells} |", flush=True)


def _version(reader: str) -> str:
    try:
        package = READERS[reader][0]
        return f" ({package} {importlib.metadata.version(package)})"
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
