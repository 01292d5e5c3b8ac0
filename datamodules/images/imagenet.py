"""ImageNet-1K as published: synset folders, a flat validation folder, and words of the synsets."""

import csv
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.errors import DatasetError
from datamodules.images.folder import ImageFolderDataModule
from datamodules.manifests.finding import find_by_path
from datamodules.manifests.labels import distinct_names
from datamodules.manifests.lists import Row, at, inside, read_text
from datamodules.manifests.manifest import Manifest
from datamodules.manifests.splits import class_folders

SYNSET = re.compile(r"n\d{8}")
# Where the words of the synsets may be: Kaggle's file, Caffe's.
WORD_FILES = ("LOC_synset_mapping.txt", "synset_words.txt")
# What labels the flat validation folder: Kaggle's file, Caffe's, that of the devkit.
TRUTH_FILES = (
    "LOC_val_solution.csv",
    "val.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
)
Labelled = tuple[int, str, str]  # line of the file of ground truth, name of a picture, synset
META = "meta.mat"  # beside the devkit's ground truth: it numbers synsets in an order of its own


class ImageNetDataModule(ImageFolderDataModule):
    """ImageNet-1K (ILSVRC 2012), or a subset of its synsets.

    ``train`` has a folder for each synset (``n01440764``). ``val`` may have the same, or all
    pictures in one folder; then `truth` labels them:

    - ``LOC_val_solution.csv`` as on Kaggle: ``ImageId,PredictionString``;
    - ``val.txt`` as of Caffe: lines ``ILSVRC2012_val_00000001.JPEG 65``;
    - ``ILSVRC2012_validation_ground_truth.txt`` of the devkit, with ``meta.mat`` beside it.

    A folder whose class folders are numbers, as those of ImageNet-V2, is a split, too: the numbers
    are ids. Ids are those of torchvision, timm and the published weights: synsets in alphabetical
    order. Names of classes are the synsets' words if `words` is there, else the synsets.

    Args:
        *args: see `ImageFolderDataModule`.
        truth: file with the labels of a flat validation folder, relative to ``root``; None: the
            usual ones are searched for.
        words: file with lines ``n01440764 tench, Tinca tinca``, relative to ``root``; None: the
            usual ones are searched for.
        num_classes: of the training split; None: any, as in a subset.
        **kwargs: see `ImageFolderDataModule`.
    """

    def __init__(
        self,
        *args,
        truth: str | None = None,
        words: str | None = None,
        num_classes: int | None = 1000,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.truth, self.words, self.num_classes = truth, words, num_classes
        self._synsets: tuple[str, ...] | None = None  # in the order of the ids

    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """The pictures of a split, as in the base class.

        Raises:
            DatasetError: as in the base class, or the number of classes is wrong.
        """
        source = self.source_of(split)
        if not source.is_dir():
            return super().list_split(split, class_names)
        synsets = self.synsets()
        folders = class_folders(source)
        if folders and all(name.isdecimal() for name in folders):
            names = tuple(str(i) for i in range(len(synsets)))
            manifest = super().list_split(split, names)
        elif folders:
            manifest = super().list_split(split, synsets)
        else:
            manifest = self._flat(source, synsets)
        named = class_names if class_names is not None else self.class_names_of(synsets)
        if len(named) != len(synsets):
            raise DatasetError(
                f"{source}: {len(synsets)} synsets for a model of {len(named)} classes"
            )
        return replace(manifest, class_names=tuple(named)) if manifest.class_names else manifest

    def list_class_names(self, name: str) -> tuple[str, ...]:
        """As in the base class, but without looking for the pictures."""
        if self._prepared(name) or self.source_of(self._named(name)).is_file():
            return super().list_class_names(name)
        return self.class_names_of(self.synsets())

    def synsets(self) -> tuple[str, ...]:
        """The synsets in the order of their ids, from the training folder or the words.

        Raises:
            DatasetError: there are none, or not `num_classes`.
        """
        if self._synsets is None:
            train = self.source_of(self.splits["train"] or "train")
            names = class_folders(train) if train.is_dir() else ()
            source, synsets = train, tuple(n for n in names if SYNSET.fullmatch(n))
            if not synsets:
                source = self._words_file() or source
                synsets = tuple(sorted(self._words()))
            if self.num_classes not in (None, len(synsets)) or not synsets:
                raise DatasetError(
                    f"{source}: {len(synsets)} synsets, not {self.num_classes or 'any'}; set "
                    "data.root, or data.num_classes=null for a subset"
                )
            self._synsets = synsets
        return self._synsets

    def class_names_of(self, synsets: Sequence[str]) -> tuple[str, ...]:
        """Words of synsets; those that several share (crane, maillot) get the synset as well."""
        words = self._words()
        return distinct_names({synset: words.get(synset, synset) for synset in synsets})

    def _words_file(self) -> Path | None:
        if self.words is not None:
            return self.root / self.words
        files = (self.root / name for name in WORD_FILES)
        return next((file for file in files if file.is_file()), None)

    def _words(self) -> dict[str, str]:
        """Words of each synset; empty where there is no file."""
        file = self._words_file()
        words: dict[str, str] = {}
        for number, line in enumerate(read_text(file).splitlines() if file else (), 1):
            synset, _, text = line.strip().partition(" ")
            if line.strip() and not (SYNSET.fullmatch(synset) and text.strip()):
                raise DatasetError(
                    f"{at(file or Path(), number)}: expected a synset and its words, not {line!r}"
                )
            words |= {synset: text.strip()} if text else {}
        return words

    def _flat(self, folder: Path, synsets: Sequence[str]) -> Manifest:
        """Pictures of one folder, labelled by a file of ground truth; without labels if none."""
        file = self._truth_file(folder)
        if file is None:
            return super().list_split(str(folder.absolute()), None)
        rows = self._truth_rows(file, folder, synsets)
        return self.locate_rows(str(folder), file, rows, find_by_path, tuple(synsets))

    def _truth_file(self, folder: Path) -> Path | None:
        if self.truth is not None:
            return self.root / self.truth
        files = (place / name for name in TRUTH_FILES for place in (folder, self.root))
        return next((file for file in files if file.is_file()), None)

    def _truth_rows(self, file: Path, folder: Path, synsets: Sequence[str]) -> list[Row]:
        """A row with its synset for each picture of the validation folder."""
        lines = [(n, line.strip()) for n, line in enumerate(read_text(file).splitlines(), 1)]
        lines = [(number, line) for number, line in lines if line]
        if not lines:
            raise DatasetError(f"{file}: no rows; remove it, or set data.truth to another file")
        if file.suffix.lower() == ".csv":
            labelled = _kaggle(file, lines)
        elif all(line.isdecimal() for _, line in lines):
            labelled = _devkit(file, lines)
        else:
            labelled = [_by_id(file, synsets, *line) for line in lines]
        base = os.path.abspath(folder)
        known = set(synsets)
        rows = []
        for number, name, synset in labelled:
            if synset in known or self.num_classes is not None:
                rows.append(Row(number, inside(base, name.strip(), at(file, number)), synset))
        return rows

    def annotated_classes(self, file: Path) -> tuple[str, ...]:
        """All classes: a list has their ids."""
        return self.class_names_of(self.synsets())


def _by_id(file: Path, synsets: Sequence[str], number: int, line: str) -> Labelled:
    name, _, label = line.rpartition(" ")
    if not label.isdecimal() or int(label) >= len(synsets):
        raise DatasetError(
            f"{at(file, number)}: {line!r} does not end in an id below {len(synsets)}; a subset "
            "needs class folders or LOC_val_solution.csv"
        )
    return number, name, synsets[int(label)]


def _kaggle(file: Path, lines: Sequence[tuple[int, str]]) -> list[Labelled]:
    rows = []
    for number, line in lines:
        try:
            rows.append((number, *next(csv.reader([line])), ""))
        except csv.Error as error:  # a cell that is too long
            raise DatasetError(f"{at(file, number)}: {error}") from None
    if not rows or rows[0][1:] != ("ImageId", "PredictionString", ""):
        raise DatasetError(f"{file}: wrong header; expected ImageId,PredictionString")
    return [(number, f"{name}.JPEG", label.split(" ")[0]) for number, name, label, *_ in rows[1:]]


def _devkit(file: Path, lines: Sequence[tuple[int, str]]) -> list[Labelled]:
    synset_of = _read_meta(file.with_name(META))
    for number, line in lines:
        if int(line) not in synset_of:
            raise DatasetError(f"{at(file, number)}: {line} is no synset of {META}")
    return [
        (number, f"ILSVRC2012_val_{picture:08d}.JPEG", synset_of[int(line)])
        for picture, (number, line) in enumerate(lines, 1)
    ]


def _read_meta(file: Path) -> dict[int, str]:
    """The synset of each of the devkit's ids, which are not the usual ones."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DatasetError(
            f"{file}: needs scipy; or set data.truth to Kaggle's LOC_val_solution.csv"
        ) from None
    read: Callable[..., dict] = loadmat
    try:
        synsets = read(str(file), squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DatasetError(f"{file}: not the devkit's {META} ({error})") from None
