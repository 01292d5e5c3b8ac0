"""Whether a Matroska or WebM file is whole, by the size that its header tells."""

import os
from typing import BinaryIO

# https://www.rfc-editor.org/rfc/rfc8794 (EBML) and rfc9559 (Matroska): a file is an EBML header and
# a segment, which holds everything else. Each begins with its ID (4 bytes) and size (1 to 8).
_EBML_HEADER, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
_LONGEST_SIZE = 8  # bytes


def truncation(file: BinaryIO) -> str:
    """What is missing of a file, one line; empty if it is whole, or if that cannot be known.

    It cannot be known of a stream recorded live, which does not tell its size, nor of anything
    that is not Matroska.

    Args:
        file: a seekable file object of the video alone; its position changes.
    """
    end = segment_end(file)
    size = file.seek(0, os.SEEK_END)
    return f"truncated: {size} of {end} bytes" if end is not None and size < end else ""


def segment_end(file: BinaryIO) -> int | None:
    """Bytes from the start of a file to the end of its segment; None: unknown. See `truncation`."""
    position = 0
    for element in (_EBML_HEADER, _SEGMENT):
        file.seek(position)
        start = file.read(len(element) + _LONGEST_SIZE)
        if not start.startswith(element):
            return None
        length, size = read_size(start[len(element) :])
        if size is None:
            return None
        position += len(element) + length + size
    return position


def read_size(data: bytes) -> tuple[int, int | None]:
    """Read the size of an element: an EBML integer of variable length.

    The first byte begins with as many zero bits as bytes follow it, and a one. What comes after
    that is the number; all ones stand for an unknown one.

    Args:
        data: begins with the integer; any bytes may follow it.

    Returns:
        How many bytes it takes, and the number; (0, None) where there is no such integer.
    """
    length = _LONGEST_SIZE + 1 - data[0].bit_length() if data else 0
    if not 0 < length <= min(len(data), _LONGEST_SIZE):
        return 0, None
    largest = (1 << 7 * length) - 1
    number = int.from_bytes(data[:length], "big") & largest
    return length, None if number == largest else number
