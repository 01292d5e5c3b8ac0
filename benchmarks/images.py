"""Time the reading of one training crop of a JPEG beside other readers.

    python -m benchmarks.images [--rounds 40]

A random part of a picture is scaled to 224 x 224 pixels (bicubic, antialiased). Readers take turns
in one process and with one thread, so that all see the same machine. What is not installed is named
in the table (`pip install simplejpeg`). Prints a Markdown table: crops per second of CPU time, and
how far the crop is from that of the whole picture, decoded and scaled by Pillow, in grey levels.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2 import functional as F

from datamodules.video.decoding import scale
from datamodules.video.pictures import PictureFile

Crop = tuple[int, int, int, int]
Read = Callable[[Path, Crop], np.ndarray]  # uint8 (224, 224, 3)
SIDE = 224
SIZES = {"500x375": (375, 500), "2000x1500": (1500, 2000)}  # about ImageNet's mean; of a camera


def ours(path: Path, crop: Crop) -> np.ndarray:
    """This project: Pillow, a large JPEG at a part of its size, torch's scaling."""
    with PictureFile(path) as file:
        return file.frames_at([0], (SIDE, SIDE), crop, "bicubic")[0]


def pillow(path: Path, crop: Crop) -> np.ndarray:
    """Pillow alone, as torchvision's and timm's datasets have it."""
    with Image.open(path) as image:
        part = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=crop)
    return np.asarray(part)


def torchvision(path: Path, crop: Crop) -> np.ndarray:
    """torchvision.io: libjpeg-turbo into a tensor, torch's scaling."""
    picture = decode_jpeg(read_file(str(path)), ImageReadMode.RGB)
    x1, y1, x2, y2 = crop
    part = F.resized_crop(
        picture, y1, x1, y2 - y1, x2 - x1, [SIDE, SIDE], F.InterpolationMode.BICUBIC
    )
    return part.permute(1, 2, 0).numpy()


def pyav(path: Path, crop: Crop) -> np.ndarray:
    """FFmpeg's decoder of JPEG, torch's scaling."""
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return _scaled(picture, crop)


def simplejpeg(path: Path, crop: Crop) -> np.ndarray:
    """libjpeg-turbo, at a part of its size where the crop stays twice as large, torch's scaling."""
    import simplejpeg as library  # pyright: ignore[reportMissingImports]

    data = path.read_bytes()
    height, width, *_ = library.decode_jpeg_header(data)
    factor = 2 * SIDE / min(crop[2] - crop[0], crop[3] - crop[1])
    least = {"min_height": round(height * factor), "min_width": round(width * factor)}
    picture = library.decode_jpeg(data, **(least if factor < 1 else {}))
    across, down = picture.shape[1] / width, picture.shape[0] / height
    x1, x2, y1, y2 = (
        round(side * share)
        for side, share in zip(
            (crop[0], crop[2], crop[1], crop[3]), (across, across, down, down), strict=True
        )
    )
    return _scaled(picture, (x1, y1, x2, y2))


def _scaled(picture: np.ndarray, crop: Crop) -> np.ndarray:
    x1, y1, x2, y2 = crop
    out = np.empty((SIDE, SIDE, 3), np.uint8)
    scale(np.ascontiguousarray(picture[y1:y2, x1:x2]), out, "bicubic")
    return out


READERS: dict[str, Read] = {
    "ours": ours,
    "Pillow": pillow,
    "torchvision.io": torchvision,
    "PyAV": pyav,
    "simplejpeg": simplejpeg,
}


def photograph(height: int, width: int, rng: np.random.Generator) -> bytes:
    """A JPEG of noise on several scales, as detailed as a photograph: quality 90."""
    total = np.zeros((height, width, 3))
    for step in (2, 8, 32, 128):
        noise = rng.normal(0, step**0.5, (height // step + 2, width // step + 2, 3))
        small = Image.fromarray((noise * 8 + 128).clip(0, 255).astype(np.uint8))
        total += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) - 128.0
    file = io.BytesIO()
    Image.fromarray((total + 128).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def random_crop(height: int, width: int, rng: np.random.Generator) -> Crop:
    """A crop of 8 to 100 % of the area, as in training."""
    share = rng.uniform(0.08, 1) ** 0.5
    h, w = int(height * share), int(width * share)
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return x, y, x + w, y + h


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| picture | reader | crops / CPU s | mean difference | largest |")
    print("|---|---|--:|--:|--:|")
    for name, (height, width) in SIZES.items():
        rng = np.random.default_rng(0)
        seconds: dict[str, list[float]] = {reader: [] for reader in READERS}
        differences: dict[str, list[np.ndarray]] = {reader: [] for reader in READERS}
        missing: dict[str, str] = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.jpg")
            for _ in range(rounds):
                path.write_bytes(photograph(height, width, rng))
                crop = random_crop(height, width, rng)
                expected = pillow(path, crop).astype(int)
                for reader, read in READERS.items():
                    start = time.process_time()
                    try:
                        pixels = read(path, crop)
                    except ImportError as error:
                        missing[reader] = str(error)
                        continue
                    seconds[reader].append(time.process_time() - start)
                    differences[reader].append(np.abs(pixels - expected))
        for reader in READERS:
            if reader in missing:
                print(f"| {name} | {reader} | {missing[reader]} | | |")
                continue
            rate = 1 / np.median(seconds[reader])
            means = [d.mean() for d in differences[reader]]
            largest = max(d.max() for d in differences[reader])
            print(f"| {name} | {reader} | {rate:.0f} | {max(means):.2f} | {largest} |")


if __name__ == "__main__":
    main()
