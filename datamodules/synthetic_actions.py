"""A data set of acting figures that writes itself: few labelled videos and many without labels."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.arguments import check_numbers, check_positive
from datamodules.figures import ACTIONS, draw_action
from datamodules.folder import VideoFolderDataModule
from datamodules.manifests.splitting import SPLITS
from datamodules.synthetic import described_folder, write_once, write_videos

VERSION = 1  # of the drawings; a new version is a new data set
NAMES = tuple(ACTIONS)


class SyntheticActionDataModule(VideoFolderDataModule):
    """Sixteen actions of a figure in H.264 files, written once into a cache folder.

    Once written, it is a folder like any other, with the splits ``train``, ``val`` and ``test`` of
    class folders, and ``unlabelled``, whose videos are all in one folder.

    Args:
        root: folder for such data sets; each description gets its own folder below it.
        videos: numbers of videos in the train, val and test split, multiples of 16.
        unlabelled: number of videos without labels; their actions are random.
        video_frames: frames of a video, 30 a second.
        video_size: height and width of a video, pixels.
        video_seed: seed of the videos' content.
        **kwargs: see `VideoFolderDataModule`.

    Raises:
        ValueError: a number of videos is wrong.
    """

    def __init__(
        self,
        root: str | Path = "data/synthetic",
        videos: tuple[int, int, int] = (160, 80, 320),
        unlabelled: int = 4096,
        video_frames: int = 40,
        video_size: int = 64,
        video_seed: int = 0,
        **kwargs,
    ) -> None:
        check_numbers("videos", videos, "train, val, test", len(NAMES))
        check_positive(unlabelled=unlabelled)
        splits = (*SPLITS, "unlabelled")
        self.description = {
            "version": VERSION,
            "videos": dict(zip(splits, (*videos, unlabelled), strict=True)),
            "frames": video_frames,
            "size": video_size,
            "seed": video_seed,
        }
        super().__init__(root=described_folder(root, "actions", self.description), **kwargs)

    def prepare_data(self) -> None:
        """Write the videos unless they exist already."""
        write_once(self.root, self.description, self._write)

    def _write(self, folder: Path) -> None:
        seed, frames, size = (self.description[key] for key in ("seed", "frames", "size"))
        for split_id, (split, count) in enumerate(self.description["videos"].items()):
            if split == "unlabelled":
                rng = np.random.default_rng((seed, split_id))
                actions = [NAMES[i] for i in rng.integers(0, len(NAMES), count)]
                places = [folder / split] * count
            else:
                actions = [NAMES[i % len(NAMES)] for i in range(count)]
                places = [folder / split / action for action in actions]
            draw = partial(_draw, actions, (seed, split_id), frames, size)
            write_videos([place / f"{i:05d}.mp4" for i, place in enumerate(places)], draw)


def _draw(
    actions: Sequence[str], seed: tuple[int, int], frames: int, size: int, number: int
) -> np.ndarray:
    rng = np.random.default_rng((*seed, number))
    return draw_action(actions[number], rng, frames, size)
