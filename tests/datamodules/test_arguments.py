import math

import pytest

from datamodules.arguments import check_positive


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_what_is_not_above_0_is_named(value):
    with pytest.raises(ValueError, match=f"fps must be positive, not {value}"):
        check_positive(size=1, fps=value)
