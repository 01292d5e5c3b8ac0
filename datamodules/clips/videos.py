"""Clips of one video as tensors: the work of the loader's workers."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.clips.boxes import Box
from datamodules.clips.format import ClipFormat
from datamodules.clips.items import Item
from datamodules.clips.sampling import random_resized_crop, random_short_side_crop, sample_seed
from datamodules.errors import VideoDecodeError
from datamodules.manifests.splits import Manifest
from datamodules.video.decoding import VideoFile
from datamodules.video.opening import open_media
from datamodules.video.pictures import MOST_PIXELS, PictureFile


class _Clips:
    """What both data sets below share: clips of the videos of a manifest."""

    def __init__(self, manifest: Manifest, clip: ClipFormat, clips: int, seed: int) -> None:
        self.manifest, self.clip, self.seed = manifest, clip, seed
        self.item_shape = (clips, *clip.shape)

    def empty(self, index: int) -> Item:
        """The item of a video that cannot be decoded: no clips."""
        return self.item(np.empty((0, *self.clip.shape), np.uint8), 0, index)

    def item(self, clips: np.ndarray, epoch: int, index: int) -> Item:
        """The item of a video: its clips, uint8 ``(n, T, H, W, 3)``, their seeds, id and label."""
        seeds = [sample_seed(self.seed, epoch, index, repeat) for repeat in range(len(clips))]

        def column(value: int) -> Tensor:
            return torch.full((len(clips),), value, dtype=torch.int64)

        return {
            "video": torch.from_numpy(np.ascontiguousarray(clips)),
            "seed": torch.tensor(seeds, dtype=torch.int64),
            "video_id": column(index),
            "label": column(self.manifest.label(index)),
        }


class TrainingClips(_Clips):
    """``repeats`` random clips of each video; its file is opened once.

    An item is indexed by ``(epoch, index)`` and holds ``video`` uint8 ``(repeats, T, H, W, 3)``,
    ``seed``, ``video_id`` and ``label`` int64 ``(repeats,)``.

    Args:
        manifest: the videos.
        clip: format of a clip.
        repeats: clips of one video (repeated augmentation: Hoffer et al. 2020; Hiera, Table 11).
        crop_scale: smallest and largest share of the picture that the random crop keeps.
        crop_ratio: smallest and largest factor by which the crop distorts the aspect ratio.
        seed: seed of the run.
        short_side: in place of the crop above, scale the short side to a random length in this
            range, pixels, and cut out a crop of the clip's size.
    """

    def __init__(
        self,
        manifest: Manifest,
        clip: ClipFormat,
        repeats: int,
        crop_scale: tuple[float, float],
        crop_ratio: tuple[float, float],
        seed: int,
        short_side: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(manifest, clip, repeats, seed)
        self.repeats, self.short_side = repeats, short_side
        self.crop_scale, self.crop_ratio = crop_scale, crop_ratio

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        seeds = [sample_seed(self.seed, epoch, index, repeat) for repeat in range(self.repeats)]
        clip = self.clip
        with open_media(self.manifest.source(index)) as file:
            wanted = [self._random_clip(file, np.random.default_rng(seed)) for seed in seeds]
            clips = file.clips_at(wanted, (clip.height, clip.width), clip.interpolation)
        return self.item(np.stack(clips), epoch, index)

    def _random_clip(
        self, file: VideoFile | PictureFile, rng: np.random.Generator
    ) -> tuple[np.ndarray, Box]:
        """Times and crop of one clip, as `VideoFile.clips_at` takes them."""
        times = self.clip.random_times(file.duration, rng)
        return times, self._random_crop(file.width, file.height, rng)

    def _random_crop(self, width: int, height: int, rng: np.random.Generator) -> Box:
        clip = self.clip
        if self.short_side is not None:
            crop = clip.height, clip.width
            return random_short_side_crop(width, height, crop, self.short_side, rng)
        aspect = clip.width / clip.height
        return random_resized_crop(width, height, aspect, self.crop_scale, self.crop_ratio, rng)


class EvaluationViews(_Clips):
    """All views of each video, from one pass over its file.

    An item is indexed by ``(epoch, index)`` and holds ``video`` uint8 ``(views, T, H, W, 3)`` with
    ``seed``, ``video_id``, ``label`` and ``view`` int64 ``(views,)``, where view =
    ``temporal * spatial_views + spatial``.

    Args:
        manifest: the videos.
        clip: format of a view.
        views: number of views in time and in space.
        seed: seed of the run.
    """

    def __init__(
        self, manifest: Manifest, clip: ClipFormat, views: tuple[int, int], seed: int
    ) -> None:
        super().__init__(manifest, clip, math.prod(views), seed)
        self.temporal_views, self.spatial_views = views

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        with open_media(self.manifest.source(index)) as file:
            views = clips_of_views(file, self.clip, self.temporal_views, self.spatial_views)
            return self.item(views, epoch, index)

    def item(self, clips: np.ndarray, epoch: int, index: int) -> Item:
        """The item of a video, with the view of each of its clips.

        Args:
            clips: uint8 ``(views, T, H, W, 3)``, in the order of the views; or none of them.
            epoch: the epoch.
            index: index of the video in the manifest.

        Returns:
            As in the class, with ``len(clips)`` views.
        """
        return super().item(clips, epoch, index) | {"view": torch.arange(len(clips))}


def clips_of_views(
    file: VideoFile | PictureFile, clip: ClipFormat, temporal: int, spatial: int
) -> np.ndarray:
    """All views of a video, from one pass over its file.

    Args:
        file: the video.
        clip: format of a view.
        temporal: number of views in time.
        spatial: number of views in space for each of those in time, spread along the side on which
            the picture is longer than the clip.

    Returns:
        uint8 ``(temporal * spatial, T, H, W, 3)``; the view in space varies fastest.
    """
    times = clip.view_times(file.duration, float(file.rate), temporal)
    crops = clips_and_crops(file, clip, times, spatial)  # (temporal, spatial, T, H, W, 3)
    return crops.reshape(-1, *clip.shape)  # (temporal * spatial, T, H, W, 3)


def clips_and_crops(
    file: VideoFile | PictureFile, clip: ClipFormat, times: Sequence[np.ndarray], spatial: int
) -> np.ndarray:
    """Views of a video at any times, from one pass over its file.

    Args:
        file: the video.
        clip: format of a view.
        times: of the frames of each of N clips, float64 ``(T,)``, seconds.
        spatial: number of crops of each clip, as in `clips_of_views`.

    Returns:
        uint8 ``(N, spatial, T, H, W, 3)``.

    Raises:
        VideoDecodeError: a frame is so long and narrow that scaled it has more than `MOST_PIXELS`;
            or as in `VideoFile.frames_at`.
    """
    height, width = size = clip.scaled_size(file.width, file.height)
    if height * width > MOST_PIXELS:
        reason = f"{file.width}x{file.height} scaled to {width}x{height}"
        raise VideoDecodeError(file.path, f"{reason} is more than {MOST_PIXELS:,} pixels")
    frames = file.frames_at(np.concatenate(times), size, interpolation=clip.interpolation)
    boxes = clip.view_boxes(width, height, spatial)
    crops = np.stack([frames[:, y1:y2, x1:x2] for x1, y1, x2, y2 in boxes], axis=1)
    return crops.reshape(len(times), clip.num_frames, spatial, clip.height, clip.width, 3).swapaxes(
        1, 2
    )  # (N, spatial, T, H, W, 3)
