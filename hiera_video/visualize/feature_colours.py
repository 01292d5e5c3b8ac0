"""Maps of features as colours: their three main directions as red, green and blue."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from hiera_video.visualize.heat import enlarged
from hiera_video.visualize.reconstruction import picture_sheet, to_image

SIDE = 128  # pixels to which pictures of a sheet are enlarged
SPREAD = 2.5  # standard deviations of a direction from black to white, to each side of grey


def principal_colours(features: np.ndarray) -> np.ndarray:
    """Colour features by a principal component analysis (PCA), without labels.

    Features that are alike get similar colours. The first direction, along which they differ most,
    is red, the second green, the third blue; each is scaled to its own deviation, and mid-grey is
    the mean. So colours can be compared within one call, not between two.

    Args:
        features: float ``(..., C)``, such as maps ``(T', H', W', C)``.

    Returns:
        uint8 ``(..., 3)``.
    """
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)  # (N, C)
    flat = flat - flat.mean(axis=0)
    directions = np.linalg.eigh(flat.T @ flat / len(flat)).eigenvectors  # ascending
    axes = directions[:, ::-1][:, :3]  # (C, 3)
    strongest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[strongest, range(axes.shape[1])])  # else the sign is arbitrary
    scores = np.zeros((len(flat), 3))
    scores[:, : axes.shape[1]] = flat @ axes
    deviation = scores.std(axis=0)
    scores /= SPREAD * np.where(deviation > 1e-6 * deviation.max(initial=0), deviation, np.inf)
    colours = ((scores.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    return colours.reshape(*features.shape[:-1], 3)


def stage_pictures(clip: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
    """A clip, and the features of each stage as colours, over the time of the tokens.

    Args:
        clip: uint8 ``(T, H, W, 3)``.
        maps: of each stage, float ``(T', H', W', C)``; all have the same T', which divides T, and
            H' and W' divide H and W.

    Returns:
        uint8 ``(1 + stages, T', H, W, 3)``: the first frame of each token's time, then the stages.
    """
    height, width = clip.shape[1:3]
    times = len(maps[0])
    rows = [clip[:: len(clip) // times]]  # (T', H, W, 3)
    for features in maps:
        colours = principal_colours(features)  # (T', H', W', 3)
        down, across = height // colours.shape[1], width // colours.shape[2]
        rows.append(colours.repeat(down, axis=1).repeat(across, axis=2))
    return np.stack(rows)


def stage_sheet(clip: np.ndarray, maps: Sequence[np.ndarray]) -> Image.Image:
    """The `stage_pictures` as one picture: a row for the clip and each stage, time to the right.

    Args:
        clip: as in `stage_pictures`.
        maps: as in `stage_pictures`.
    """
    rows = np.stack([enlarged(row, SIDE) for row in stage_pictures(clip, maps)])
    captions = ["clip"] + [
        f"stage {i}: {' x '.join(map(str, size))} tokens, {channels} channels"
        for i, (*size, channels) in enumerate([features.shape for features in maps], 1)
    ]
    return to_image(picture_sheet(torch.from_numpy(rows)[None], captions))
