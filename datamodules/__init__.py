"""Videos on disk, and batches of clips from them."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from datamodules.annotated import AnnotatedVideoDataModule
    from datamodules.ava.data_module import AVADataModule
    from datamodules.base import VideoDataModule
    from datamodules.clips.videos import ClipFormat
    from datamodules.coco.data_module import CocoDataModule
    from datamodules.errors import DatasetError, UserError, VideoDecodeError
    from datamodules.folder import VideoFolderDataModule
    from datamodules.kinetics import KineticsDataModule
    from datamodules.manifests.finding import find_by_path, find_by_stem
    from datamodules.manifests.lists import Row
    from datamodules.manifests.manifest import Manifest, make_manifest
    from datamodules.ssv2 import SSv2DataModule
    from datamodules.synthetic import SyntheticMotionDataModule
    from datamodules.synthetic_actions import SyntheticActionDataModule
    from datamodules.synthetic_ava import SyntheticAVADataModule
    from datamodules.synthetic_coco import SyntheticCocoDataModule
    from datamodules.video.decoding import VideoFile

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "annotated": ["AnnotatedVideoDataModule"],
        "ava.data_module": ["AVADataModule"],
        "base": ["VideoDataModule"],
        "clips.videos": ["ClipFormat"],
        "coco.data_module": ["CocoDataModule"],
        "errors": ["DatasetError", "UserError", "VideoDecodeError"],
        "folder": ["VideoFolderDataModule"],
        "kinetics": ["KineticsDataModule"],
        "manifests.finding": ["find_by_path", "find_by_stem"],
        "manifests.lists": ["Row"],
        "manifests.manifest": ["Manifest", "make_manifest"],
        "ssv2": ["SSv2DataModule"],
        "synthetic": ["SyntheticMotionDataModule"],
        "synthetic_actions": ["SyntheticActionDataModule"],
        "synthetic_ava": ["SyntheticAVADataModule"],
        "synthetic_coco": ["SyntheticCocoDataModule"],
        "video.decoding": ["VideoFile"],
    },
)
