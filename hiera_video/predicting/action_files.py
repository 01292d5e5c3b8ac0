"""The actions of persons in videos as files: AVA's csv, JSON lines, and the video with boxes."""

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
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.moments import Second
from hiera_video.predicting.persons import PersonSource
from hiera_video.results.ava_csv import check_names, write_ava_csv
from hiera_video.terminal import progress_line
from hiera_video.visualize.boxes import LabelledBox, box_overlay, laid_over

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".jsonl", ".mp4")  # of the files that are written for each video


def predict_files(
    predictor: ActionPredictor,
    persons: PersonSource,
    videos: Sequence[str],
    out: Path,
    min_action_score: float = 0.5,
) -> list[str]:
    """Write the results for videos into a folder; a video that fails is reported and left out.

    A video ``NAME.mp4`` gives three files, which appear when they are complete:

    - ``NAME.csv``, the scores of all actions as rows ``NAME,second,x1,y1,x2,y2,action_id,score``,
      AVA's form for evaluation;
    - ``NAME.jsonl``, a line for each second: ``{"video", "second", "boxes": [{"box",
      "person_score", "actions": [{"label", "score"}, ...]}, ...]}`` with the actions of at least
      ``min_action_score``, best first;
    - ``NAME.mp4``, the video with these boxes and actions drawn in, without sound; each frame shows
      the second nearest to its start.

    Args:
        predictor: scores actions.
        persons: finds persons.
        videos: the video files.
        out: the folder, created if it does not exist.
        min_action_score: score below which an action is not shown, in [0, 1].

    Returns:
        The videos that did not fail.

    Raises:
        ValueError: as `check_request`; nothing is written.
    """
    check_request(videos, out, min_action_score)
    out.mkdir(parents=True, exist_ok=True)
    if old := [name for video in videos if (out / (name := f"{Path(video).stem}.jsonl")).exists()]:
        log.info(f"{out} holds earlier predictions, such as {old[0]}; {len(old)} are overwritten")
    done = []
    for video in videos:
        try:
            _predict_file(predictor, persons, video, out, min_action_score)
        except (VideoDecodeError, DatasetError) as error:
            log.error(str(error))
        else:
            done.append(video)
    return done


def check_request(videos: Sequence[str], out: Path, min_action_score: float) -> None:
    """Check that `predict_files` can begin.

    Args:
        videos: as in `predict_files`.
        out: as in `predict_files`.
        min_action_score: as in `predict_files`.

    Raises:
        ValueError: the score is not in [0, 1].
        DatasetError: two videos have the same name, a csv cannot hold the name of one, or one
            would be overwritten.
    """
    if not 0 <= min_action_score <= 1:
        raise ValueError(f"min_action_score must be in [0, 1], not {min_action_score}")
    check_names([Path(video).stem for video in videos])
    check_targets(videos, out, ".mp4")


def check_targets(videos: Sequence[str], out: Path, ending: str) -> None:
    """Check that each video can have a file of its own in a folder.

    Args:
        videos: the video files.
        out: the folder, which need not exist.
        ending: what follows a video's name, less its suffix, in the names of the files.

    Raises:
        DatasetError: two videos have the same name, or one would be overwritten.
    """
    if out.exists() and not out.is_dir():
        raise DatasetError(f"out={out} is a file; name a folder")
    named: dict[str, str] = {}
    for video in videos:
        other = named.setdefault(Path(video).stem, video)
        if other != video:
            raise DatasetError(f"{other} and {video} have the same name; use two folders")
        target = out / f"{Path(video).stem}{ending}"
        if target.exists() and os.path.exists(video) and target.samefile(video):
            raise DatasetError(f"out={out} holds {video} itself; name another folder")


def _predict_file(
    predictor: ActionPredictor, persons: PersonSource, video: str, out: Path, least: float
) -> None:
    name = Path(video).stem
    with ExitStack() as stack:
        file = stack.enter_context(VideoFile(video))
        seconds = persons.seconds(file.path, file.duration)
        table, lines, film = (
            stack.enter_context(atomic_file(out / f"{name}{suffix}")) for suffix in SUFFIXES
        )
        rows = stack.enter_context(open(table, "wb"))
        json_lines = stack.enter_context(open(lines, "w", encoding="utf-8"))
        writer = stack.enter_context(VideoWriter(film, file.rate))
        frames = stack.enter_context(closing(play(video)))
        show = stack.enter_context(progress_line(name, "seconds"))
        shown = next(frames, None)
        moments = chain(predictor.moments(file, persons, seconds), [None])
        for done, (moment, following) in enumerate(pairwise(moments), 1):
            assert moment is not None
            second, boxes = moment.second, moment.persons.boxes.astype(np.float32)
            where = np.zeros(len(boxes), np.int64), np.full(len(boxes), second, np.float64)
            detected = DetectedBoxes(*where, boxes, moment.scores)
            write_ava_csv(rows, [name], detected, predictor.action_ids)
            record = _record(name, moment.labelled(predictor.class_names, least))
            json_lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            until = math.inf if following is None else (moment.second + following.second) / 2
            shown = _draw(shown, frames, until, record["boxes"], writer)
            show(done, len(seconds))


def _record(name: str, second: Second) -> dict[str, Any]:
    """A line of ``NAME.jsonl``; see `predict_files`."""
    boxes = [
        {
            "box": [round(x, 4) for x in person.box],
            "person_score": round(person.score, 4),
            "actions": [
                {"label": action.label, "score": round(action.score, 4)}
                for action in person.actions
            ],
        }
        for person in second.persons
    ]
    return {"video": name, "second": second.second, "boxes": boxes}


def _draw(
    shown: Shown | None,
    frames: Iterator[Shown],
    until: float,
    people: Sequence[dict[str, Any]],
    writer: VideoWriter,
) -> Shown | None:
    """Write the frames that start before a time, all with the same persons.

    Args:
        shown: the first frame that is not written yet; None at the end of the video.
        frames: those after it.
        until: seconds.
        people: the ``boxes`` of a `_record`.
        writer: receives the frames.

    Returns:
        The first frame that is not written yet; None at the end of the video.
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
