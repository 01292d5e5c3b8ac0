"""Who does what in a video, once a second: scores, files of results, and the video drawn on.

A file of any length is read forwards, some seconds at a time; nothing is kept of those before.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.atomic_file import atomic_file
from datamodules.boxes import Box, clip_boxes, crop_boxes, visible_shares
from datamodules.clips import ClipFormat
from datamodules.decoding import VideoDecodeError, VideoFile
from datamodules.keyframe_clips import evaluated_size
from datamodules.manifest_file import DatasetError
from datamodules.playback import Shown, VideoWriter, play
from datamodules.sampling import keyframe_times
from hiera_video.augment.basic import Normalize
from hiera_video.metrics.ava import DetectedBoxes
from hiera_video.metrics.ava_csv import write_ava_csv
from hiera_video.persons import PersonBoxes, PersonSource
from hiera_video.progress_line import progress_line
from hiera_video.visualize.boxes import LabelledBox, box_overlay, laid_over

log = logging.getLogger(__name__)

SECONDS_AT_ONCE, CLIPS_AT_ONCE = 8, 8  # that are decoded, and that the model sees, together
SUFFIXES = (".csv", ".jsonl", ".mp4")  # of what is written of each video

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class Moment(NamedTuple):
    """What the persons of a frame do.

    Attributes:
        second: when, from the start of the video.
        persons: their boxes in the full frame.
        scores: of all actions, in [0, 1], float32 ``(N, classes)``.
    """

    second: int
    persons: PersonBoxes
    scores: np.ndarray


class ActionPredictor:
    """Scores the actions of persons in videos.

    A clip is scaled as in evaluation. Where evaluation sees the centre of the picture alone, here
    crops are laid all over it, so that whoever is narrower than half a crop is whole in one of
    them; each person is scored in the crop that holds most of the box, where equal in the one
    nearest to the centre.

    Args:
        network: normalised float ``(B, 3, T, H, W)``, boxes ``(N, 4)`` in [0, 1] of the clip and
            the clip of each, int64 ``(N,)``, to logits ``(N, classes)``.
        class_names: of the logits.
        clip: what it sees of a video.
        persons: where persons are.
        action_ids: of the classes in AVA's files; None: 1, 2, 3, ...
        normalize: from uint8 to what it takes.
        times_person_score: multiply each action's score by that of the person.
        short_side: pixels to which the short side is scaled; None: so that a crop just fits in.
        pad: instead of crops, height and width to which the whole picture is padded.
        device: of network and `normalize`.
    """

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        clip: ClipFormat,
        persons: PersonSource,
        action_ids: Sequence[int] | None = None,
        normalize: Normalize | None = None,
        times_person_score: bool = False,
        short_side: int | None = None,
        pad: tuple[int, int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network, self.class_names, self.clip = network, tuple(class_names), clip
        self.action_ids = tuple(action_ids or range(1, len(self.class_names) + 1))
        self.persons, self.times_person_score = persons, times_person_score
        self.short_side, self.pad = short_side, pad
        self.device = torch.device(device)
        self.normalize = (normalize or Normalize()).to(self.device)

    def moments(self, video: str) -> Iterator[Moment]:
        """The moments of a video, ascending.

        Raises:
            VideoDecodeError: the file cannot be read.
            DatasetError: the persons of this video are not known.
        """
        with VideoFile(video) as file:
            seconds = self.persons.seconds(video, file.duration)
            for start in range(0, len(seconds), SECONDS_AT_ONCE):
                some = seconds[start : start + SECONDS_AT_ONCE]
                persons = self.persons.at(file, some)
                scores = self._scores(file, some, persons)
                yield from map(Moment, some, persons, scores)

    def _scores(
        self, file: VideoFile, seconds: Sequence[int], persons: Sequence[PersonBoxes]
    ) -> list[np.ndarray]:
        """Float32 ``(N, classes)`` of the persons of each second."""
        busy = [i for i, found in enumerate(persons) if len(found.boxes)]
        scores = [np.empty((0, len(self.class_names)), np.float32) for _ in seconds]
        if not busy:
            return scores
        clip = self.clip
        height, width = evaluated_size(file.width, file.height, clip, self.short_side, self.pad)
        view_height, view_width = self.pad or (clip.height, clip.width)
        crops = crops_over(width, height, view_width, view_height)
        times = np.concatenate([self._times(seconds[i]) for i in busy])
        frames = file.frames_at(times, size=(height, width))
        frames = frames.reshape(len(busy), clip.num_frames, height, width, 3)
        clips: list[np.ndarray] = []
        boxes, box_clip = [], []
        for i, shown in zip(busy, frames, strict=True):
            chosen, inside = boxes_in_crops(persons[i].boxes, crops, width, height)
            used, which = np.unique(chosen, return_inverse=True)
            boxes.append(inside)
            box_clip.append(len(clips) + which)
            for x1, y1, x2, y2 in (crops[k] for k in used):
                view = np.zeros((len(shown), view_height, view_width, 3), np.uint8)
                view[:, :height, :width] = shown[:, y1:y2, x1:x2]
                clips.append(view)
        found = self._run(clips, np.concatenate(boxes), np.concatenate(box_clip))
        ends = np.cumsum([len(part) for part in boxes])[:-1]
        for i, part in zip(busy, np.split(found, ends), strict=True):
            scores[i] = part
            if self.times_person_score:
                scores[i] = part * persons[i].scores[:, None].astype(np.float32)
        return scores

    def _times(self, second: int) -> np.ndarray:
        """Of the frames of a clip, as in evaluation."""
        clip = self.clip
        return keyframe_times(second, clip.num_frames, clip.stride, clip.fps)

    @torch.inference_mode()
    def _run(
        self, clips: Sequence[np.ndarray], boxes: np.ndarray, box_clip: np.ndarray
    ) -> np.ndarray:
        """Score boxes ``(N, 4)`` of clips uint8 ``(T, H, W, 3)``; ``box_clip`` says of which.

        Returns:
            Float32 ``(N, classes)`` in [0, 1].
        """
        scores = np.empty((len(boxes), len(self.class_names)), np.float32)
        for start in range(0, len(clips), CLIPS_AT_ONCE):
            some = np.stack(clips[start : start + CLIPS_AT_ONCE])
            video = torch.from_numpy(some).permute(0, 4, 1, 2, 3).to(self.device)  # (B, 3, T, H, W)
            here = (start <= box_clip) & (box_clip < start + len(some))
            inside = torch.from_numpy(boxes[here]).float().to(self.device)
            clip = torch.from_numpy(box_clip[here] - start).to(self.device)
            logits = self.network(self.normalize(video), inside, clip)
            scores[here] = logits.float().sigmoid().cpu().numpy()
        return scores


def crops_over(width: int, height: int, crop_width: int, crop_height: int) -> list[Box]:
    """Crops all over a picture, at equal steps of at most half a crop.

    Returns:
        x1, y1, x2, y2 in pixels, those nearest to the centre first.
    """
    xs, ys = _starts(width, crop_width), _starts(height, crop_height)
    crops = [(x, y, x + crop_width, y + crop_height) for y in ys for x in xs]

    def from_centre(crop: Box) -> int:
        x1, y1, x2, y2 = crop
        return (x1 + x2 - width) ** 2 + (y1 + y2 - height) ** 2

    return sorted(crops, key=from_centre)


def _starts(length: int, crop: int) -> list[int]:
    """Where crops begin along one side: an odd number of them, so that one is the centre."""
    steps = 2 * math.ceil(max(0, length - crop) / crop)
    return [math.ceil((length - crop) * i / steps) for i in range(steps + 1)] if steps else [0]


def boxes_in_crops(
    boxes: np.ndarray, crops: Sequence[Box], width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose a crop for each box: the first of those that hold most of it.

    Args:
        boxes: x1, y1, x2, y2 in [0, 1] of the picture, float64 ``(N, 4)``.
        crops: the same in pixels of the picture.
        width: of the picture, pixels.
        height: the same.

    Returns:
        int64 ``(N,)``, the chosen crop; float64 ``(N, 4)``, the boxes in [0, 1] of it, cut off at
        its border.
    """
    moved = np.stack([crop_boxes(boxes, crop, width, height) for crop in crops])  # (crops, N, 4)
    shares = np.stack([visible_shares(some) for some in moved]).round(6)
    chosen = shares.argmax(axis=0)
    return chosen, clip_boxes(moved[chosen, np.arange(len(boxes))])


