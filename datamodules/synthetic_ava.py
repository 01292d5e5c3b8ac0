"""A data set in AVA's format that writes itself: videos of shapes with several motions at once.

Two to four shapes move in each video; they stand for persons. There is a keyframe each second, with
their boxes and their motions. A motion lasts from half a second before its keyframe to half a
second after it.

No single frame shows the motions. A shape has two end positions on each axis, and two sizes. In
each second it either moves from one to the other or stays, so at a keyframe it is halfway, whatever
the direction. End positions and angles are random.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.arguments import check_numbers
from datamodules.ava.data_module import AVADataModule
from datamodules.manifests.splitting import SPLITS
from datamodules.synthetic import (
    FPS,
    coverage,
    described_folder,
    in_threads,
    paint,
    texture,
    write_h264,
    write_once,
)

ACTIONS = ("down", "growing", "left", "right", "shrinking", "still", "turning", "up")
OFFSET = 900  # second of the annotation at which the files begin, as in AVA's 15 minutes
VERSION = 1  # of the drawings of `render_shapes`; a new version makes a new data set

# A shape's largest radius and the distance it moves in a second, as fractions of its cell, which is
# half as wide as the picture.
_RADIUS = (0.14, 0.2)
_WAY = (0.3, 0.38)
_GROWTH = 1.4  # largest radius / smallest radius
_TURN = (0.06, 0.1)  # radians a frame
_MOVES = 0.4  # probability of each: a motion along an axis, a change of size, a turn


class Motion(NamedTuple):
    """State of a shape at the start and end of each second; all frames follow from it.

    Attributes:
        ends: at which of two ends the shape is in x, y and size, 0 or 1, int ``(seconds + 1, 3)``.
        turns: turn in each second, radians per frame, float ``(seconds,)``.
    """

    ends: np.ndarray
    turns: np.ndarray

    def actions(self, second: int) -> list[str]:
        """Names of the shape's actions in a second, sorted."""
        x, y, size = (self.ends[second + 1] - self.ends[second]).tolist()
        names = [("left", None, "right")[x + 1], ("up", None, "down")[y + 1]]
        names += [("shrinking", None, "growing")[size + 1]]
        names += ["turning"] if self.turns[second] else []
        return sorted(filter(None, names)) or ["still"]


class Shapes(NamedTuple):
    """A video and the shapes in it.

    Attributes:
        frames: uint8 ``(T, size, size, 3)``.
        boxes: box of each shape at each keyframe: x1, y1, x2, y2 as fractions of the picture,
            float64 ``(shapes, seconds - 1, 4)``.
        actions: names of the actions of each shape at each keyframe.
        masks: the pixels of each shape at each keyframe, bool
            ``(shapes, seconds - 1, size, size)``. Shapes do not cover each other.
    """

    frames: np.ndarray
    boxes: np.ndarray
    actions: list[list[list[str]]]
    masks: np.ndarray


def random_motion(seconds: int, rng: np.random.Generator) -> Motion:
    """Draw a motion with at most three actions at a time; both directions are equally likely."""
    moves = rng.random((seconds, 3)) < _MOVES
    turns = (rng.random(seconds) < _MOVES) & (moves.sum(axis=1) < 3)
    speed = rng.uniform(*_TURN, seconds) * rng.choice([-1, 1], seconds)
    steps = np.concatenate([rng.integers(0, 2, (1, 3)), moves])
    return Motion(steps.cumsum(axis=0) % 2, turns * speed)


