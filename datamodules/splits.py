"""The splits of a data set: which videos and classes they have, read once for all processes."""

import logging
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from datamodules.errors import DatasetError
from datamodules.manifests.finding import MissingVideo
from datamodules.manifests.labels import class_report
from datamodules.manifests.lists import read_text
from datamodules.manifests.manifest import Manifest
from datamodules.manifests.parquet import find_manifest
from datamodules.manifests.range_cache import RangeCache
from datamodules.manifests.shared import shared_videos
from datamodules.manifests.splits import list_videos, read_split
from datamodules.processes import in_first_process
from datamodules.suffixes import VIDEOS, Media
from datamodules.wording import counted

log = logging.getLogger(__name__)


class SplitDataModule(LightningDataModule):
    """Videos in splits, without clips or loaders.

    A subclass implements `list_split`, which reads a split. Where `prepare` wrote a manifest for a
    split, every data module reads that instead.

    Args:
        root: folder of the data set; listed paths must lie in it.
        splits: what ``train``, ``val`` and ``test`` are, usually paths relative to ``root``; None
            where there is none.
        predict: video files, folders and annotation files; labels are not read.
        class_names: classes in the order of their ids, or a text file with one name a line,
            relative to ``root``; None: those of the first split that exists.
        cache: local copies of packed videos that lie in a storage; None: none are kept.

    Attributes:
        unit: what a row of the training manifest is, in the plural.
        media: the kind of file that folders are searched for, and what messages call it.
        manifests: of the splits read so far.
        missing: videos missing on the disk, in the splits listed so far.
        predict_root: folder that the relative paths of lists to predict start from; None: the
            list's own, or ``root`` if no video is found there.
    """

    unit: str = "videos"
    media: Media = VIDEOS

    def __init__(
        self,
        root: str | Path,
        splits: Mapping[str, str | None],
        predict: Sequence[str] = (),
        class_names: Sequence[str] | str | Path | None = None,
        cache: RangeCache | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root).expanduser()
        self.splits = dict(splits)
        self.predict_sources = tuple(predict)
        if isinstance(class_names, str | Path):
            class_names = _read_class_names(self.root / class_names)
        self.class_names = None if class_names is None else tuple(class_names)
        self._cache = cache
        self.manifests: dict[str, Manifest] = {}
        self._here: dict[str, Manifest] = {}  # those that this process has read itself
        self.missing: list[MissingVideo] = []
        self.predict_root: Path | None = None

    @abstractmethod
    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """List the videos of a split, whether or not it was prepared.

        Args:
            split: as the configuration names it, or an absolute path.
            class_names: the known classes in the order of their ids; None: take this split's.

        Raises:
            DatasetError: the split is missing, empty or wrong; names the file and the row.
        """

    def list_to_predict(self, file: Path) -> Manifest:
        """The videos of a list or annotation file among those to predict.

        Raises:
            DatasetError: the file is wrong, or none of its videos exists.
        """
        return self.list_split(os.path.abspath(file), None)

    def source_of(self, split: str) -> Path:
        """The folder or file that `list_split` reads, which may not exist."""
        return self.root / split

    def source(self, name: str) -> Path:
        """The folder or file from which `read_split` reads ``train``, ``val`` or ``test``."""
        return self._prepared(name) or self.source_of(self._named(name))

    def read_split(self, name: str) -> Manifest:
        """The videos of ``train``, ``val`` or ``test``, from a manifest of `prepare` if possible.

        Raises:
            DatasetError: the split is null, missing, empty or wrong.
        """
        if prepared := self._prepared(name):
            return read_split(prepared, self.root, self.class_names, self.media)
        return self.list_split(self._named(name), self.class_names)

    def prepared_name(self, name: str) -> str:
        """The folder of the manifest that `prepare` writes for a split, relative to ``--out``."""
        split = self._named(name)
        # A split's name also works below another root; an absolute path or one with .. does not.
        return name if os.path.isabs(split) or ".." in Path(split).parts else split

    def find_class_names(self) -> None:
        """If the class names are not known, set them to those of the first split that exists."""
        if self.class_names is None:
            first = next((name for name, split in self.splits.items() if split), "train")
            names = in_first_process(self.trainer, partial(self.list_class_names, first))
            self.class_names = names or None

    def list_class_names(self, name: str) -> tuple[str, ...]:
        """Classes of a split in the order of their ids; empty if it has no labels.

        With several processes, the first one alone calls this.
        """
        return self._read_here(name).class_names

    def training_manifest(self) -> Manifest:
        """What `fit` trains on: the rows of ``train`` that are not known to be bad, read once.

        Raises:
            DatasetError: the split is null, missing, empty or wrong.
        """
        return self._manifest("train")

    def diagnose(self, splits: Sequence[str]) -> Sequence[Any]:
        """What `check` reports about the annotation, besides faults of the videos; here nothing.

        Args:
            splits: those of ``train``, ``val`` and ``test`` that share a source.

        Returns:
            Objects with ``faults`` and ``lines`` for people (`datamodules.ava.diagnosis`).
        """
        return ()

    def setup(self, stage: str) -> None:
        """Read the class names, then the splits that ``stage`` needs."""
        if self._cache is not None and (self.trainer is None or self.trainer.local_rank == 0):
            self._cache.sweep()
        if stage == "predict":
            self._manifest("predict")
            return
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]
        self.find_class_names()
        used = [name for name in needed if self.splits[name] is not None or name != "val"]
        self._describe({name: self._manifest(name) for name in used})

    def _named(self, name: str) -> str:
        split = self.splits[name]
        if split is None:
            raise DatasetError(f"data.{name} is null: there is no such split in {self.root}")
        return split

    def _prepared(self, name: str) -> Path | None:
        """The file or folder with the manifest that `prepare` wrote for a split, if it did."""
        places = (self.root / self._named(name), self.root / self.prepared_name(name))
        return next((place for place in places if find_manifest(place)), None)

    def _manifest(self, name: str) -> Manifest:
        if name not in self.manifests:
            # Read once: all processes have the same rows.
            manifest = in_first_process(self.trainer, partial(self._read_here, name))
            if self._cache is not None:
                manifest = replace(manifest, cache=self._cache)
            self.manifests[name] = manifest
        return self.manifests[name]

    def _read_here(self, name: str) -> Manifest:
        """As `_read`, in this process alone, and once."""
        if name not in self._here:
            self._here[name] = self._read(name)
        return self._here[name]

    def _read(self, name: str) -> Manifest:
        if name == "predict":
            return list_videos(self.predict_sources, self.list_to_predict, self.media)
        manifest = self.read_split(name)
        if name != "train":  # evaluation counts bad videos as wrong
            return manifest
        usable = manifest.without_bad()
        if left_out := len(manifest) - len(usable):
            files = counted(len(manifest), f"training {self.media.noun}")
            verb = "is" if left_out == 1 else "are"
            log.warning(f"{left_out} of {files} {verb} bad and left out")
        return usable

    def _describe(self, manifests: Mapping[str, Manifest]) -> None:
        """Log how many videos the classes of splits have, and what is suspicious about them."""
        if self.trainer is not None and not self.trainer.is_global_zero:
            return
        for name, manifest in manifests.items():
            line, warnings = class_report(
                name, manifest.class_counts(), manifest.class_names, self.media.noun
            )
            if line:
                log.info(line)
            for warning in warnings:
                log.warning(warning)
        for warning in shared_videos(manifests, self.media.noun):
            log.warning(warning)


def _read_class_names(file: Path) -> tuple[str, ...]:
    names = tuple(line.strip() for line in read_text(file).split("\n") if line.strip())
    if not names or len(set(names)) < len(names):
        raise DatasetError(f"{file}: expected one class name a line, each only once")
    return names
