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
    content = file.read_bytes()
    if len(content) <= LARGEST_PNG:
        return data_uri("image/png", content)
    with Image.open(file) as picture:
        smaller = picture.convert("RGB")
    smaller.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return data_uri("image/jpeg", encoded(smaller, "JPEG", quality=QUALITY))


def encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    """The bytes of a picture's file, of a kind and with options as in Pillow's `save`."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
