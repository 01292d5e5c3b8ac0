"""What a network is trained and evaluated for; each task is a ``LightningModule``.

Beside them, Lightning's strategy for a task whose network is sharded.
"""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.tasks.base import VideoTask
    from hiera_video.tasks.classification import ClassificationTask
    from hiera_video.tasks.detection import DetectionTask
    from hiera_video.tasks.instance_segmentation import InstanceSegmentationTask
    from hiera_video.tasks.pretraining import PretrainingTask
    from hiera_video.tasks.probing import ProbingTask
    from hiera_video.tasks.sharded_strategy import ShardedStrategy

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
