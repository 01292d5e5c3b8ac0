"""What else happens in a run: files, pictures, checkpoints, averaged weights."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.callbacks.averaging import AveragedWeights, ema
    from hiera_video.callbacks.confusion import ConfusionPicture
    from hiera_video.callbacks.detections import DetectionTable
    from hiera_video.callbacks.hyperparameters import Hyperparameters
    from hiera_video.callbacks.instances import InstanceFile
    from hiera_video.callbacks.last_checkpoint import LastCheckpoint
    from hiera_video.callbacks.learning_rate import LearningRate
    from hiera_video.callbacks.logged_steps import LogLastStep
    from hiera_video.callbacks.metrics_file import Curves, MetricsFile
    from hiera_video.callbacks.not_finite import StopIfNotFinite
    from hiera_video.callbacks.predictions import PredictionLines, PredictionTable
    from hiera_video.callbacks.probe import Probe
    from hiera_video.callbacks.progress import ProgressLines
    from hiera_video.callbacks.reconstructions import ReconstructionPictures
    from hiera_video.callbacks.recovery import ContinueEpoch, SaveOnSigterm
    from hiera_video.callbacks.run_record import RunRecord
    from hiera_video.callbacks.speed import Speed
    from hiera_video.callbacks.stall import StallReport
    from hiera_video.callbacks.tracking import MLflowRun, WandbRun

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