def predict_files(
    predictor: ActionPredictor, videos: Sequence[str], out: Path, min_action_score: float = 0.5
) -> list[str]:
    """Write results of videos into a folder; one that fails is reported, and the next one begins.

    Of ``NAME.mp4`` come, each when it is whole,

    - ``NAME.csv``, the scores of all actions as rows ``NAME,second,x1,y1,x2,y2,action_id,score``,
      AVA's form for evaluation;
    - ``NAME.jsonl``, a line for each second: ``{"video", "second", "boxes": [{"box",
      "person_score", "actions": [{"label", "score"}, ...]}, ...]}`` with the actions of at least
      ``min_action_score``, best first;
    - ``NAME.mp4``, the video with these drawn in, without sound. What is found at a second is shown
      for the half second before and after it.

    Args:
        predictor: what scores.
        videos: files.
        out: the folder, made if it is not there.
        min_action_score: in [0, 1].

    Returns:
        The videos that worked.

    Raises:
        DatasetError: two videos have the same name, or one would be overwritten; nothing is done.
    """
    if not 0 <= min_action_score <= 1:
        raise ValueError(f"min_action_score must be in [0, 1], not {min_action_score}")
    _check_targets(videos, out)
    out.mkdir(parents=True, exist_ok=True)
    done = []
    for video in videos:
        try:
            _predict_file(predictor, video, out, min_action_score)
        except (VideoDecodeError, DatasetError) as error:
            log.error(str(error))
        else:
            done.append(video)
    return done


