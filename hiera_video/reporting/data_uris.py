"""Files inside a page, as ``data:`` URIs."""

import base64
import io
from pathlib import Path

from PIL import Image

LARGEST_PNG = 400_000  # bytes; a larger picture becomes a JPEG
LONGEST_SIDE = 4000  # pixels; a larger picture is shrunk
QUALITY = 85  # of a JPEG


def data_uri(kind: str, content: bytes) -> str:
    """A file as a URI.

    Args:
        kind: its MIME type, such as ``video/mp4``.
        content: its bytes.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture_uri(file: Path) -> str:
    """A PNG file as a URI; as a smaller JPEG if it is large.

    Raises:
        OSError: the file is not a picture.
    """
    with Image.open(file) as picture:
        return image_uri(picture, file.read_bytes())


def image_uri(picture: Image.Image, png: bytes | None = None) -> str:
    """A picture as a URI, as PNG or, if that is large, as JPEG.

    Args:
        picture: of any size.
        png: the same as a PNG file, if there is one.
    """
    if png is None:
        png = _encoded(picture, "PNG")
    if len(png) <= LARGEST_PNG:
        return data_uri("image/png", png)
    smaller = picture.convert("RGB")
    smaller.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return data_uri("image/jpeg", _encoded(smaller, "JPEG", quality=QUALITY))


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
