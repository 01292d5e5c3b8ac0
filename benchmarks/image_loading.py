"""Load pictures for training beside torchvision's and timm's loaders.

    python -m benchmarks.image_loading [--pictures 512] [--rounds 5] [--workers 1 2] [--batch 32]

All read the same JPEG files (500x375 pixels and the like, in class folders), crop 8 to 100 % of the
area at random, scale it to 224x224 (bicubic, antialiased) and mirror half of the pictures. A
contender's work ends with a batch uint8 ``(B, 3, 224, 224)`` on the CPU; normalisation is left out,
as it belongs on the device. This project mirrors there, too; here the training process does it,
and that counts. Each epoch starts its workers anew. Contenders take turns, after one round that
does not count; the table has medians: pictures a second, and pictures for a second of CPU time of
all processes.

The difference is that of whole pictures, scaled: mean and largest, in grey levels, from what Pillow
makes of them. Random crops cannot be compared: each library draws its own.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from benchmarks.images import photograph
from benchmarks.loading import measure
from datamodules import ImageFolderDataModule
from hiera_video.augment import Augmentation

Epoch = Callable[[], Iterable[tuple[Tensor, Tensor]]]  # uint8 (B, 3, 224, 224), and labels (B,)
SIDE = 224
SHAPES = ((375, 500), (333, 500), (500, 375), (375, 500))  # height and width, as in ImageNet
CLASSES = 8


class Settings(NamedTuple):
    """What all contenders are given.

    Attributes:
        root: folder with a folder of pictures for each class.
        batch: pictures in a batch; an incomplete one is left out.
        workers: number of processes.
        scale: least and greatest share of the area that a crop keeps.
        ratio: least and greatest ratio of width to height of a crop.
        flip: whether half of the pictures are mirrored.
    """

    root: Path
    batch: int
    workers: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True


def ours(settings: Settings) -> Epoch:
    """This project's loader, and the flip as its augmentation has it."""
    root, batch, workers, scale, ratio, flip = settings
    data = ImageFolderDataModule(
        root,
        train=".",
        val=None,
        test=None,
        batch_size=batch,
        num_workers=workers,
        crop_scale=scale,
        crop_ratio=ratio,
    )
    data.setup("fit")
    loader, augmentation = data.train_dataloader(), Augmentation(horizontal_flip=flip)

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        for clips in loader:
            pictures = clips["video"].squeeze(2)  # (B, 3, H, W)
            draw = augmentation.draw(clips["seed"], (SIDE, SIDE))
            pairs = zip(pictures, draw.flip, strict=True)
            yield torch.stack([x.flip(-1) if turn else x for x, turn in pairs]), clips["label"]

    return epoch


def torchvision_pictures(settings: Settings) -> Epoch:
    """ImageFolder of torchvision; transforms v2 of Pillow's pictures."""
    return _torchvision(settings, [], [v2.PILToTensor()])


def torchvision_tensors(settings: Settings) -> Epoch:
    """The same with transforms of tensors, as torchvision's documentation recommends."""
    return _torchvision(settings, [v2.ToImage()], [])


def timm(settings: Settings) -> Epoch:
    """`create_loader` of timm, without the part that normalises on the device."""
    root, batch, workers, scale, ratio, flip = settings
    dataset: Any = create_dataset("", root=str(root), search_split=False)
    loader: Any = create_loader(
        dataset,
        (3, SIDE, SIDE),
        batch,
        is_training=True,
        scale=scale,
        ratio=ratio,
        hflip=0.5 * flip,
        color_jitter=0.0,
        interpolation="bicubic",
        num_workers=workers,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    return lambda: loader.loader  # within the prefetcher: uint8


CONTENDERS: dict[str, Callable[[Settings], Epoch]] = {
    "ours": ours,
    "torchvision, of pictures": torchvision_pictures,
    "torchvision, of tensors": torchvision_tensors,
    "timm": timm,
}


def _torchvision(settings: Settings, before: list[Any], after: list[Any]) -> Epoch:
    root, batch, workers, scale, ratio, flip = settings
    crop = v2.RandomResizedCrop(SIDE, scale, ratio, InterpolationMode.BICUBIC, antialias=True)
    transform = v2.Compose([*before, crop, v2.RandomHorizontalFlip(0.5 * flip), *after])
    dataset = ImageFolder(str(root), transform)
    loader = DataLoader(dataset, batch, shuffle=True, drop_last=True, num_workers=workers)
    return lambda: loader


def write_pictures(root: Path, count: int) -> None:
    """Write JPEG files into class folders; at most 64 of them differ."""
    rng = np.random.default_rng(0)
    distinct = [photograph(*SHAPES[i % 4], rng) for i in range(min(count, 64))]
    for i in range(count):
        folder = root / f"{i % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:06d}.jpg").write_bytes(distinct[i % len(distinct)])


def differences(make: Callable[[Settings], Epoch], root: Path) -> tuple[float, int]:
    """Mean and largest difference of whole pictures from Pillow's, in grey levels.

    Args:
        make: the contender.
        root: class folders with one picture of 375x500 pixels each.
    """
    files = sorted(root.glob("*/*.jpg"))
    height, width = SHAPES[0]
    whole = Settings(root, len(files), 0, (1.0, 1.0), (width / height, width / height), False)
    total, largest = [], 0
    for pictures, labels in make(whole)():
        for picture, label in zip(pictures, labels.tolist(), strict=True):
            with Image.open(files[label]) as image:
                expected = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            error = np.abs(picture.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected))
            total.append(error.mean())
            largest = max(largest, int(error.max()))
    return float(np.mean(total)), largest


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=512, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each contender")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = arguments.pictures // arguments.batch * arguments.batch
    with tempfile.TemporaryDirectory() as folder:
        root, singles = Path(folder, "pictures"), Path(folder, "singles")
        write_pictures(root, arguments.pictures)
        rng = np.random.default_rng(1)
        for i in range(CLASSES):
            (singles / f"{i}").mkdir(parents=True)
            (singles / f"{i}/a.jpg").write_bytes(photograph(*SHAPES[0], rng))
        found = {name: differences(make, singles) for name, make in CONTENDERS.items()}
        print(f"{count} pictures an epoch, {arguments.rounds} rounds, {os.cpu_count()} cores\n")
        print("| workers | loader | pictures / s | pictures / CPU s | mean difference | largest |")
        print("|--:|---|--:|--:|--:|--:|")
        for workers in arguments.workers:
            settings = Settings(root, arguments.batch, workers)
            epochs = {name: make(settings) for name, make in CONTENDERS.items()}
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
            for number in range(arguments.rounds + 1):
                for name, epoch in epochs.items():
                    wall_and_cpu = measure(epoch)
                    if number:
                        seconds[name].append(wall_and_cpu)
            for name, times in seconds.items():
                wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
                mean, largest = found[name]
                rates = f"{count / wall:.0f} | {count / cpu:.0f}"
                print(f"| {workers} | {name} | {rates} | {mean:.2f} | {largest} |", flush=True)


if __name__ == "__main__":
    main()
