"""Which moments of a video, and which part of the picture, make a clip.

Times are seconds from the first displayed frame; boxes are ``(x1, y1, x2, y2)`` in displayed
pixels. Everything here is arithmetic on numbers: no file is touched.
"""

import math

import numpy as np

Box = tuple[int, int, int, int]


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """Seed of one clip, in [0, 2**63): a pure function of its arguments (numpy SeedSequence)."""
    state = np.random.SeedSequence((seed, epoch, index, repeat)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def clip_span(num_frames: int, stride: int, fps: float) -> float:
    """Seconds between the first and the last frame of a clip.

    ``stride`` counts frames of a nominal ``fps``, so that "16 x 4" covers the same time in a file
    of any rate (PySlowFast, ``TARGET_FPS`` 30).
    """
    return (num_frames - 1) * stride / fps


def clip_times(start: float, num_frames: int, stride: int, fps: float) -> np.ndarray:
    """Times of a clip's frames: float64 ``(num_frames,)`` seconds, ``stride / fps`` apart.

    Times past the end of the video are fine: the decoder shows the last frame there.
    """
    return start + np.arange(num_frames) * (stride / fps)


def keyframe_times(second: float, num_frames: int, stride: int, fps: float) -> np.ndarray:
    """Times of a clip around a keyframe, which is its frame ``num_frames // 2`` (PySlowFast, AVA).

    Times before 0 and past the end are fine: the decoder shows the first and the last frame there.

    Args:
        second: of the keyframe.
        num_frames: of the clip.
        stride: a clip takes every ``stride``-th frame of a nominal ``fps``.
        fps: nominal frames a second.

    Returns:
        float64 ``(num_frames,)`` seconds, ``stride / fps`` apart.
    """
    return second + (np.arange(num_frames) - num_frames // 2) * (stride / fps)


def random_clip_start(duration: float, span: float, rng: np.random.Generator) -> float:
    """Start of a training clip in seconds, uniform over all that fit; 0 in a shorter video."""
    return float(rng.uniform(0.0, max(0.0, duration - span)))


def view_starts(last_frame: float, span: float, views: int) -> list[float]:
    """Starts in seconds of ``views`` equally spaced test clips.

    The first clip begins with the first frame, the last one ends with the last frame; a single
    clip lies in the middle (Kinetics protocol, HIERA "16 x 4, 5 temporal views").

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
    """A uniform random time in each of ``segments`` equal parts of a video (TSN, Wang et al. 2016).

    Returns:
        float64 ``(segments,)`` seconds, ascending.
    """
    return (np.arange(segments) + rng.random(segments)) * (duration / segments)


def segment_view_times(duration: float, segments: int, views: int) -> list[np.ndarray]:
    """One time in each of ``segments`` equal parts of a video, for each of ``views`` test views.

    View v takes what lies at (v + 1/2) / ``views`` of each part: a single one the centre, several
    interleave, so that together they are a sampling ``views`` times as dense. (In PySlowFast all
    temporal views of SSv2 are the same frames; VideoMAE's two test segments differ as here.)

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
    """One random box for all frames of a clip (Inception crop: area, then log-uniform aspect).

    Args:
        width: width of the displayed picture, pixels.
        height: height of the displayed picture, pixels.
        aspect: width / height of the model's input; ``ratio`` is relative to it.
        scale: least and greatest share of the picture's area.
        ratio: least and greatest distortion of the aspect; (3/4, 4/3) is usual.
        rng: source of randomness.

    Returns:
        A box inside the picture. If ten draws do not fit, the largest central box of ``aspect``.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        shape = aspect * math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return x, y, x + w, y + h
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(width / aspect)))
    return view_crops(width, height, w, h, 1)[0]


def random_short_side_crop(
    width: int,
    height: int,
    crop: tuple[int, int],
    short_side: tuple[int, int],
    rng: np.random.Generator,
) -> Box:
    """One random box for all frames of a clip: the short side scaled, then a crop of fixed size.

    This is PySlowFast's ``random_short_side_scale_jitter`` and random crop, as the box in the
    picture's own pixels that the crop covers.

    Args:
        width: width of the displayed picture, pixels.
        height: height of the displayed picture, pixels.
        crop: (height, width) of the crop, pixels after scaling.
        short_side: least and greatest length of the scaled short side, pixels, of which one is
            drawn uniformly; at least as long as the longer side of ``crop``.
        rng: source of randomness.

    Returns:
        A box inside the picture.
    """
    factor = min(width, height) / int(rng.integers(short_side[0], short_side[1] + 1))
    h, w = (max(1, round(side * factor)) for side in crop)
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return x, y, x + w, y + h


def covering_size(width: int, height: int, least_width: int, least_height: int) -> tuple[int, int]:
    """Smallest (height, width) with the picture's proportions that covers the given rectangle.

    For a square rectangle this is "scale the short side to".
    """
    factor = max(least_width / width, least_height / height)
    return max(least_height, round(height * factor)), max(least_width, round(width * factor))


def view_crops(width: int, height: int, crop_width: int, crop_height: int, views: int) -> list[Box]:
    """Boxes of one size at equal steps along the picture's free side.

    One view is the centre; three are left, centre, right of a wide picture and top, centre,
    bottom of a tall one (PySlowFast ``uniform_crop``).
    """
    boxes = []
    for i in range(views):
        share = 0.5 if views == 1 else i / (views - 1)
        x, y = math.ceil((width - crop_width) * share), math.ceil((height - crop_height) * share)
        boxes.append((x, y, x + crop_width, y + crop_height))
    return boxes
