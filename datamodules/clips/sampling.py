"""Which moments of a video, and which part of the picture, make a clip.

Times are seconds from the first displayed frame; a box is in displayed pixels. Everything here is
arithmetic on numbers: no file is touched.
"""

import math

import numpy as np

from datamodules.clips.boxes import Box


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """Seed of one clip, in [0, 2**63): a pure function of its arguments (numpy SeedSequence)."""
    state = np.random.SeedSequence((seed, epoch, index, repeat)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def clip_span(num_frames: int, stride: float, fps: float) -> float:
    """Seconds between the first and the last frame of a clip.

    "16 x 4" means the same time in a file of any rate, as in PySlowFast (``TARGET_FPS`` 30).

    Args:
        num_frames: frames of the clip.
        stride: nominal frames from one of its frames to the next.
        fps: nominal frames per second.
    """
    return (num_frames - 1) * stride / fps


def spread_stride(num_frames: int, stride: int) -> float:
    """The stride that spreads a clip over all of ``num_frames * stride`` nominal frames.

    PySlowFast takes 16 x 4 as 16 of 64 frames, from the first to the last: 0, 4.2, ..., 63. Every
    fourth frame would be 0, 4, ..., 60.

    Args:
        num_frames: frames of the clip.
        stride: nominal frames for each of them.
    """
    return (num_frames * stride - 1) / max(1, num_frames - 1)


def clip_times(start: float, num_frames: int, stride: float, fps: float) -> np.ndarray:
    """Times of a clip's frames.

    They may lie past the end of the video, where the decoder shows the last frame.

    Args:
        start: time of the first frame, seconds.
        num_frames: frames of the clip.
        stride: nominal frames from one of its frames to the next.
        fps: nominal frames per second.

    Returns:
        float64 ``(num_frames,)`` seconds, ``stride / fps`` apart.
    """
    return start + np.arange(num_frames) * (stride / fps)


def last_frame_time(duration: float, rate: float) -> float:
    """When the last frame of a video starts, seconds, at a constant rate; at least 0.

    Args:
        duration: of the video, seconds.
        rate: of the video, frames per second.
    """
    return max(0.0, duration - 1 / rate)


def keyframe_times(second: float, num_frames: int, stride: int, fps: float) -> np.ndarray:
    """Times of a clip around a keyframe, which is its frame ``num_frames // 2`` (PySlowFast, AVA).

    They may lie before 0 and past the end, where the decoder shows the first and the last frame.

    Args:
        second: time of the keyframe, seconds.
        num_frames: frames of the clip.
        stride: the clip takes every ``stride``-th frame of a nominal ``fps``.
        fps: nominal frames per second.

    Returns:
        float64 ``(num_frames,)`` seconds, ``stride / fps`` apart.
    """
    return second + (np.arange(num_frames) - num_frames // 2) * (stride / fps)


def random_clip_start(duration: float, span: float, rng: np.random.Generator) -> float:
    """Draw the start of a training clip in seconds, uniformly over all that fit.

    Args:
        duration: of the video, seconds.
        span: seconds from the first to the last frame of the clip; in a shorter video it starts
            at 0.
        rng: source of randomness.
    """
    return float(rng.uniform(0.0, max(0.0, duration - span)))


def view_starts(last_frame: float, span: float, views: int) -> list[float]:
    """Starts in seconds of ``views`` equally spaced test clips.

    The first clip begins with the first frame, and the last one ends with the last frame. A single
    clip lies in the middle (Kinetics protocol; Hiera paper: "16 x 4, 5 temporal views").

    Args:
        last_frame: time at which the last frame of the video is shown, seconds.
        span: seconds from the first to the last frame of a clip.
        views: number of clips, at least 1.
    """
    latest = max(0.0, last_frame - span)
    if views == 1:
        return [latest / 2]
    return [latest * i / (views - 1) for i in range(views)]


def random_segment_times(duration: float, segments: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a time in each of ``segments`` equal parts of a video (TSN, Wang et al. 2016).

    Args:
        duration: of the video, seconds.
        segments: number of parts.
        rng: source of randomness.

    Returns:
        float64 ``(segments,)`` seconds, ascending.
    """
    return (np.arange(segments) + rng.random(segments)) * (duration / segments)


def segment_view_times(duration: float, segments: int, views: int) -> list[np.ndarray]:
    """One time in each of ``segments`` equal parts of a video, for each of ``views`` test views.

    View v takes the moment at (v + 1/2) / ``views`` of each part. A single view takes the centres;
    several views interleave, so that together they sample ``views`` times as densely. (In
    PySlowFast, all temporal views of SSv2 are the same frames. VideoMAE's two test segments differ,
    as here.)

    Args:
        duration: of the video, seconds.
        segments: number of parts.
        views: number of views.

    Returns:
        For each view float64 ``(segments,)`` seconds, ascending.
    """
    length = duration / segments
    return [(np.arange(segments) + (view + 0.5) / views) * length for view in range(views)]


def random_resized_crop(
    width: int,
    height: int,
    aspect: float,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """Draw one box for all frames of a clip: its area, then its log-uniform aspect (Inception).

    Args:
        width: width of the displayed picture, pixels.
        height: height of the displayed picture, pixels.
        aspect: width / height of the model's input; ``ratio`` is relative to it.
        scale: smallest and largest share of the picture's area, in (0, 1].
        ratio: smallest and largest distortion of the aspect; (3/4, 4/3) is usual.
        rng: source of randomness.

    Returns:
        A box inside the picture. If none of ten draws fits, it is the whole picture or, where that
        is too wide or too tall for ``ratio``, its centre at the nearest ratio. (As in torchvision
        and PySlowFast. Scaled to the model's input, it is squeezed.)
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        shape = aspect * math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return x, y, x + w, y + h
    w = min(width, max(1, round(height * aspect * max(ratio))))
    h = min(height, max(1, round(width / (aspect * min(ratio)))))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def random_short_side_crop(
    width: int,
    height: int,
    crop: tuple[int, int],
    short_side: tuple[int, int],
    rng: np.random.Generator,
) -> Box:
    """Draw one box for all frames of a clip: scale the short side, then cut out a fixed size.

    This is PySlowFast's ``random_short_side_scale_jitter`` followed by a random crop, expressed as
    the box that the crop covers in the picture before scaling.

    Args:
        width: width of the displayed picture, pixels.
        height: height of the displayed picture, pixels.
        crop: (height, width) of the crop, pixels after scaling.
        short_side: smallest and largest length of the scaled short side, pixels; the length is
            drawn uniformly. None may be shorter than the longer side of ``crop``.
        rng: source of randomness.

    Returns:
        A box inside the picture.
    """
    factor = min(width, height) / int(rng.integers(short_side[0], short_side[1] + 1))
    h, w = (max(1, round(side * factor)) for side in crop)
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return x, y, x + w, y + h


def covering_size(width: int, height: int, least_width: int, least_height: int) -> tuple[int, int]:
    """Smallest size with the picture's proportions that covers a rectangle.

    For a square, this is what "scale the short side to" means.

    Args:
        width: width of the picture, pixels.
        height: height of the picture, pixels.
        least_width: width of the rectangle, pixels.
        least_height: height of the rectangle, pixels.

    Returns:
        (height, width) in pixels.
    """
    factor = max(least_width / width, least_height / height)
    return max(least_height, round(height * factor)), max(least_width, round(width * factor))


def picture_size(width: int, height: int, least_width: int, least_height: int) -> tuple[int, int]:
    """As `covering_size`, but the longer side is rounded down, as by torchvision's ``Resize``.

    With that the published models of images were tested.
    """
    if least_width * height >= least_height * width:
        return max(least_height, least_width * height // width), least_width
    return least_height, max(least_width, least_height * width // height)


def centre_crop(width: int, height: int, crop_width: int, crop_height: int) -> Box:
    """The box amid a picture, in pixels; halves are rounded as by torchvision's ``CenterCrop``."""
    x, y = round((width - crop_width) / 2), round((height - crop_height) / 2)
    return x, y, x + crop_width, y + crop_height


def view_crops(width: int, height: int, crop_width: int, crop_height: int, views: int) -> list[Box]:
    """Boxes of one size at equal steps along the side with the most room, amid the other side.

    One view is the centre. Three views are left, centre and right of a wide picture, and top,
    centre and bottom of a tall one (PySlowFast ``uniform_crop``).

    Args:
        width: width of the picture, pixels.
        height: height of the picture, pixels.
        crop_width: width of a box, pixels.
        crop_height: height of a box, pixels.
        views: number of boxes, at least 1.
    """
    boxes = []
    room_x, room_y = width - crop_width, height - crop_height
    for i in range(views):
        share = 0.5 if views == 1 else i / (views - 1)
        x = math.ceil(room_x * (share if room_x >= room_y else 0.5))
        y = math.ceil(room_y * (share if room_y > room_x else 0.5))
        boxes.append((x, y, x + crop_width, y + crop_height))
    return boxes
