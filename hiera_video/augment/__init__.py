"""Normalisation and augmentation of batches of clips, on the device."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.augment.basic import Normalize
    from hiera_video.augment.erasing import RandomErasing
    from hiera_video.augment.mixing import Mixing
    from hiera_video.augment.pipeline import Augmentation
    from hiera_video.augment.rand_augment import RandAugment
    from hiera_video.augment.random import normal, uniform

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
