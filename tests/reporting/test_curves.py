"""What charts show of logged numbers."""

import pytest

from hiera_video.reporting.curves import LEARNING, charts, other_charts, thinned, ticks
from hiera_video.reporting.run_files import Curve


def curve(*values, left_out=0):
    return Curve([10 * (i + 1) for i in range(len(values))], list(values), left_out)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.11, 0.42, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (-3, 3, [-4, -2, 0, 2, 4]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (5, 5, [0, 2, 4, 6, 8, 10]),
        (-5, -5, [-10, -8, -6, -4, -2, 0]),
    ],
)
def test_ticks_are_round_and_around_the_values(low, high, expected):
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_a_long_curve_is_averaged():
    points = thinned(Curve(list(range(4000)), [float(n % 2) for n in range(4000)], 0))
    assert len(points) == 400
    assert points[0] == (4.5, 0.5)
    assert points[-1] == (3994.5, 0.5)


def test_groups_share_a_chart_and_the_rest_have_their_own():
    curves = {
        "lr": curve(1e-3, 1e-4),
        "my/number": curve(7.0),
        "speed/rank_3/clips_per_second": curve(1.0),
        "train/loss": curve(3.0, 2.0, left_out=4),
        "val/loss": curve(),
        "val/top1": curve(0.25, 0.755),
    }
    loss, accuracy, rate = charts(curves, LEARNING)
    assert (loss.title, accuracy.title, rate.title) == ("Loss", "Accuracy", "Learning rate")
    assert loss.lines == [("train/loss", "2", "2 to 3, 4 not finite")]
    assert accuracy.lines == [("val/top1", "75.5%", "25% to 75.5%")]
    assert [chart.title for chart in other_charts(curves)] == ["my/number"]


def test_lines_run_from_left_to_right_and_upwards():
    (chart,) = charts({"train/loss": curve(1.0, 2.0, 3.0)}, LEARNING)
    points = chart.svg.partition('points="')[2].partition('"')[0].split()
    xs, ys = zip(*(map(float, point.split(",")) for point in points), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)  # y of SVG grows downwards


def test_names_are_escaped():
    (chart,) = other_charts({"<b>&": curve(1.0)})
    assert "<b>" not in chart.svg
    assert "&lt;b&gt;&amp;" in chart.svg
