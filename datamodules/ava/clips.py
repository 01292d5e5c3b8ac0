"""Clips around keyframes, with boxes that follow the picture, as a loader's worker makes them."""

import os

import numpy as np
import torch

from datamodules.ava.keyframes import KeyframeManifest
from datamodules.clips.boxes import clip_boxes, crop_boxes, jitter_boxes, visible_shares
from datamodules.clips.format import ClipFormat
from datamodules.clips.items import Item, NothingToLearn
from datamodules.clips.sampling import (
    covering_size,
    keyframe_times,
    random_short_side_crop,
    sample_seed,
    view_crops,
)
from datamodules.video.decoding import VideoFile
from datamodules.video.frame_folder import FrameFolder

LEAST_VISIBLE = 0.1  # a training crop drops boxes of which it keeps a smaller share


class _KeyframeClips:
    """Clips of the keyframes of a manifest: the part that both data sets share.

    Args:
        manifest: the keyframes.
        clip: format of a clip.
        clips: number of clips of a keyframe.
        seed: seed of the run.
        timestamp_offset: second of the annotation at which files begin.
        frame_rate: pictures a second of frame folders.
    """

    def __init__(
        self,
        manifest: KeyframeManifest,
        clip: ClipFormat,
        clips: int,
        seed: int,
        timestamp_offset: float,
        frame_rate: float,
    ) -> None:
        self.manifest, self.clip, self.seed = manifest, clip, seed
        self.timestamp_offset, self.frame_rate = timestamp_offset, frame_rate
        self.item_shape = (clips, *clip.shape)

    def empty(self, index: int) -> Item:
        """The item of a video that cannot be decoded: no clips and no boxes."""
        return self.item(np.empty((0, *self.item_shape[1:]), np.uint8), [], [], 0, index)

    def item(
        self,
        clips: np.ndarray,
        boxes: list[np.ndarray],
        chosen: list[np.ndarray],
        epoch: int,
        index: int,
    ) -> Item:
        """Put clips of a keyframe, their boxes and the annotation together.

        Args:
            clips: uint8 ``(n, T, H, W, 3)``.
            boxes: for each clip, float ``(m, 4)`` as the model sees them.
            chosen: for each clip, rows of the keyframes' arrays, int64 ``(m,)``.
            epoch: epoch, for the seeds.
            index: row of the manifest.
        """
        frames, frame = self.manifest.keyframes, self._frame(index)
        seeds = [sample_seed(self.seed, epoch, index, repeat) for repeat in range(len(clips))]
        rows = np.concatenate([np.empty(0, np.int64), *chosen])
        places = np.concatenate([np.empty((0, 4)), *boxes])
        clip = np.repeat(np.arange(len(clips)), [len(rows) for rows in chosen])
        return {
            "video": torch.from_numpy(np.ascontiguousarray(clips)),
            "seed": torch.tensor(seeds, dtype=torch.int64),
            "video_id": torch.full((len(clips),), int(frames.video[frame])),
            "second": torch.full((len(clips),), frames.second[frame], dtype=torch.float64),
            "boxes": torch.from_numpy(places.astype(np.float32)),
            "box_clip": torch.from_numpy(clip.astype(np.int64)),
            "box_labels": torch.from_numpy(frames.labels[rows].astype(np.float32)),
            "box_score": torch.from_numpy(frames.score[rows]),
            "boxes_original": torch.from_numpy(frames.boxes[rows]),
        }

    def _frame(self, index: int) -> int:
        return self.manifest.table["keyframe"][index].as_py()

    def _rows(self, index: int) -> np.ndarray:
        offsets, frame = self.manifest.keyframes.offsets, self._frame(index)
        return np.arange(offsets[frame], offsets[frame + 1])

    def _times(self, index: int) -> np.ndarray:
        """Times of the clip's frames in the file; the decoder clamps them at its borders."""
        second = float(self.manifest.keyframes.second[self._frame(index)])
        num_frames, stride, fps = self.clip[:3]
        return keyframe_times(second - self.timestamp_offset, num_frames, stride, fps)

    def _open(self, index: int) -> VideoFile | FrameFolder:
        return open_video(self.manifest.path(index), self.frame_rate)


