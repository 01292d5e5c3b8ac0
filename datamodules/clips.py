"""Clips of one video as tensors: what a worker of the loader does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.decoding import VideoDecodeError, VideoFile
from datamodules.loading import Failure, Item, sample_seed
from datamodules.manifest import Manifest
from datamodules.sampling import (
    clip_span,
    clip_times,
    covering_size,
    random_clip_start,
    random_resized_crop,
    view_crops,
    view_starts,
)


class ClipFormat(NamedTuple):
    """What the model sees: ``num_frames`` every ``stride`` frames of nominal ``fps``, in pixels."""

    num_frames: int
    stride: int
    fps: float
    height: int
    width: int

    @property
    def span(self) -> float:
        """Seconds from the first to the last frame."""
        return clip_span(self.num_frames, self.stride, self.fps)

    def times(self, start: float) -> np.ndarray:
        """Times of the frames, float64 ``(num_frames,)`` seconds."""
        return clip_times(start, self.num_frames, self.stride, self.fps)


class TrainingClips(Dataset[Item]):
    """``repeats`` random clips of each video, from one open of its file.

    An item is indexed by ``(epoch, index)`` and holds ``video`` uint8 ``(repeats, T, H, W, 3)``,
    ``seed``, ``video_id`` and ``label`` int64 ``(repeats,)``.

    Args:
        manifest: the videos.
        clip: format of a clip.
        repeats: clips of one video (repeated augmentation: Hoffer et al. 2020; HIERA Table 11).
        crop_scale: share of the picture that the random crop keeps.
        crop_ratio: distortion of its aspect.
        seed: seed of the run.
    """

    def __init__(
        self,
        manifest: Manifest,
        clip: ClipFormat,
        repeats: int,
        crop_scale: tuple[float, float],
        crop_ratio: tuple[float, float],
        seed: int,
    ) -> None:
        self.manifest, self.clip, self.repeats, self.seed = manifest, clip, repeats, seed
        self.crop_scale, self.crop_ratio = crop_scale, crop_ratio

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        seeds = [sample_seed(self.seed, epoch, index, repeat) for repeat in range(self.repeats)]
        with VideoFile(self.manifest.path(index)) as file:
            clips = [self._random_clip(file, np.random.default_rng(seed)) for seed in seeds]
        return _item(np.stack(clips), seeds, index, self.manifest.label(index))

    def _random_clip(self, file: VideoFile, rng: np.random.Generator) -> np.ndarray:
        clip = self.clip
        start = random_clip_start(file.duration, clip.span, rng)
        box = random_resized_crop(
            file.width, file.height, clip.width / clip.height, self.crop_scale, self.crop_ratio, rng
        )
        return file.frames_at(clip.times(start), size=(clip.height, clip.width), crop=box)


class EvaluationViews(Dataset[Item]):
    """All views of each video, from one open and one pass over its file.

    An item is indexed by ``(epoch, index)`` and holds ``video`` uint8 ``(views, T, H, W, 3)`` with
    ``seed``, ``video_id``, ``label`` and ``view`` int64 ``(views,)``, where view =
    ``temporal * spatial_views + spatial``. A video that cannot be decoded is an item of no clips
    whose ``failed`` is ``(video_id, label, reason)``: an evaluation must count it, not replace it.
    """

    def __init__(
        self, manifest: Manifest, clip: ClipFormat, views: tuple[int, int], seed: int
    ) -> None:
        self.manifest, self.clip, self.seed = manifest, clip, seed
        self.temporal_views, self.spatial_views = views

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        failed: list[Failure] = []
        label = self.manifest.label(index)
        try:
            with VideoFile(self.manifest.path(index)) as file:
                clips = self._views(file)
        except VideoDecodeError as error:
            clip = self.clip
            clips = np.empty((0, clip.num_frames, clip.height, clip.width, 3), np.uint8)
            failed = [(index, label, str(error))]
        seeds = [sample_seed(self.seed, epoch, index, view) for view in range(len(clips))]
        item = _item(clips, seeds, index, label)
        return item | {"view": torch.arange(len(clips)), "failed": failed}

    def _views(self, file: VideoFile) -> np.ndarray:
        clip = self.clip
        height, width = covering_size(file.width, file.height, clip.width, clip.height)
        last_frame = max(0.0, file.duration - float(1 / file.rate))
        starts = view_starts(last_frame, clip.span, self.temporal_views)
        times = np.concatenate([clip.times(start) for start in starts])
        frames = file.frames_at(times, size=(height, width))
        boxes = view_crops(width, height, clip.width, clip.height, self.spatial_views)
        crops = np.stack([frames[:, y1:y2, x1:x2] for x1, y1, x2, y2 in boxes], axis=1)
        crops = crops.reshape(
            self.temporal_views, clip.num_frames, self.spatial_views, clip.height, clip.width, 3
        ).swapaxes(1, 2)  # (temporal, spatial, T, H, W, 3)
        return crops.reshape(-1, *crops.shape[2:])  # (views, T, H, W, 3)


def _item(clips: np.ndarray, seeds: Sequence[int], index: int, label: int) -> Item:
    def column(value: int) -> Tensor:
        return torch.full((len(clips),), value, dtype=torch.int64)

    return {
        "video": torch.from_numpy(np.ascontiguousarray(clips)),
        "seed": torch.tensor(seeds, dtype=torch.int64),
        "video_id": column(index),
        "label": column(label),
    }