def _check_targets(videos: Sequence[str], out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DatasetError(f"out={out} is a file; name a folder")
    named: dict[str, str] = {}
    for video in videos:
        other = named.setdefault(Path(video).stem, video)
        if other != video:
            raise DatasetError(f"{other} and {video} have one name; predict them into two folders")
        target = out / f"{Path(video).stem}.mp4"
        if target.exists() and os.path.exists(video) and target.samefile(video):
            raise DatasetError(f"out={out} holds {video} itself; name another folder")


def _predict_file(predictor: ActionPredictor, video: str, out: Path, least: float) -> None:
    name = Path(video).stem
    with VideoFile(video) as file:
        rate, total = file.rate, len(predictor.persons.seconds(video, file.duration))
    with ExitStack() as stack:
        table, lines, film = (
            stack.enter_context(atomic_file(out / f"{name}{suffix}")) for suffix in SUFFIXES
        )
        rows = stack.enter_context(open(table, "wb"))
        json_lines = stack.enter_context(open(lines, "w", encoding="utf-8"))
        writer = stack.enter_context(VideoWriter(film, rate))
        frames = stack.enter_context(closing(play(video)))
        show = stack.enter_context(progress_line(name, "seconds"))
        moments = chain(predictor.moments(video), [None])
        for done, (moment, following) in enumerate(pairwise(moments), 1):
            assert moment is not None
            second, boxes = moment.second, moment.persons.boxes.astype(np.float32)
            where = np.zeros(len(boxes), np.int64), np.full(len(boxes), second, np.float64)
            detected = DetectedBoxes(*where, boxes, moment.scores)
            write_ava_csv(rows, [name], detected, predictor.action_ids)
            described = describe(name, moment, predictor.class_names, least)
            json_lines.write(json.dumps(described, ensure_ascii=False) + "\n")
            until = math.inf if following is None else (moment.second + following.second) / 2
            _draw(frames, until, described["boxes"], writer)
            show(done, total)


def describe(name: str, moment: Moment, class_names: Sequence[str], least: float) -> dict[str, Any]:
    """A line of ``NAME.jsonl``; see `predict_files`."""
    people = []
    for box, person, scores in zip(*moment.persons, moment.scores, strict=True):
        best = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= least]
        people.append(
            {
                "box": [round(x, 4) for x in box.tolist()],
                "person_score": round(float(person), 4),
                "actions": [
                    {"label": class_names[i], "score": round(float(scores[i]), 4)} for i in best
                ],
            }
        )
    return {"video": name, "second": moment.second, "boxes": people}


def _draw(
    frames: Iterator[Shown], until: float, people: list[dict[str, Any]], writer: VideoWriter
) -> None:
    """Write the frames that start before a time, with the same persons."""
    labelled = [
        LabelledBox(p["box"], [(action["label"], action["score"]) for action in p["actions"]])
        for p in people
    ]
    overlay = None
    for shown in frames:
        height, width = shown.picture.shape[:2]
        overlay = overlay or box_overlay(width, height, labelled)
        writer.write(shown._replace(picture=laid_over(shown.picture, overlay)))
        if shown.end >= until:
            return
