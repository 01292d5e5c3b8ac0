"""Videos of textured shapes whose motion is the class: a small data set that writes itself.

Position, angle, size, shape, texture, colours and background have the same distribution in every
class at every moment, so no single frame tells the class. To that end the picture is a torus, where
a moving shape never reaches a border, and the size is cyclic: a growing shape that has reached the
largest size starts again from the smallest.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from datamodules.arguments import check_numbers
from datamodules.folder import VideoFolderDataModule
from datamodules.manifests.splitting import SPLITS

# Per frame at speed 1: shift right and down in pixels, turn in radians, growth of log-radius.
MOTIONS: dict[str, tuple[float, float, float, float]] = {
    "down": (0.0, 1.0, 0.0, 0.0),
    "growing": (0.0, 0.0, 0.0, 1.0),
    "left": (-1.0, 0.0, 0.0, 0.0),
    "right": (1.0, 0.0, 0.0, 0.0),
    "shrinking": (0.0, 0.0, 0.0, -1.0),
    "turning_left": (0.0, 0.0, -1.0, 0.0),
    "turning_right": (0.0, 0.0, 1.0, 0.0),
    "up": (0.0, -1.0, 0.0, 0.0),
}
CLASS_NAMES = tuple(MOTIONS)
FPS = 30
VERSION = 2  # of what `render` draws; a new version is a new data set


class Difficulty(NamedTuple):
    """What makes the classes easy or hard to tell apart; values are drawn uniformly from ranges.

    Attributes:
        radius: of the shape, pixels; its logarithm is drawn uniformly.
        shift: speed of the moving classes, pixels a frame.
        turn: speed of the turning classes, radians a frame.
        growth: speed of the growing classes, share of the radius a frame.
        background: brightness of the still background, relative to the shape's.
    """

    radius: tuple[float, float] = (12.0, 24.0)
    shift: tuple[float, float] = (1.0, 2.0)
    turn: tuple[float, float] = (0.06, 0.1)
    growth: tuple[float, float] = (0.02, 0.03)
    background: float = 0.45


def render(
    motion: str,
    rng: np.random.Generator,
    num_frames: int = 40,
    size: int = 64,
    difficulty: Difficulty = Difficulty(),  # noqa: B008  (immutable)
) -> np.ndarray:
    """Draw one video.

    Args:
        motion: one of CLASS_NAMES.
        rng: source of randomness.
        num_frames: frames of the video, 30 a second.
        size: height and width, pixels.
        difficulty: see `Difficulty`.

    Returns:
        uint8 ``(num_frames, size, size, 3)``, RGB.
    """
    right, down, turn, growth = MOTIONS[motion]
    shift = rng.uniform(*difficulty.shift)
    turn *= rng.uniform(*difficulty.turn)
    growth *= rng.uniform(*difficulty.growth)
    time = np.arange(num_frames, dtype=np.float32)
    smallest, largest = np.log(difficulty.radius)
    log_radius = rng.uniform(0, largest - smallest) + growth * time
    radius = np.exp(smallest + log_radius % (largest - smallest))
    x0, y0 = rng.uniform(0, size, 2).tolist()
    angle = rng.uniform(0, 2 * np.pi) + turn * time

    grid = np.arange(size, dtype=np.float32) + 0.5
    # Offsets of the pixels from the shape's centre, (n, 1, size) and (n, size, 1).
    dx = _wrap(grid[None, None, :] - (x0 + right * shift * time)[:, None, None], size)
    dy = _wrap(grid[None, :, None] - (y0 + down * shift * time)[:, None, None], size)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u = (cos * dx + sin * dy) / radius[:, None, None]  # (n, size, size), 1 = radius
    v = (cos * dy - sin * dx) / radius[:, None, None]

    alpha = coverage(u, v, radius[:, None, None], rng)[..., None]
    shape = paint(texture(u * 3, v * 3, rng), rng)
    still = texture(*np.meshgrid(grid / 8, grid / 8), rng)
    background = difficulty.background * paint(still, rng)
    picture = alpha * shape + (1 - alpha) * background  # (n, size, size, 3)
    picture += 0.01 * rng.standard_normal(picture.shape, np.float32)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def _wrap(offset: np.ndarray, size: int) -> np.ndarray:
    """Offset on a torus, in [-size / 2, size / 2)."""
    return (offset + size / 2) % size - size / 2


def coverage(
    u: np.ndarray, v: np.ndarray, radius: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Share of each pixel that lies inside a random polygon or ellipse with soft borders.

    Args:
        u: first coordinate of the pixels in the shape's own axes, in units of its radius,
            ``(n, H, W)``.
        v: second coordinate, ``(n, H, W)``.
        radius: of the shape, pixels, ``(n, 1, 1)``.
        rng: source of randomness.

    Returns:
        ``(n, H, W)`` in [0, 1].
    """
    corners = int(rng.choice([2, 3, 4, 5]))
    if corners == 2:
        distance = np.hypot(u, v * rng.uniform(1.2, 1.6))
    else:
        spread = np.pi / corners
        turned = (np.arctan2(v, u) + spread) % (2 * spread) - spread
        distance = np.hypot(u, v) * np.cos(turned) / np.cos(spread)
    return (0.5 + (1 - distance) * radius).clip(0, 1)


