"""Results of tests, with numbers that a test can know."""

import numpy as np

from hiera_video.metrics.ava_results import AVAResults
from hiera_video.metrics.coco_results import MEASURES, CocoResults


def ava_results() -> AVAResults:
    """An mAP of 0.5; the two classes are poses, and one has no ground truth."""
    precision = np.array([0.5, np.nan])
    return AVAResults(["stand", "fly"], [12, 2], "official", precision, np.array([3, 0]))


def coco_results() -> CocoResults:
    """An AP of 0.4 of masks and 0.3 of boxes; small objects and one class have none."""
    values = {"mask": 0.4, "box": 0.3}
    numbers = {
        kind: dict.fromkeys(MEASURES, value) | {"APs": np.nan} for kind, value in values.items()
    }
    per_class = {kind: np.array([value, np.nan]) for kind, value in values.items()}
    return CocoResults(["cup", "fork"], [47, 48], numbers, per_class, np.array([3, 0]))
