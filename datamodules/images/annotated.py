"""Pictures that published annotation files name: iNaturalist and Places365."""

import os
from abc import ABC
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.annotated import AnnotatedVideoDataModule
from datamodules.errors import DatasetError
from datamodules.images.folder import ImageFolderDataModule
from datamodules.manifests.finding import Find, find_by_path
from datamodules.manifests.labels import distinct_names
from datamodules.manifests.lists import Row, at, inside, read_json, read_text


class AnnotatedImageDataModule(ImageFolderDataModule, AnnotatedVideoDataModule, ABC):
    """Pictures that annotation files name; see `AnnotatedVideoDataModule`."""


class INaturalistDataModule(AnnotatedImageDataModule):
    """iNaturalist 2017, 2018 and 2019 as published: species of plants and animals.

    A split such as ``train2018`` has the annotation ``train2018.json``, in COCO's form: ``images``
    with ``id`` and ``file_name``, ``annotations`` with ``image_id`` and ``category_id``, and
    ``categories`` with ``id`` and ``name``. Classes are in the order of their category ids.

    Args:
        *args: see `AnnotatedVideoDataModule`.
        categories: json file with the names of the categories, relative to ``root``: in 2018 and
            2019 the annotations themselves have numbers in place of names. None: those of the
            annotation.
        num_classes: number of categories of the year: 5089, 8142 or 1010.
        **kwargs: see `AnnotatedVideoDataModule` and `ImageFolderDataModule`.
    """

    def __init__(
        self,
        *args,
        categories: str | None = None,
        num_classes: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(*args, num_classes=num_classes, **kwargs)
        self.categories = categories

    def annotation_file(self, split: str) -> str:
        """``train2018.json`` for the split ``train2018``."""
        return rf"{split}\.json"

    def read_annotation(self, file: Path) -> tuple[list[Row], Find]:
        """The json, or a list of paths."""
        if file.suffix.lower() != ".json":
            return super().read_annotation(file)
        annotation = read_json(file)
        names = self._names(file, annotation)
        try:
            images = [(image["id"], image["file_name"]) for image in annotation["images"]]
            pairs = [(a["image_id"], a["category_id"]) for a in annotation.get("annotations", ())]
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{file}: not an annotation of iNaturalist ({type(error).__name__}: {error})"
            ) from None
        paths = dict(images)
        if len(paths) < len(images):
            twice = next(i for i, count in Counter(i for i, _ in images).items() if count > 1)
            raise DatasetError(f"{file}: several images have the id {twice!r}")
        base, rows = os.path.abspath(self.root), []
        for number, (image, category) in enumerate(pairs or [(i, None) for i in paths], 1):
            where = at(file, number)
            for section, known, i in (("images", paths, image), ("categories", names, category)):
                if i is not None and i not in known:
                    raise DatasetError(f"{where}: {i!r} is not among the ids of {section}")
            label = "" if category is None else names[category]
            rows.append(Row(number, inside(base, paths[image], where), label))
        return rows, find_by_path

    def annotated_classes(self, file: Path) -> tuple[str, ...]:
        """Names of the categories in the order of their ids."""
        if file.suffix.lower() != ".json":
            return super().annotated_classes(file)
        names = self._names(file, read_json(file))
        return tuple(names[i] for i in sorted(names))

    def _names(self, file: Path, annotation: Mapping[str, Any]) -> dict[int, str]:
        """The name of each category; the id is added to a name that several have."""
        source = file if self.categories is None else self.root / self.categories
        content = annotation if self.categories is None else read_json(source)
        listed = content.get("categories", ()) if isinstance(content, Mapping) else content
        try:
            names = {int(category["id"]): str(category["name"]) for category in listed}
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{source}: its categories have no id and name ({error})") from None
        return dict(zip(names, distinct_names(names), strict=True))


class Places365DataModule(AnnotatedImageDataModule):
    """Places365-Standard as published: 365 kinds of scenes.

    A split such as ``train_standard`` has the list ``places365_train_standard.txt`` with lines
    ``/a/airfield/00000001.jpg 0``, whose paths are below `pictures`; ``val`` has
    ``places365_val.txt`` with lines ``Places365_val_00000001.jpg 165``.

    Args:
        *args: see `AnnotatedVideoDataModule`.
        pictures: for each split the folder of its pictures, relative to ``root``.
        categories: file with lines ``/a/airfield 0``, relative to ``root``.
        num_classes: number of categories; None: any, as in a subset.
        **kwargs: see `AnnotatedVideoDataModule` and `ImageFolderDataModule`.
    """

    def __init__(
        self,
        *args,
        pictures: Mapping[str, str] | None = None,
        categories: str = "categories_places365.txt",
        num_classes: int | None = 365,
        **kwargs,
    ) -> None:
        super().__init__(*args, num_classes=num_classes, **kwargs)
        self.pictures, self.categories = dict(pictures or {}), categories

    def annotation_file(self, split: str) -> str:
        """``places365_val.txt`` for the split ``val``."""
        return rf"places365_{split}\.txt"

    def read_annotation(self, file: Path) -> tuple[list[Row], Find]:
        """The list of a split."""
        split = file.stem.removeprefix("places365_")
        folder = os.path.join(os.path.abspath(self.root), self.pictures.get(split, split))
        names = self._names()
        rows = []
        for number, line in enumerate(read_text(file).splitlines(), 1):
            path, _, label = line.strip().rpartition(" ")
            if label not in names or not path:
                raise DatasetError(
                    f"{at(file, number)}: expected a path and the id of a category, not {line!r}"
                )
            rows.append(
                Row(number, inside(folder, path.lstrip("/"), at(file, number)), names[label])
            )
        return rows, find_by_path

    def annotated_classes(self, file: Path) -> tuple[str, ...]:
        """Names of the categories in the order of their ids."""
        return tuple(self._names().values())

    def _names(self) -> dict[str, str]:
        """The name of each category, by its id, in the order of the ids."""
        file = self.root / self.categories
        rows = [line.split() for line in read_text(file).splitlines() if line.strip()]
        if not all(len(row) == 2 and row[1].isdecimal() for row in rows):
            raise DatasetError(f"{file}: expected lines such as '/a/airfield 0'")
        rows.sort(key=lambda row: int(row[1]))
        return {i: name.strip("/").partition("/")[2] for name, i in rows}
