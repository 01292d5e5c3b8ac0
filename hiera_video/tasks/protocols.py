"""What tasks and callbacks ask of a data module.

Lightning takes any ``LightningDataModule``. The members below are the ones that this project relies
on; a data module of your own that has them works with all tasks and callbacks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from lightning import Trainer


@runtime_checkable
class Videos(Protocol):
    """The videos of a split; `datamodules.manifests.splits.Manifest` is such a list."""

    @property
    def table(self) -> Any:
        """The ``pyarrow.Table`` of the videos, with at least the columns ``path``, ``label``."""
        ...

    @property
    def root(self) -> str:
        """The folder that paths are relative to."""
        ...

    def path(self, index: int) -> str:
        """The path of the video with this id."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class VideoData(Protocol):
    """Videos in splits; `datamodules.base.VideoDataModule` is such a data module."""

    @property
    def manifests(self) -> Mapping[str, Videos]:
        """The splits that were read so far: ``train``, ``val``, ``test`` or ``predict``."""
        ...

    @property
    def class_names(self) -> Sequence[str] | None:
        """Classes in the order of the label ids; None where the data has no labels."""
        ...

    @property
    def clip(self) -> Any:
        """Frames, rate and size of a clip; its text says all of it."""
        ...

    @property
    def batch_size(self) -> int:
        """Videos in a training batch of one process."""
        ...

    @property
    def repeats(self) -> int:
        """Clips of each video in a training batch."""
        ...

    def views(self, split: str) -> tuple[int, int]:
        """Temporal and spatial views with which a split is evaluated now."""
        ...

    def evaluation_loader(self, split: str, max_videos: int | None = None) -> Any:
        """Batches of all views of a split's videos, or of ``max_videos`` of them."""
        ...

    def leave_out(self, split: str, video_ids: np.ndarray) -> None:
        """Evaluate a split without these videos, int64 ``(n,)``."""
        ...


@runtime_checkable
class ActionData(VideoData, Protocol):
    """Keyframes with boxes; `datamodules.ava.AVADataModule` is such a data module."""

    @property
    def action_ids(self) -> Sequence[int]:
        """AVA's number of each class, in the order of `class_names`."""
        ...

    @property
    def evaluated_action_ids(self) -> Sequence[int]:
        """Those of `action_ids` that count in the mAP."""
        ...

    @property
    def eval_short_side(self) -> int | None:
        """Pixels of the short side of a picture in evaluation; None: the clip just fits in."""
        ...

    @property
    def eval_pad(self) -> Sequence[int] | None:
        """Height and width to which whole pictures are padded in evaluation; None: crops."""
        ...

    def ground_truth(self, split: str) -> Any:
        """All annotated boxes of a split."""
        ...

    def video_names(self, split: str) -> Sequence[str]:
        """Names of a split's videos by ``video_id``."""
        ...


@runtime_checkable
class ObjectData(VideoData, Protocol):
    """Pictures with objects; `datamodules.coco.CocoDataModule` is such a data module."""

    @property
    def category_ids(self) -> Sequence[int]:
        """COCO's number of each class, in the order of `class_names`."""
        ...

    def ground_truth(self, split: str) -> Mapping[str, Any]:
        """The content of a split's annotation file."""
        ...


def data_of(trainer: Trainer) -> VideoData:
    """The trainer's data module."""
    # Lightning sets this attribute but does not declare it.
    return trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]


def action_data_of(trainer: Trainer) -> ActionData:
    """The trainer's data module, of keyframes."""
    return cast(ActionData, data_of(trainer))
