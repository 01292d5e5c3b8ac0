import numpy as np
import pytest

from hiera_video.metrics.view_groups import spread, view_group, view_groups


@pytest.mark.parametrize("length", range(1, 41))
def test_places_are_spread_and_reach_both_ends(length):
    for count in range(1, length + 1):
        places = spread(count, length)
        assert len(set(places)) == count
        assert places == sorted(places)
        if count > 1:
            assert (places[0], places[-1]) == (0, length - 1)
            # At most half a place from `i * (length - 1) / (count - 1)`, in whole numbers.
            distance = np.array(places) * (count - 1) - np.arange(count) * (length - 1)
            assert np.abs(2 * distance).max() <= count - 1


def test_groups_of_a_kinetics_test():
    groups = view_groups(5, 3)
    assert [g.name for g in groups[:4]] == ["1x1", "1x2", "1x3", "2x1"]
    assert len(groups) == 15
    assert groups[0].views == (7,)  # the middle moment, the middle of the picture
    assert groups[3].views == (1, 13)  # both ends, the middle of the picture
    assert groups[-1].views == tuple(range(15))


def test_more_views_than_there_are():
    with pytest.raises(ValueError, match="no 6x3 views: there are 5x3"):
        view_group(6, 3, 5, 3)
