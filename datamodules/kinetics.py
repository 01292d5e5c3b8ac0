"""Kinetics-400, -600 and -700, as published by DeepMind or listed by PySlowFast and VideoMAE."""

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from datamodules.annotated import AnnotatedVideoDataModule
from datamodules.errors import DatasetError
from datamodules.manifests.finding import Find, find_by_stem
from datamodules.manifests.lists import Row, at, inside, read_text

HEADER = ("label", "youtube_id", "time_start", "time_end", "split", "is_cc")
_EXPECTED = "label,youtube_id,time_start,time_end,split[,is_cc], without label in a test split"
_OPTIONAL = {"label", "is_cc"}
# Some of the published files call the validation split "validate".
_SAME_SPLIT = {"validate": "val", "validation": "val"}


class KineticsDataModule(AnnotatedVideoDataModule):
    """Kinetics: ten-second clips from YouTube, each with one of 400, 600 or 700 actions.

    A split named ``train`` has the annotation file ``train.csv`` (or ``kinetics-400_train.csv``),
    which is searched for in ``annotations``, ``labels`` and the root; that of ``val`` may also be
    ``validate.csv``. If there is none, ``train`` is the path of a folder. The file may be

    - DeepMind's csv with the header ``label,youtube_id,time_start,time_end,split[,is_cc]``. The
      videos are ``<label>/<youtube_id>_000417_000427.mp4`` (start and end in seconds, six digits)
      in the folder of the row's split, with or without the label's folder. A video may have any
      suffix, and the label's folder any name.
    - a list ``path label`` as in PySlowFast and VideoMAE, or a csv ``path,label``.

    Classes are numbered in the alphabetical order of the training split's labels, as is usual.

    Args:
        *args: see `AnnotatedVideoDataModule`.
        videos: for each of DeepMind's ``train``, ``val`` and ``test`` the folder of its videos,
            relative to ``root``; by default the split's name.
        num_classes: number of classes of the training split; None: any, as in a subset.
        **kwargs: see `AnnotatedVideoDataModule` and `VideoDataModule`.
    """

    def __init__(
        self,
        *args,
        videos: Mapping[str, str] | None = None,
        num_classes: int | None = 400,
        **kwargs,
    ) -> None:
        super().__init__(*args, num_classes=num_classes, **kwargs)
        self.videos = dict(videos or {})

    def annotation_file(self, split: str) -> str:
        """``train.csv``, ``kinetics-400_train.csv`` and the like."""
        same = [name for name, of in _SAME_SPLIT.items() if of == split]
        return rf"(.*[-_])?({'|'.join([split, *same])})\.(csv|txt)"

    def read_annotation(self, file: Path) -> tuple[list[Row], Find]:
        """DeepMind's csv, or a list of paths."""
        cells = _cells(file)
        # Below the header, a line that begins with # has a label that does.
        first = next((row for row in cells if not row[1][0].startswith("#")), (0, []))
        header = [cell.lower() for cell in first[1]]
        if not set(header) & {"youtube_id", "time_start", "time_end"}:
            return super().read_annotation(file)
        wrong = set(header) - set(HEADER) or set(HEADER) - set(header) - _OPTIONAL
        if wrong or len(set(header)) < len(header):
            raise DatasetError(f"{at(file, first[0])}: wrong header; expected {_EXPECTED}")
        folders: dict[str, str] = {}  # of splits, each checked once
        rows = [self._row(file, n, header, values, folders) for n, values in cells]
        if not rows:
            raise DatasetError(f"{file}: no rows below the header")
        if len(folders) > 1:
            raise DatasetError(
                f"{file}: its rows are of several splits ({', '.join(sorted(folders))}); write a "
                "file for each"
            )
        return rows, find_by_stem

    def _row(
        self, file: Path, number: int, header: list[str], values: list[str], folders: dict[str, str]
    ) -> Row:
        where = at(file, number)
        if len(values) != len(header):
            raise DatasetError(f"{where}: {len(values)} fields, not {len(header)} as in the header")
        row = dict(zip(header, values, strict=True))
        if empty := [name for name, value in row.items() if not value and name != "is_cc"]:
            raise DatasetError(f"{where}: {empty[0]} is empty")
        label, name = row.get("label", ""), row["youtube_id"]
        if name in (".", "..") or not {"/", "\0"}.isdisjoint(name):
            raise DatasetError(f"{where}: {name!r} is not a youtube_id")
        if label.startswith("/") or ".." in label.split("/") or "\0" in label:
            raise DatasetError(f"{where}: {label!r} is not a label")
        split = _SAME_SPLIT.get(row["split"], row["split"])
        if split not in folders:
            folder = self.videos.get(split, split)
            folders[split] = inside(os.path.abspath(self.root), folder, where)
        start, end = (_seconds(row[key], key, where) for key in ("time_start", "time_end"))
        return Row(number, f"{folders[split]}/{name}_{start:06d}_{end:06d}", label)


def _cells(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the stripped cells of each line that is not empty."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise DatasetError(f"{at(file, number)}: not a line of a csv file ({error})") from None
        if len(cells) > 1 or any(cells):
            yield number, cells


def _seconds(text: str, key: str, where: str) -> int:
    whole = re.fullmatch(r"([0-9]{1,9})(\.0*)?", text)
    if whole is None:
        raise DatasetError(f"{where}: {key} {text!r} is not a whole number of seconds")
    return int(whole.group(1))
