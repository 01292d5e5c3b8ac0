import math

import pytest

from hiera_video.tasks.pretraining import PretrainingTask
from tests.models.small import tiny_mae


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan])
def test_a_rate_that_is_no_number_above_0_is_refused(lr):
    with pytest.raises(ValueError, match=f"lr must be above 0, not {lr}"):
        PretrainingTask(tiny_mae, lr=lr)