def render_shapes(rng: np.random.Generator, seconds: int, size: int) -> Shapes:
    """Draw one video with keyframes at the seconds 1, 2, ... ``seconds - 1``.

    Args:
        rng: source of randomness.
        seconds: length of the video.
        size: height and width, pixels.
    """
    num_frames = seconds * FPS
    grid = np.arange(size, dtype=np.float32) + 0.5
    still = texture(*np.meshgrid(grid / 8, grid / 8), rng)
    picture = np.repeat(0.45 * paint(still, rng)[None], num_frames, axis=0)  # (T, size, size, 3)
    cells = rng.permutation(4)[: rng.integers(2, 5)]
    boxes, actions = [], []
    masks = np.zeros((len(cells), seconds - 1, size, size), bool)
    for mask, cell in zip(masks, cells.tolist(), strict=True):
        motion = random_motion(seconds + 1, rng)
        left, top = cell % 2 * size // 2, cell // 2 * size // 2
        window = slice(top, top + size // 2), slice(left, left + size // 2)
        alpha = _draw(picture[:, *window], motion, rng)
        keyframes = alpha[FPS * np.arange(1, seconds)] > 0.5
        mask[:, *window] = keyframes
        boxes.append([_box(shape, left, top, size) for shape in keyframes])
        actions.append([motion.actions(second) for second in range(1, seconds)])
    frames = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    return Shapes(frames, np.array(boxes), actions, masks)


def _draw(picture: np.ndarray, motion: Motion, rng: np.random.Generator) -> np.ndarray:
    """Draw a shape into its cell, float32 ``(T, side, side, 3)``, in place.

    Returns:
        The share of each pixel that the shape covers, ``(T, side, side)`` in [0, 1].
    """
    side = picture.shape[1]
    # Second s of a motion begins half a second before keyframe s.
    time = np.arange(len(picture)) / FPS + 0.5
    second, share = time.astype(int), (time % 1)[:, None]
    place = motion.ends[second] * (1 - share) + motion.ends[second + 1] * share  # (T, 3)
    largest = side * rng.uniform(*_RADIUS)
    radius = largest * np.exp((place[:, 2] - 1) * np.log(_GROWTH))
    way = side * rng.uniform(*_WAY, 2)
    first = rng.uniform(largest + 1, side - largest - way - 1)
    centre = first + way * place[:, :2]  # (T, 2)
    steps = motion.turns[second].cumsum()
    angle = (rng.uniform(0, 2 * np.pi) + steps)[:, None, None]
    grid = np.arange(side, dtype=np.float32) + 0.5
    # The arrays with one value for each pixel are float32, which halves the time.
    dx = grid[None, None, :] - centre[:, 0, None, None].astype(np.float32)
    dy = grid[None, :, None] - centre[:, 1, None, None].astype(np.float32)
    radius = radius[:, None, None].astype(np.float32)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    u = (cos * dx + sin * dy) / radius  # (T, side, side), 1 = radius
    v = (cos * dy - sin * dx) / radius
    alpha = coverage(u, v, radius, rng)
    picture += alpha[..., None] * (paint(texture(u * 3, v * 3, rng), rng) - picture)
    return alpha


def _box(shape: np.ndarray, left: int, top: int, size: int) -> list[float]:
    """Box around the True pixels of a cell, ``(side, side)``, as fractions of the picture."""
    x, y = np.flatnonzero(shape.any(axis=0)), np.flatnonzero(shape.any(axis=1))
    pixels = [left + x[0], top + y[0], left + x[-1] + 1, top + y[-1] + 1]
    return [float(value) / size for value in pixels]


class SyntheticAVADataModule(AVADataModule):
    """Moving shapes with eight motions in H.264 files, written once into a cache folder.

    The result is a folder in AVA's format like any other, with ground truth, excluded timestamps, a
    label map, and boxes as a detector gives them, with errors and scores.

    Args:
        root: folder for synthetic data sets; each description gets its own folder below it.
        videos: numbers of videos in the train, val and test splits.
        video_seconds: length of a video, whole seconds, at least 2; it has one keyframe less.
        video_size: height and width of a video, pixels, at least 32 and a multiple of 4.
        video_seed: seed of the videos' content.
        size: see `VideoDataModule`.
        short_side: see `AVADataModule`.
        **kwargs: see `AVADataModule`, except the arguments that name its files.
    """

    def __init__(
        self,
        root: str | Path = "data/synthetic",
        videos: tuple[int, int, int] = (160, 24, 24),
        video_seconds: int = 8,
        video_size: int = 128,
        video_seed: int = 0,
        *,
        size: tuple[int, int] = (128, 128),
        short_side: tuple[int, int] = (128, 144),
        **kwargs,
    ) -> None:
        check_numbers("videos", videos, "train, val, test")
        if video_seconds < 2 or video_size < 32 or video_size % 4:
            raise ValueError(
                "video_seconds must be at least 2, and video_size at least 32 and a multiple of 4"
            )
        self.description = {
            "version": VERSION,
            "videos": list(videos),
            "seconds": video_seconds,
            "size": video_size,
            "seed": video_seed,
        }
        super().__init__(
            described_folder(root, "ava", self.description),
            test="test",
            timestamp_offset=OFFSET,
            excluded={split: f"ava_{split}_excluded_timestamps_v2.2.csv" for split in SPLITS},
            person_boxes={split: f"person_boxes_{split}.csv" for split in SPLITS},
            size=size,
            short_side=short_side,
            **kwargs,
        )

    def prepare_data(self) -> None:
        """Write the videos and their annotation unless they exist already."""
        write_once(self.root, self.description, self._write)

    def _write(self, folder: Path) -> None:
        annotations, videos = folder / "annotations", folder / "videos"
        annotations.mkdir()
        videos.mkdir()
        entries = (
            f'label {{\n  name: "{name}"\n  label_id: {action}\n  label_type: PERSON_MOVEMENT\n}}\n'
            for action, name in enumerate(ACTIONS, 1)
        )
        (annotations / self.label_map).write_text("".join(entries))
        for number, split in enumerate(SPLITS):
            names = [f"{split}_{i:04d}" for i in range(self.description["videos"][number])]
            rows = self._write_split(videos, number, names)
            _write_csv(annotations / f"ava_{split}_v2.2.csv", (row for row, _ in rows))
            persons = (row for _, detected in rows for row in detected)
            _write_csv(annotations / f"person_boxes_{split}.csv", persons)
            excluded = annotations / f"ava_{split}_excluded_timestamps_v2.2.csv"
            _write_csv(excluded, [(names[0], f"{OFFSET + 1:04d}")])

    def _write_split(
        self, folder: Path, split: int, names: Sequence[str]
    ) -> list[tuple[tuple, list[tuple]]]:
        """Write the videos; returns rows of ground truth, each with the detector's rows for it."""
        seconds, size = self.description["seconds"], self.description["size"]

        def write(number: int) -> list[tuple[tuple, list[tuple]]]:
            rng = np.random.default_rng((self.description["seed"], split, number))
            shapes = render_shapes(rng, seconds, size)
            write_h264(folder / f"{names[number]}.mp4", shapes.frames)
            return list(_rows(names[number], shapes, rng))

        return [row for rows in in_threads(write, range(len(names))) for row in rows]


def _rows(
    name: str, shapes: Shapes, rng: np.random.Generator
) -> Iterator[tuple[tuple, list[tuple]]]:
    """Rows of ground truth, each with a detector's rows: boxes slightly off, some of them false."""
    for person, (boxes, actions) in enumerate(zip(shapes.boxes, shapes.actions, strict=True)):
        for second, (box, labels) in enumerate(zip(boxes, actions, strict=True), OFFSET + 1):
            key = name, f"{second:04d}"
            size = np.tile(box[2:] - box[:2], 2)
            seen = (box + rng.uniform(-0.05, 0.05, 4) * size).clip(0, 1)
            false = rng.uniform(0, 0.5, 2)
            false = np.concatenate([false, false + rng.uniform(0.1, 0.4, 2)])
            score, doubt = rng.uniform(0.85, 1), rng.uniform(0.05, 0.5)
            detected: list[tuple] = []
            detected += [(*key, *_text(seen), label, f"{score:.6f}") for label in _ids(labels)]
            if rng.random() < 0.2:
                detected.append((*key, *_text(false), "", f"{doubt:.6f}"))
            for i, label in enumerate(_ids(labels)):
                yield (*key, *_text(box), label, person), detected if i == 0 else []


def _ids(labels: Sequence[str]) -> list[int]:
    return [ACTIONS.index(label) + 1 for label in labels]


def _text(box: np.ndarray) -> list[str]:
    return [f"{value:.3f}" for value in box]


def _write_csv(path: Path, rows: Iterator[tuple] | Sequence[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
