"""COCO: pictures with boxes, classes and masks of objects."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from datamodules.coco.data_module import CocoDataModule

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
