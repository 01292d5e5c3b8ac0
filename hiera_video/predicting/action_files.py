"""What persons do in videos, written: AVA's csv, JSON lines, and the video with it drawn in."""

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.files import atomic_file
from datamodules.video.decoding import VideoFile
from datamodules.video.playback import Shown, VideoWriter, play
from hiera_video.metrics.ava import DetectedBoxes
from hiera_video.predicting.actions import ActionPredictor, Moment
from hiera_video.results.ava_csv import check_names, write_ava_csv
from hiera_video.terminal import progress_line
from hiera_video.visualize.boxes import LabelledBox, box_overlay, laid_over

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".jsonl", ".mp4")  # of what is written of each video


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
    - ``NAME.mp4``, the video with these drawn in, without sound: in each frame, what is found at
      the second nearest to when it appears.

    Args:
        predictor: what scores.
        videos: files.
        out: the folder, made if it is not there.
        min_action_score: in [0, 1].

    Returns:
        The videos that worked.

    Raises:
        ValueError: as `check_request`; nothing is done.
    """
    check_request(videos, out, min_action_score)
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


def check_request(videos: Sequence[str], out: Path, min_action_score: float) -> None:
    """See that `predict_files` can do all of this.

    Raises:
        ValueError: the score is not in [0, 1].
        DatasetError: two videos have the same name, a csv cannot name one, or one would be
            overwritten.
    """
    if not 0 <= min_action_score <= 1:
        raise ValueError(f"min_action_score must be in [0, 1], not {min_action_score}")
    check_names([Path(video).stem for video in videos])
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
    with ExitStack() as stack:
        file = stack.enter_context(VideoFile(video))
        seconds = predictor.seconds(file)
        table, lines, film = (
            stack.enter_context(atomic_file(out / f"{name}{suffix}")) for suffix in SUFFIXES
        )
        rows = stack.enter_context(open(table, "wb"))
        json_lines = stack.enter_context(open(lines, "w", encoding="utf-8"))
        writer = stack.enter_context(VideoWriter(film, file.rate))
        frames = stack.enter_context(closing(play(video)))
        show = stack.enter_context(progress_line(name, "seconds"))
        shown = next(frames, None)
        moments = chain(predictor.moments(file, seconds), [None])
        for done, (moment, following) in enumerate(pairwise(moments), 1):
            assert moment is not None
            second, boxes = moment.second, moment.persons.boxes.astype(np.float32)
            where = np.zeros(len(boxes), np.int64), np.full(len(boxes), second, np.float64)
            detected = DetectedBoxes(*where, boxes, moment.scores)
            write_ava_csv(rows, [name], detected, predictor.action_ids)
            described = describe(name, moment, predictor.class_names, least)
            json_lines.write(json.dumps(described, ensure_ascii=False) + "\n")
            until = math.inf if following is None else (moment.second + following.second) / 2
            shown = _draw(shown, frames, until, described["boxes"], writer)
            show(done, len(seconds))


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
    shown: Shown | None,
    frames: Iterator[Shown],
    until: float,
    people: list[dict[str, Any]],
    writer: VideoWriter,
) -> Shown | None:
    """Write the frames that start before a time, with the same persons.

    Args:
        shown: the first frame that is not written yet; None: there is none.
        frames: those after it.
        until: seconds; if no frame starts before it, none is written.
        people: as `describe` has them.
        writer: what writes them.

    Returns:
        The first frame that is not written yet.
    """
    labelled = [
        LabelledBox(p["box"], [(action["label"], action["score"]) for action in p["actions"]])
        for p in people
    ]
    overlay = None
    while shown is not None and shown.start < until:
        height, width = shown.picture.shape[:2]
        overlay = overlay or box_overlay(width, height, labelled)
        writer.write(shown._replace(picture=laid_over(shown.picture, overlay)))
        shown = next(frames, None)
    return shown
