"""Something-Something V2, as Qualcomm publishes it."""

import csv
import os
from pathlib import Path
from typing import Any

from datamodules.annotated import AnnotatedVideoDataModule
from datamodules.errors import DatasetError
from datamodules.manifests.finding import Find, find_by_stem
from datamodules.manifests.lists import Row, at, inside, read_json, read_text

PREFIX = "something-something-v2-"  # older file names begin with it


class SSv2DataModule(AnnotatedVideoDataModule):
    """Something-Something V2: short clips of what hands do to things, in 174 classes.

    For a split named ``train`` the file ``something-something-v2-train.json`` or ``train.json`` is
    looked for in ``annotations``, ``labels`` and the root; the classes and their ids are those of
    ``something-something-v2-labels.json`` or ``labels.json`` beside it. The videos are
    ``<id>.webm``, or have another suffix. Lists ``path label`` and class folders are read, too. The
    test split has no labels, unless ``test-answers.csv`` (lines ``id;label``) lies beside it.

    Args:
        root: folder of the data set; all named videos must lie in it.
        train: training split.
        val: validation split.
        test: test split; by default the validation split, on which results are published.
        *args: see `VideoDataModule`.
        videos: folder of the videos, relative to ``root``.
        num_classes: number of classes that there must be; None: any, as in a subset.
        sampling: see `VideoDataModule`.
        test_views: see `VideoDataModule`.
        **kwargs: see `AnnotatedVideoDataModule` and `VideoDataModule`.
    """

    def __init__(
        self,
        root: str | Path,
        train: str | None = "train",
        val: str | None = "validation",
        test: str | None = "validation",
        *args,
        videos: str = "20bn-something-something-v2",
        num_classes: int | None = 174,
        sampling: str = "segments",
        test_views: tuple[int, int] = (1, 3),
        **kwargs,
    ) -> None:
        kwargs |= {"num_classes": num_classes, "sampling": sampling, "test_views": test_views}
        super().__init__(root, train, val, test, *args, **kwargs)
        self.videos = videos

    def annotation_file(self, split: str) -> str:
        """``something-something-v2-train.json`` or ``train.json``."""
        return rf"({PREFIX})?{split}\.json"

    def read_annotation(self, file: Path) -> tuple[list[Row], Find]:
        """The rows of the published JSON file or of a list of paths."""
        if file.suffix.lower() != ".json":
            return super().read_annotation(file)
        records = read_json(file)
        if not isinstance(records, list) or not records:
            raise DatasetError(f"{file}: expected a list of records with id and template")
        if not any(isinstance(record, dict) and "template" in record for record in records):
            labels = _answers(file)
            if not labels and any(isinstance(r, dict) and "label" in r for r in records):
                raise DatasetError(
                    f"{file}: no record has a template, which is its class; label is a sentence"
                )
        else:
            labels = None
        folder = inside(os.path.abspath(self.root), self.videos, "data.videos")
        rows = []
        for number, record in enumerate(records, 1):
            where = at(file, number)
            name = _text(record, "id", where)
            if name in (".", "..") or not {"/", "\0"}.isdisjoint(name):
                raise DatasetError(f"{where}: {name!r} is not the id of a video")
            if labels is None:
                label = _class_of(_text(record, "template", where))
            elif labels and name not in labels:
                raise DatasetError(f"{where}: {file.stem}-answers.csv has no {name!r}")
            else:
                label = labels.get(name, "")
            rows.append(Row(number, os.path.join(folder, name), label))
        return rows, find_by_stem

    def annotated_classes(self, file: Path) -> tuple[str, ...]:
        """The classes of the published labels file; without one, those of the annotation itself."""
        names = (f"{PREFIX}labels.json", "labels.json")
        if not file.name.startswith(PREFIX):
            names = names[::-1]
        folders = [file.parent, *self.annotation_folders()]
        candidates = (folder / name for folder in folders for name in names)
        labels = next((path for path in candidates if path.is_file()), None)
        return super().annotated_classes(file) if labels is None else read_labels(labels)


def read_labels(file: Path) -> tuple[str, ...]:
    """Classes in the order of their ids, from a JSON object that maps each class to its id.

    Raises:
        DatasetError: the file is not such an object, or the ids are not 0, 1, 2 and so on.
    """
    labels = read_json(file)
    if not isinstance(labels, dict) or not labels:
        raise DatasetError(f"{file}: expected an object that maps classes to ids")
    by_id = {str(number): _class_of(name) for name, number in labels.items()}
    if set(by_id) != set(map(str, range(len(labels)))):
        raise DatasetError(f"{file}: the {len(labels)} classes do not have the ids from 0 on")
    if "" in by_id.values() or len(set(by_id.values())) < len(by_id):
        raise DatasetError(f"{file}: a class is empty or occurs twice")
    return tuple(by_id[str(i)] for i in range(len(by_id)))


def _class_of(template: str) -> str:
    return template.replace("[", "").replace("]", "").strip()


def _text(record: Any, key: str, where: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    text = str(value).strip() if isinstance(value, str | int) else ""
    if not text:
        if value is not None and not isinstance(value, str):
            raise DatasetError(f"{where}: {key} {value!r} is neither a text nor a whole number")
        raise DatasetError(f"{where}: expected an object whose {key} is not empty")
    return text


def _answers(file: Path) -> dict[str, str]:
    """Labels by id, from the file of answers beside a test split; empty without one."""
    answers = file.with_name(f"{file.stem}-answers.csv")
    if not answers.is_file():
        return {}
    lines = list(csv.reader(read_text(answers).splitlines(), delimiter=";"))
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or not all(cell.strip() for cell in line):
            raise DatasetError(f"{at(answers, number)}: expected 'id;label'")
    return {name.strip(): _class_of(label) for name, label in lines}
