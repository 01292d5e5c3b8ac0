"""Metrics of torchmetrics' kind, exact over views and processes."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.metrics.ava import AVAMeanAveragePrecision
    from hiera_video.metrics.coco import CocoAveragePrecision
    from hiera_video.metrics.multi_view import MultiViewAccuracy
    from hiera_video.metrics.probe import FeatureProbe

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
