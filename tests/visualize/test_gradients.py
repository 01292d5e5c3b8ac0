import numpy as np
import pytest
import torch

from hiera_video.models.targets import HOGTarget
from hiera_video.visualize.gradients import histogram_pictures


@pytest.mark.parametrize("degrees", range(5, 180, 20))
def test_a_line_runs_along_the_edge(degrees):
    """An edge at an angle to the x axis is drawn as a line at that angle."""
    angle = np.radians(degrees)
    y, x = np.mgrid[:64, :64] - 31.5
    ramp = 50 * torch.from_numpy(x * np.sin(angle) + y * np.cos(angle)).float()  # grows across
    histograms = HOGTarget((16, 16), 2, 3).histograms(ramp.expand(3, 64, 64))
    star = histogram_pictures(histograms)[:, 24:32, 24:32].float().mean(0).numpy()
    offset = np.arange(8) - 3.5
    weight = star / star.sum()
    # The longest axis of the bright pixels, from their second moments.
    xx = (weight * offset[None, :] ** 2).sum()
    yy = (weight * offset[:, None] ** 2).sum()
    xy = (weight * offset[None, :] * offset[:, None]).sum()
    drawn = 0.5 * np.arctan2(2 * xy, xx - yy)
    edge = np.arctan2(-np.sin(angle), np.cos(angle))  # at a right angle to the gradient
    difference = (drawn - edge + np.pi / 2) % np.pi - np.pi / 2
    assert abs(np.degrees(difference)) <= 10.5  # half a bin of 20 degrees


def test_cells_and_colours_are_in_their_places():
    histograms = torch.zeros(2, 3, 9, 3, 4)
    histograms[1, 2, 4, 0, 3] = 1
    picture = histogram_pictures(histograms)
    assert picture.shape == (2, 3, 24, 32)
    assert picture.dtype == torch.uint8
    assert picture[1, 2, :8, 24:].max() > 100
    picture[1, 2, :8, 24:] = 0
    assert not picture.any()


def test_histograms_with_predictions_are_those_of_the_video_elsewhere():
    target = HOGTarget((16, 16), 2, 3)
    video = torch.rand(2, 3, 4, 32, 48)
    where = torch.tensor([[0, 5, 7], [1, 2, 11]])  # of 2 x 2 x 3 patches
    whole = target.histograms(video[:, :, ::2])
    same = target.with_predictions(video, where, target(video, where))
    assert torch.equal(same, whole)
    changed = target.with_predictions(video, where, torch.ones(2, 3, target.dim))
    assert changed.shape == whole.shape == (2, 3, 2, 9, 4, 6)
    for sample, places in enumerate(where.tolist()):
        for patch in range(12):
            t, y, x = np.unravel_index(patch, (2, 2, 3))
            cells = (sample, slice(None), t, slice(None), slice(2 * y, 2 * y + 2))
            part = changed[cells][..., 2 * x : 2 * x + 2]
            if patch in places:
                assert (part == 1).all()
            else:
                assert torch.equal(part, whole[cells][..., 2 * x : 2 * x + 2])
