"""Checkpoints that are whole: written in one piece, checked when they are read."""

import zipfile
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED

import torch

from datamodules.files import atomic_file


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint for `torch.load` beside its place, sync it, check it and rename it.

    What was at ``path`` stays until then.

    Args:
        content: tensors and plain values.
        path: the file; its folder must exist.

    Raises:
        OSError: the disk is full, or cannot be written to.
        ValueError: what was written cannot be read back.
    """
    with atomic_file(path) as temporary:
        with open(temporary, "wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # torch buries the reason, such as a full disk
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
        check_whole(temporary)


def check_whole(path: str | Path) -> None:
    """Compare the content of a checkpoint with the checksums in it.

    A file of `torch.save` is a zip archive with the CRC-32 of each tensor, which `torch.load` does
    not look at. Formats without checksums, such as that of torch before 1.6, pass.

    Raises:
        ValueError: a part of the file is damaged; or compressed, so it may fill the memory.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [i.filename for i in archive.infolist() if i.compress_type != ZIP_STORED]
            damaged = None if packed else archive.testzip()
    except Exception as error:  # damage to the table of contents; of many kinds
        raise ValueError(f"its table of contents is damaged ({error})") from error
    if packed:
        raise ValueError(f"or not of torch.save: its part {packed[0]} is compressed")
    if damaged is not None:
        raise ValueError(f"the checksum of its part {damaged} is wrong")