class TrainingKeyframes(_KeyframeClips):
    """``repeats`` random crops of each keyframe's clip, from one open of its file.

    An item is indexed by ``(epoch, index)``; see `_KeyframeClips.item`. Boxes follow the crop; a
    box of which less than `LEAST_VISIBLE` is left is dropped. An item without any box is skipped.

    Args:
        manifest: the keyframes.
        clip: format of a clip.
        repeats: number of clips of a keyframe.
        seed: seed of the run.
        timestamp_offset: second of the annotation at which files begin.
        frame_rate: pictures a second of frame folders.
        short_side: range of the random length, in pixels, of the short side before the crop.
        box_jitter: see `boxes.jitter_boxes`; None: boxes stay as they are.
    """

    def __init__(
        self,
        manifest: KeyframeManifest,
        clip: ClipFormat,
        repeats: int,
        seed: int,
        timestamp_offset: float,
        frame_rate: float,
        short_side: tuple[int, int],
        box_jitter: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(manifest, clip, repeats, seed, timestamp_offset, frame_rate)
        self.repeats, self.short_side, self.box_jitter = repeats, short_side, box_jitter

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        clip, times, rows = self.clip, self._times(index), self._rows(index)
        wanted, boxes, chosen = [], [], []
        with self._open(index) as file:
            for repeat in range(self.repeats):
                rng = np.random.default_rng(sample_seed(self.seed, epoch, index, repeat))
                size = clip.height, clip.width
                crop = random_short_side_crop(file.width, file.height, size, self.short_side, rng)
                places = self.manifest.keyframes.boxes[rows].astype(np.float64)
                if self.box_jitter is not None:
                    places = jitter_boxes(places, self.box_jitter, rng)
                places = crop_boxes(places, crop, file.width, file.height)
                kept = visible_shares(places) >= LEAST_VISIBLE
                wanted.append((times, crop))
                boxes.append(clip_boxes(places[kept]))
                chosen.append(rows[kept])
            if not any(map(len, chosen)):
                raise NothingToLearn
            size = clip.height, clip.width
            clips = np.stack(file.clips_at(wanted, size, clip.interpolation))
        return self.item(clips, boxes, chosen, epoch, index)

    def item(self, *args, **kwargs) -> Item:
        """As in evaluation, with ``skipped``, the number of items that were skipped before it."""
        return super().item(*args, **kwargs) | {"skipped": torch.tensor([0])}


class EvaluationKeyframes(_KeyframeClips):
    """The clip of each keyframe for evaluation: a centre crop, or the whole picture.

    An item is indexed by ``(epoch, index)``; see `_KeyframeClips.item`. No box is dropped: the crop
    cuts boxes off at its border, and a box outside of it becomes an empty one at the border.

    Args:
        manifest: the keyframes.
        clip: format of the crop.
        seed: seed of the run.
        timestamp_offset: second of the annotation at which files begin.
        frame_rate: pictures a second of frame folders.
        short_side: pixels to which the short side is scaled; None: the crop just fits in.
        pad: instead of the crop, height and width to which the whole picture is padded with black
            at its right and bottom. A picture that is too long is scaled down to fit.
    """

    def __init__(
        self,
        manifest: KeyframeManifest,
        clip: ClipFormat,
        seed: int,
        timestamp_offset: float,
        frame_rate: float,
        short_side: int | None = None,
        pad: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(manifest, clip, 1, seed, timestamp_offset, frame_rate)
        self.short_side, self.pad = short_side, pad
        if pad is not None:
            self.item_shape = (1, clip.num_frames, *pad, 3)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        rows = self._rows(index)
        with self._open(index) as file:
            sizes = file.width, file.height, self.clip, self.short_side, self.pad
            height, width = evaluated_size(*sizes)
            times, kind = self._times(index), self.clip.interpolation
            frames = file.frames_at(times, (height, width), interpolation=kind)
        boxes = self.manifest.keyframes.boxes[rows].astype(np.float64)
        if self.pad is None:
            crop = view_crops(width, height, self.clip.width, self.clip.height, 1)[0]
            x1, y1, x2, y2 = crop
            frames = frames[:, y1:y2, x1:x2]
        else:
            crop = (0, 0, self.pad[1], self.pad[0])
            black = [(0, 0), (0, self.pad[0] - height), (0, self.pad[1] - width), (0, 0)]
            frames = np.pad(frames, black)
        boxes = clip_boxes(crop_boxes(boxes, crop, width, height))
        return self.item(frames[None], [boxes], [rows], epoch, index)


def evaluated_size(
    width: int,
    height: int,
    clip: ClipFormat,
    short_side: int | None,
    pad: tuple[int, int] | None,
) -> tuple[int, int]:
    """Height and width in pixels of the whole picture in evaluation, before crop or padding.

    Args:
        width: width of the picture in the file, pixels.
        height: height of it, pixels.
        clip: format of the crop.
        short_side: see `EvaluationKeyframes`.
        pad: see `EvaluationKeyframes`.
    """
    if pad is None:
        least = short_side or 0
        return covering_size(width, height, max(clip.width, least), max(clip.height, least))
    most = min(pad[0] / height, pad[1] / width)
    factor = min((short_side or min(pad)) / min(width, height), most)
    return max(1, round(height * factor)), max(1, round(width * factor))


def open_video(path: str, frame_rate: float) -> VideoFile | FrameFolder:
    """Open a video file, or a folder of its frames at ``frame_rate`` pictures a second.

    Raises:
        VideoDecodeError: the file or folder cannot be opened.
    """
    return FrameFolder(path, frame_rate) if os.path.isdir(path) else VideoFile(path)
