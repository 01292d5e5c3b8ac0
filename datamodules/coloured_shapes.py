"""A folder of short clips to try things with: the class of a clip is the colour of its shape.

Colours of one class vary, so that neighbouring classes overlap a little: a small network learns
most of the classes in seconds, and still makes mistakes that are worth a look.
"""

import colorsys
from pathlib import Path

import numpy as np

from datamodules.synthetic import coverage, described_folder, texture, write_once, write_videos

# Hues in [0, 1), as in the colour model HSV.
HUES = {"blue": 0.62, "green": 0.36, "orange": 0.065, "red": 0.0, "violet": 0.78, "yellow": 0.15}
SPREAD = 0.022  # standard deviation of the hues of a class
VERSION = 1  # of the drawings; a new version is a new folder


def example_clips(
    root: str | Path = "data/synthetic", per_class: int = 24, frames: int = 24, size: int = 64
) -> Path:
    """Write a folder of clips, unless it exists: ``<class>/*.mp4`` for each of six colours.

    In each clip a textured shape turns and drifts over a still, greyish background.

    Args:
        root: folder for synthetic data; the clips get a folder of their own below it.
        per_class: clips of each class.
        frames: of a clip, 30 a second.
        size: height and width of a clip, pixels.

    Returns:
        The folder with the class folders.
    """
    description = {"version": VERSION, "per_class": per_class, "frames": frames, "size": size}
    folder = described_folder(root, "colours", description)
    names = [name for name in HUES for _ in range(per_class)]

    def draw(number: int) -> np.ndarray:
        return draw_clip(names[number], np.random.default_rng((VERSION, number)), frames, size)

    def write(unfinished: Path) -> None:
        paths = [unfinished / n / f"{i % per_class:03d}.mp4" for i, n in enumerate(names)]
        write_videos(paths, draw)

    write_once(folder, description, write)
    return folder


def draw_clip(
    colour: str, rng: np.random.Generator, frames: int = 24, size: int = 64
) -> np.ndarray:
    """Draw one clip.

    Args:
        colour: one of `HUES`.
        rng: source of randomness.
        frames: of the clip.
        size: height and width, pixels.

    Returns:
        uint8 ``(frames, size, size, 3)``, RGB.
    """
    radius = size * rng.uniform(0.22, 0.32)
    start, end = rng.uniform(radius, size - radius, (2, 2))
    path = np.linspace(start, end, frames, dtype=np.float32)
    x, y = path.T[:, :, None, None]  # (frames, 1, 1) each
    time = np.arange(frames, dtype=np.float32)[:, None, None]
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.1, 0.1) * time
    grid = np.arange(size, dtype=np.float32) + 0.5
    dx, dy = (grid - x) / radius, (grid[:, None] - y) / radius  # (frames, 1, size), ...
    u = np.cos(angle) * dx + np.sin(angle) * dy  # (frames, size, size), 1 = radius
    v = np.cos(angle) * dy - np.sin(angle) * dx
    inside = coverage(u, v, np.full((frames, 1, 1), radius, np.float32), rng)[..., None]
    hue = HUES[colour] + rng.normal(0, SPREAD)
    shape = _painted(texture(u * 2, v * 2, rng), hue, rng.uniform(0.75, 0.95), 0.6, 1.0)
    still = texture(*np.meshgrid(grid / 9, grid / 9), rng)
    background = _painted(still, rng.uniform(), 0.1, 0.15, 0.45)
    picture = inside * shape + (1 - inside) * background  # (frames, size, size, 3)
    picture += 0.01 * rng.standard_normal(picture.shape, np.float32)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def _painted(
    brightness: np.ndarray, hue: float, saturation: float, dark: float, bright: float
) -> np.ndarray:
    """Colour a texture in [0, 1] in one hue, from dark to bright: ``(...)`` to ``(..., 3)``."""
    colour = np.array(colorsys.hsv_to_rgb(hue % 1, saturation, 1.0), np.float32)
    return (dark + brightness[..., None] * (bright - dark)) * colour
