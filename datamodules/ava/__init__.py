"""AVA: annotation, keyframes and clips of persons and their actions."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from datamodules.ava.data_module import AVADataModule

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