def texture(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness at the coordinates ``u`` and ``v``: float32 in [0, 1], of their common shape.

    It is a squashed sum of four random waves. It has no axis of symmetry, so that turning shows.
    """
    total = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    for _ in range(4):
        fu, fv = rng.normal(0, 1, 2).tolist()
        total += np.sin(fu * u + fv * v + rng.uniform(0, 2 * np.pi))
    return 0.5 + 0.5 * np.tanh(total)


def paint(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour a texture in [0, 1] from a dark to a bright colour: ``(...)`` to ``(..., 3)``."""
    dark = rng.uniform(0, 0.45, 3).astype(np.float32)
    bright = rng.uniform(0.55, 1, 3).astype(np.float32)
    return dark + texture[..., None] * (bright - dark)


def write_h264(path: Path, frames: np.ndarray) -> None:
    """Write uint8 ``(n, H, W, 3)`` as an H.264 mp4 file of 30 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the same bytes on every machine
        # On pictures of 32 pixels, x264's lookahead makes the bytes differ from run to run.
        x264 = "mbtree=0:rc-lookahead=0"
        stream.options = {"crf": "20", "preset": "veryfast", "x264-params": x264}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_videos(paths: Sequence[Path], draw: Callable[[int], np.ndarray]) -> None:
    """Write files, several at once.

    Args:
        paths: of the files; their folders are created.
        draw: called with the number of a file; returns its frames, uint8 ``(n, H, W, 3)``.
    """
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        write_h264(paths[number], draw(number))

    in_threads(write, range(len(paths)))


def in_threads(work: Callable[[Any], Any], jobs: Iterable[Any]) -> list[Any]:
    """The results of the jobs in their order, several of which run at once."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy, Pillow and x264 release the GIL
        return list(pool.map(work, jobs))


def write_once(root: Path, description: dict, write: Callable[[Path], None]) -> None:
    """Write a folder of data unless it exists; a folder that exists is complete.

    Args:
        root: the folder.
        description: of the data; written to ``description.json`` in it.
        write: writes the data to the folder that it is called with.
    """
    if root.exists():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=root.parent))
    try:
        write(unfinished)
        (unfinished / "description.json").write_text(json.dumps(description, indent=2))
        unfinished.chmod(0o755)
        os.rename(unfinished, root)
    except OSError:
        if not root.exists():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def described_folder(root: str | Path, kind: str, description: dict) -> Path:
    """The folder below ``root`` for data of this kind and description: each has its own."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    return Path(root) / f"{kind}-{digest[:12]}"


class SyntheticMotionDataModule(VideoFolderDataModule):
    """Eight classes of motion in H.264 files, written once into a cache folder.

    Once written, it is a folder of class folders like any other.

    Args:
        root: folder for such data sets; each description gets its own folder below it.
        videos: numbers of videos in the train, val and test split, multiples of 8.
        video_frames: frames of a video, 30 a second.
        video_size: height and width of a video, pixels.
        video_seed: seed of the videos' content.
        difficulty: attributes of `Difficulty` that differ from the default.
        **kwargs: see `VideoDataModule`.
    """

    def __init__(
        self,
        root: str | Path = "data/synthetic",
        videos: tuple[int, int, int] = (640, 80, 160),
        video_frames: int = 40,
        video_size: int = 64,
        video_seed: int = 0,
        difficulty: dict | None = None,
        **kwargs,
    ) -> None:
        check_numbers("videos", videos, "train, val, test", len(MOTIONS))
        self.description = {
            "version": VERSION,
            "videos": list(videos),
            "frames": video_frames,
            "size": video_size,
            "seed": video_seed,
            "difficulty": Difficulty(**(difficulty or {}))._asdict(),
        }
        super().__init__(root=described_folder(root, "motion", self.description), **kwargs)

    def prepare_data(self) -> None:
        """Write the videos unless they exist already."""
        write_once(self.root, self.description, self._write)

    def _write(self, folder: Path) -> None:
        for split_id, split in enumerate(SPLITS):
            self._write_split(folder / split, split_id)

    def _write_split(self, folder: Path, split_id: int) -> None:
        difficulty = Difficulty(**self.description["difficulty"])
        frames, size = self.description["frames"], self.description["size"]
        count = self.description["videos"][split_id]
        motions = [CLASS_NAMES[number % len(CLASS_NAMES)] for number in range(count)]

        def draw(number: int) -> np.ndarray:
            rng = np.random.default_rng((self.description["seed"], split_id, number))
            return render(motions[number], rng, frames, size, difficulty)

        write_videos([folder / m / f"{i:05d}.mp4" for i, m in enumerate(motions)], draw)
