import math

import pytest

from hiera_video.tasks.pretraining import PretrainingTask
from tests.models.small import tiny_mae


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan])
def test_a_rate_that_is_no_number_above_0_is_refused(lr):
    with pytest.raises(ValueError, match=f"lr must be above 0 and finite, not {lr}"):
        PretrainingTask(tiny_mae, lr=lr)


@pytest.mark.parametrize("name", ["weight_decay", "warmup_epochs"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_numbers_that_are_negative_or_not_finite_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be 0 or more, and finite, not {value}"):
        PretrainingTask(tiny_mae, **{name: value})
