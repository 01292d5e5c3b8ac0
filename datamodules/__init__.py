"""Videos and pictures on disk, and batches of clips from them."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from datamodules.annotated import AnnotatedVideoDataModule
    from datamodules.ava.data_module import AVADataModule
    from datamodules.base import VideoDataModule
    from datamodules.clips.format import ClipFormat
    from datamodules.coco.data_module import CocoDataModule
    from datamodules.coloured_shapes import example_clips
    from datamodules.errors import DatasetError, UserError, VideoDecodeError
    from datamodules.folder import VideoFolderDataModule
    from datamodules.images.annotated import INaturalistDataModule, Places365DataModule
    from datamodules.images.folder import ImageFolderDataModule
    from datamodules.images.imagenet import ImageNetDataModule
    from datamodules.images.shapes import SyntheticShapesDataModule
    from datamodules.kinetics import KineticsDataModule
    from datamodules.manifests.finding import find_by_path, find_by_stem
    from datamodules.manifests.lists import Row
    from datamodules.manifests.manifest import Manifest, make_manifest
    from datamodules.manifests.splitting import split_folder
    from datamodules.ssv2 import SSv2DataModule
    from datamodules.synthetic import SyntheticMotionDataModule
    from datamodules.synthetic_actions import SyntheticActionDataModule
    from datamodules.synthetic_ava import SyntheticAVADataModule
    from datamodules.synthetic_coco import SyntheticCocoDataModule
    from datamodules.video.decoding import VideoFile
    from datamodules.video.pictures import PictureFile

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
