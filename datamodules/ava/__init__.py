"""AVA: annotation, keyframes and clips of persons and their actions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.ava.data_module import AVADataModule

__all__ = ["AVADataModule"]


def __getattr__(name: str) -> Any:
    """Import Lightning only when the data module is asked for."""
    if name != "AVADataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("datamodules.ava.data_module").AVADataModule
