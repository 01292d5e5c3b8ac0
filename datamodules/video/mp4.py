"""Whether a fragmented MP4 or MOV file is whole, by the sizes of its boxes."""

import os
from typing import BinaryIO

# ISO/IEC 14496-12, section 4.2: a file is a sequence of boxes. Each begins with its size, 32 bits
# that count these bytes as well, and its type; after a size of 1 comes the true one in 64 bits.
_LONG = (1).to_bytes(4, "big")


def truncation(file: BinaryIO) -> str:
    """What is missing of a file, one line; empty if its last box is whole.

    A file that ends between two fragments cannot be told from a whole one.

    Args:
        file: a seekable file object of the video alone; its position changes.
    """
    size = file.seek(0, os.SEEK_END)
    end = boxes_end(file, size)
    return f"truncated: {size} of at least {end} bytes" if size < end else ""


def boxes_end(file: BinaryIO, size: int) -> int:
    """Bytes from the start of a file of some size to the end of the last box that begins in it."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        is_long = header.startswith(_LONG)
        count = 16 if is_long else 8
        if len(header) < count:
            return end + count
        length = int.from_bytes(header[8:] if is_long else header[:4], "big")
        if length < count:  # 0: up to the end of the file; else: no box
            return size
        end += length
    return end
