"""Pixels of one picture, with the interface of a video of one frame.

Pillow decodes. Of a large JPEG that is to become small, it decodes a half, a quarter or an eighth
of the size in the first place; what remains is never less than twice the size that was asked for.
"""

import math
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from datamodules.errors import VideoDecodeError
from datamodules.video.container import Source, checked_source, decode_error, name_of
from datamodules.video.decoding import check_interpolation, checked_crop, checked_size, scale
from datamodules.video.frames import Crop, Frames

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
# A few bytes of a header can claim more, which would cost gigabytes. Pillow warns from 2^26.4 on.
MOST_PIXELS = 1 << 26
# Pixels decoded for each pixel that is asked for, along each side, at least: what a JPEG loses
# when it is decoded at a part of its size is then filtered out anyway. `Image.thumbnail` has it.
GAP = 2.0
# Tags of EXIF that say how a stored picture is turned for display.
_ORIENTATION = 0x0112
_TRANSPOSED = range(5, 9)
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations in which the stored right or lower side is displayed on the left, and at the top.
_ENDS_LEFT, _ENDS_AT_TOP = {2, 3, 6, 7}, {3, 4, 7, 8}
_ROTATION = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}  # degrees counterclockwise
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class PictureFile(Frames):
    """A picture file, open for reading, with the interface of `VideoFile`: one frame at all times.

    Pixels are those of Pillow's ``convert("RGB")``, as in torchvision and timm: transparency and
    colour profiles are ignored, and CMYK is converted by formula. Unlike there, 16 bits of grey
    become the upper 8 (there, all above 255 is white), and a picture is turned as its EXIF data
    say.

    Args:
        source: as of `VideoFile`.
        unturned: width and height; a picture that is stored with this size is not turned.

    Raises:
        TypeError: the source is neither a path nor such an object.
        VideoDecodeError: the file is missing or empty, is none of `FORMATS`, has several frames, or
            its pixels are more than `MOST_PIXELS` or no colours.
    """

    rate = Fraction(1)
    duration = 1.0

    def __init__(
        self,
        source: str | os.PathLike[str] | Source,
        unturned: tuple[int, int] | None = None,
    ) -> None:
        source = checked_source(source)
        self.path = name_of(source)
        self._source: Any = source
        self._unturned = unturned
        self._image: Any = None  # open, and not decoded yet
        self._file: BinaryIO | None = None
        with _errors_of(self.path):
            try:
                self._open()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Free the file."""
        for opened in (self._image, self._file):
            if opened is not None:
                opened.close()
        self._image = self._file = None

    @property
    def codec(self) -> str:
        """Name of the file's format in lower case, such as ``jpeg``."""
        return self._format

    @property
    def rotation(self) -> int:
        """Degrees counterclockwise by which the stored picture is turned for display."""
        return _ROTATION.get(self._orientation, 0)

    def clips_at(
        self,
        clips: Iterable[tuple[Iterable[float], Crop | None]],
        size: int | tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> list[np.ndarray]:
        """Return crops of the picture, as `VideoFile.clips_at` does; it is decoded once.

        Scaled crops of a large JPEG differ from those of the picture decoded at its full size: of
        photographs by 2 grey levels on average, at most, of patterns as fine as its pixels by more.
        All others are equal to them.

        Args:
            clips: times, of which only the number n counts, and the crop of each clip.
            size: as in `VideoFile.clips_at`.
            interpolation: ``bilinear`` or ``bicubic``, antialiased.

        Returns:
            For each clip RGB, uint8 ``(n, height, width, 3)``.

        Raises:
            ValueError: a crop, the size or the interpolation is wrong.
            VideoDecodeError: the file is damaged.
        """
        check_interpolation(interpolation)
        counts, crops, sizes = [], [], []
        for seconds, crop in clips:
            counts.append(len(list(seconds)))
            crops.append(checked_crop(crop, self.height, self.width))
            sizes.append(checked_size(size, crops[-1]))
        image, factor = self._decoded(_reduction(crops, sizes))
        results = []
        for count, crop, shape in zip(counts, crops, sizes, strict=True):
            pixels = self._scaled(image, factor, crop, shape, interpolation)
            results.append(np.broadcast_to(pixels, (count, *pixels.shape)).copy())
        return results

    def _open(self) -> Any:
        """Open the file, read its header and return Pillow's image."""
        file = self._opened_file()
        with warnings.catch_warnings():
            # Pillow's warning of large pictures: ours is an error. Odd EXIF data are harmless.
            warnings.simplefilter("ignore")
            self._image = image = Image.open(file, formats=FORMATS)
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if image.format != "MPO" and _has_more(image):  # of a camera: the rest are previews
                raise VideoDecodeError(self.path, "it has several frames: not a single picture")
            is_tiff = image.format == "TIFF"
            if image.mode == "F" or (image.mode == "I" and is_tiff):
                raise VideoDecodeError(self.path, "its pixels are numbers, not colours")
            orientation = image.getexif().get(_ORIENTATION)
            turned = image.size != self._unturned and not is_tiff  # which Pillow turns itself
            self._orientation = orientation if turned and orientation in _TURN else 1
        self._format = str(image.format).lower()
        transposed = self._orientation in _TRANSPOSED
        self.width, self.height = (height, width) if transposed else (width, height)
        return image

    def _opened_file(self) -> BinaryIO:
        """The file object that Pillow reads."""
        if isinstance(self._source, str):
            if not stat.S_ISREG(os.stat(self._source).st_mode):
                raise VideoDecodeError(self.path, "not a file")
            self._file = open(self._source, "rb")  # noqa: SIM115
        else:
            self._file = self._source.open()
        assert self._file is not None
        if not self._file.seek(0, os.SEEK_END):
            raise VideoDecodeError(self.path, "the file is empty")
        self._file.seek(0)
        return self._file

    def _decoded(self, reduction: float) -> tuple[Any, float]:
        """The picture in RGB as it is displayed, a JPEG at no less than a share of its size.

        Args:
            reduction: how many times smaller it may be decoded.

        Returns:
            Pillow's image, and how many times smaller its content is.
        """
        factor = 1.0
        with _errors_of(self.path):
            try:
                image = self._image or self._open()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    if reduction >= 2:
                        whole = image.size
                        least = tuple(math.ceil(n / reduction) for n in whole)
                        if drafted := image.draft(None, least):  # a JPEG
                            factor = whole[0] / drafted[1][2]
                    rgb = _rgb(image)
            finally:
                self.close()  # a JPEG keeps the size at which it was decoded
        turn = _TURN.get(self._orientation)
        return (rgb if turn is None else rgb.transpose(turn)), factor

    def _scaled(
        self, image: Any, factor: float, crop: Crop, size: tuple[int, int], interpolation: str
    ) -> np.ndarray:
        """A crop in pixels of the whole picture, scaled to (height, width).

        A JPEG decoded at a part of its size ends within its last pixels, to the right and at the
        bottom of the picture as it is stored.
        """
        if factor == 1:
            out = np.empty((*size, 3), np.uint8)
            scale(np.array(image.crop(crop)), out, interpolation)
            return out
        x, y = image.width - self.width / factor, image.height - self.height / factor
        x, y = x * (self._orientation in _ENDS_LEFT), y * (self._orientation in _ENDS_AT_TOP)
        x1, y1, x2, y2 = (side / factor for side in crop)
        box = (x + x1, y + y1, min(x + x2, image.width), min(y + y2, image.height))
        return np.asarray(image.resize(size[::-1], _RESAMPLING[interpolation], box=box))


def _reduction(crops: list[Crop], sizes: list[tuple[int, int]]) -> float:
    """How many times smaller a picture may be decoded for crops (x1, y1, x2, y2) of these sizes."""
    factors = [1.0]
    if crops:
        factors = [
            min((x2 - x1) / width, (y2 - y1) / height) / GAP
            for (x1, y1, x2, y2), (height, width) in zip(crops, sizes, strict=True)
        ]
    return min(factors)


def _has_more(image: Any) -> bool:
    """Whether another frame follows the first one; to count those of a TIFF, all are read."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _rgb(image: Any) -> Any:
    """An opened picture, decoded and in RGB."""
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip at 255
        pixels = np.asarray(image)
        if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 0xFFFF:
            raise ValueError("its pixels are numbers, not colours")
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns
    return image.convert("RGB")


@contextmanager
def _errors_of(path: str) -> Iterator[None]:
    """Turn whatever Pillow raises at a file into a VideoDecodeError of one line."""
    try:
        yield
    except VideoDecodeError:
        raise
    except Image.DecompressionBombError:
        raise VideoDecodeError(
            path, f"it has more than the {MOST_PIXELS:,} pixels allowed"
        ) from None
    except Image.UnidentifiedImageError:
        raise VideoDecodeError(
            path, f"not one of the pictures read here: {', '.join(FORMATS)}"
        ) from None
    except Exception as error:  # struct.error, SyntaxError, KeyError, MemoryError, ...
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        kind = type(decode_error(path, error))
        raise kind(path, " ".join(reason.split()) or type(error).__name__) from error
