"""Pictures with objects, as a loader's worker makes them."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.tv_tensors import Image

from datamodules.clips.items import Item
from datamodules.clips.sampling import sample_seed
from datamodules.coco.annotations import CocoManifest
from datamodules.coco.jitter import GREY, Jitter, fit, large_scale_jitter, pad
from datamodules.errors import VideoDecodeError
from datamodules.video.pictures import PictureFile


class _Pictures:
    """What training and evaluation share. An item has one picture, a clip of one frame.

    Args:
        manifest: the pictures.
        size: height and width of the result, pixels, both multiples of 8.
        seed: seed of the run.
    """

    def __init__(self, manifest: CocoManifest, size: tuple[int, int], seed: int) -> None:
        self.manifest, self.size, self.seed = manifest, size, seed
        self.item_shape = (1, 1, *size, 3)

    def item(self, image: Tensor | None, epoch: int, index: int) -> Item:
        """An item without objects.

        Args:
            image: uint8 ``(3, h, w)``, at most as large as `size`; None: it cannot be read.
            epoch: epoch, for the seed.
            index: row of the manifest.
        """
        number = self.manifest.image(index)
        annotations = self.manifest.annotations
        original = [int(annotations.height[number]), int(annotations.width[number])]
        pictures = [] if image is None else [image]
        video = torch.empty(len(pictures), 1, *self.size, 3, dtype=torch.uint8)
        for picture in pictures:
            video[0, 0] = pad(picture, self.size, GREY).permute(1, 2, 0)  # (H, W, 3)
        count = len(pictures)
        sizes = torch.tensor([p.shape[-2:] for p in pictures], dtype=torch.int64)
        seeds = [sample_seed(self.seed, epoch, index)] * count
        return {
            "video": video,
            "seed": torch.tensor(seeds, dtype=torch.int64),
            "video_id": torch.full((count,), number),
            "picture_size": sizes.reshape(count, 2),
            "original_size": torch.tensor([original] * count, dtype=torch.int64).reshape(count, 2),
        }

    def read(self, index: int) -> Image:
        """The picture of a row, uint8 ``(3, h, w)``, of the size that the annotation says.

        Raises:
            VideoDecodeError: it cannot be read, or has another size.
        """
        path, number = self.manifest.path(index), self.manifest.image(index)
        annotations = self.manifest.annotations
        expected = int(annotations.width[number]), int(annotations.height[number])
        return Image(read_picture(path, expected).permute(2, 0, 1))


class TrainingPictures(_Pictures):
    """Pictures with large-scale jitter, and the objects that are left in them.

    An item is indexed by ``(epoch, index)``. Its N objects are ``boxes`` float32 ``(N, 4)`` (x1,
    y1, x2, y2 in pixels), ``box_clip`` int64 ``(N,)``, ``box_labels`` int64 ``(N,)`` (from 1 on)
    and ``masks`` uint8 ``(N, H, W / 8)``, with eight pixels in a byte, as ``numpy.packbits`` makes
    them. Crowds are left out, and objects of which no pixel is left.

    Args:
        manifest: the pictures.
        size: height and width of the result, pixels, both multiples of 8.
        seed: seed of the run.
        scale: see `jitter.large_scale_jitter`.
    """

    def __init__(
        self,
        manifest: CocoManifest,
        size: tuple[int, int],
        seed: int,
        scale: tuple[float, float],
    ) -> None:
        super().__init__(manifest, size, seed)
        self.scale = scale

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        rng = np.random.default_rng(sample_seed(self.seed, epoch, index))
        image = self.read(index)
        height, width = image.shape[-2:]
        jitter = large_scale_jitter((height, width), self.size, self.scale, rng)
        item = self.item(jitter.picture(image), epoch, index)
        return item | self._objects(index, self._rows(index), jitter)

    def empty(self, index: int) -> Item:
        """The item of a picture that cannot be read."""
        return self.item(None, 0, index) | _objects_item([], self.size)

    def _rows(self, index: int) -> np.ndarray:
        annotations = self.manifest.annotations
        rows = annotations.rows(self.manifest.image(index))
        return rows[~annotations.crowd[rows]]

    def _objects(self, index: int, rows: np.ndarray, jitter: Jitter) -> Item:
        """What is left of the objects of some rows of the annotations."""
        annotations = self.manifest.annotations
        objects = []
        for row in rows.tolist():
            try:
                mask, box = jitter.object(json.loads(annotations.segmentation[row].as_py()))
            except ValueError as error:
                name = f"annotation {annotations.annotation_id[row]}"
                raise VideoDecodeError(self.manifest.path(index), f"{name}: {error}") from None
            if mask.any():
                objects.append((mask, box, annotations.category[row] + 1))
        return _objects_item(objects, self.size)


class EvaluationPictures(_Pictures):
    """Whole pictures, scaled so that they just fit in, without objects.

    An item is indexed by ``(epoch, index)``.
    """

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        return self.item(fit(self.read(index), self.size), epoch, index)

    def empty(self, index: int) -> Item:
        """The item of a picture that cannot be read."""
        return self.item(None, 0, index)


def read_picture(path: str, size: tuple[int, int] | None = None) -> Tensor:
    """Read a picture.

    It is turned as its Exif data says, unless `size` is that of the picture as it is stored.

    Args:
        path: of a file that `PictureFile` reads.
        size: width and height that it must have, pixels; None: any.

    Returns:
        uint8 ``(h, w, 3)``, RGB.

    Raises:
        VideoDecodeError: it cannot be read, or has another size.
    """
    with PictureFile(path, unturned=size) as file:
        if size not in (None, (file.width, file.height)):
            raise VideoDecodeError(
                path, f"is {file.width}x{file.height}, and the annotation says {size[0]}x{size[1]}"
            )
        return torch.from_numpy(file.frames_at([0.0])[0])


def _objects_item(
    objects: Sequence[tuple[np.ndarray, np.ndarray, int]], size: tuple[int, int]
) -> Item:
    """What `TrainingPictures` has of N objects: the mask, the box and the label of each."""
    boxes, labels = np.zeros((len(objects), 4), np.float32), np.zeros(len(objects), np.int64)
    masks = np.zeros((len(objects), size[0], size[1] // 8), np.uint8)
    for i, (mask, boxes[i], labels[i]) in enumerate(objects):
        packed = np.packbits(mask, axis=1)
        masks[i, : packed.shape[0], : packed.shape[1]] = packed
    return {
        "boxes": torch.from_numpy(boxes),
        "box_clip": torch.zeros(len(objects), dtype=torch.int64),
        "box_labels": torch.from_numpy(labels),
        "masks": torch.from_numpy(masks),
    }
