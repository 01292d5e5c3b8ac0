"""Clips of one video as tensors: the work of the loader's workers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.clips.boxes import Box
from datamodules.clips.items import Item
from datamodules.clips.sampling import (
    centre_crop,
    clip_span,
    clip_times,
    covering_size,
    last_frame_time,
    picture_size,
    random_clip_start,
    random_resized_crop,
    random_segment_times,
    random_short_side_crop,
    sample_seed,
    segment_view_times,
    spread_stride,
    view_crops,
    view_starts,
)
from datamodules.errors import VideoDecodeError
from datamodules.manifests.splits import Manifest
from datamodules.video.decoding import VideoFile
from datamodules.video.opening import open_media
from datamodules.video.pictures import MOST_PIXELS, PictureFile

SAMPLINGS = ("clip", "spread", "segments")
INTERPOLATIONS = ("bilinear", "bicubic")


class ClipFormat(NamedTuple):
    """What the model sees of a video, or of a picture, which is a video of one frame.

    Attributes:
        num_frames: frames of a clip, T.
        stride: with the sampling ``clip``, every ``stride``-th frame is taken.
        fps: nominal frames per second that ``stride`` counts.
        height: H, pixels.
        width: W, pixels.
        sampling: ``clip``; ``spread``: T frames from the first to the last of ``T * stride``, at
            equal steps; or ``segments``: one frame of each of T equal parts of the video.
        interpolation: how crops are scaled: ``bilinear`` or ``bicubic``.
        eval_crop: share of the picture's short side that a view covers in evaluation, in (0, 1].
    """

    num_frames: int
    stride: int
    fps: float
    height: int
    width: int
    sampling: str = "clip"
    interpolation: str = "bilinear"
    eval_crop: float = 1.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ClipFormat":
        """From values by name, with ``size`` for height and width; other names are ignored."""
        height, width = values["size"]
        fields = {name: values[name] for name in cls._fields if name in values}
        return cls(**{**fields, "height": height, "width": width})

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of a clip's pixels: ``(T, H, W, 3)``."""
        return self.num_frames, self.height, self.width, 3

    @property
    def span(self) -> float:
        """Seconds from the first to the last frame."""
        return clip_span(self.num_frames, self.step, self.fps)

    @property
    def step(self) -> float:
        """Nominal frames from one frame of a clip to the next."""
        if self.sampling == "spread":
            return spread_stride(self.num_frames, self.stride)
        return self.stride

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """The (height, width) to which a picture is scaled before views of it are cropped."""
        least = (round(side / self.eval_crop) for side in (self.width, self.height))
        return (picture_size if self.num_frames == 1 else covering_size)(width, height, *least)

    def view_boxes(self, width: int, height: int, views: int) -> list[Box]:
        """The boxes of views in a scaled picture; see `view_crops`. One of an image is its centre.

        Args:
            width: of the scaled picture, pixels.
            height: of the scaled picture, pixels.
            views: number of boxes.
        """
        if self.num_frames == 1 and views == 1:
            return [centre_crop(width, height, self.width, self.height)]
        return view_crops(width, height, self.width, self.height, views)

    def times(self, start: float) -> np.ndarray:
        """Times of the frames of a clip that starts at ``start``: float64 ``(T,)``, seconds."""
        return clip_times(start, self.num_frames, self.step, self.fps)

    def random_times(self, duration: float, rng: np.random.Generator) -> np.ndarray:
        """Draw the times of the frames of a training clip.

        Args:
            duration: of the video, seconds.
            rng: source of randomness.

        Returns:
            float64 ``(T,)``, seconds.
        """
        if self.sampling == "segments":
            return random_segment_times(duration, self.num_frames, rng)
        return self.times(random_clip_start(duration, self.span, rng))

    def view_times(self, duration: float, rate: float, views: int) -> list[np.ndarray]:
        """Times of the frames of each temporal view of a video.

        Args:
            duration: of the video, seconds.
            rate: of the video, frames per second.
            views: number of temporal views.

        Returns:
            For each view float64 ``(T,)``, seconds.
        """
        if self.sampling == "segments":
            return segment_view_times(duration, self.num_frames, views)
        last = last_frame_time(duration, rate)
        return [self.times(start) for start in view_starts(last, self.span, views)]


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
