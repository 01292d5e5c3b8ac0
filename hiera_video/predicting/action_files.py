"""The actions of persons in videos as files: AVA's csv, JSON lines, and the video with boxes."""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.files import atomic_file
from datamodules.video.decoding import VideoFile
from hiera_video.metrics.ava_boxes import DetectedBoxes
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.film import Film
from hiera_video.predicting.moments import Person, Second
from hiera_video.predicting.persons import PersonSource
from hiera_video.predicting.result_files import check_folder, write_each
from hiera_video.results.ava_csv import check_names, write_ava_csv
from hiera_video.terminal import progress_line
from hiera_video.visualize.boxes import LabelledBox, box_overlay

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
    - ``NAME.mp4``, the video with these boxes and actions drawn in, and its sound; each frame shows
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
    return write_each(
        videos, out, lambda video: _predict_file(predictor, persons, video, out, min_action_score)
    )


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
    check_folder(videos, out)


def _predict_file(
    predictor: ActionPredictor, persons: PersonSource, video: str, out: Path, least: float
) -> None:
    name = Path(video).stem
    with ExitStack() as stack:
        file = stack.enter_context(VideoFile(video))
        seconds = persons.seconds(file.path, file.duration)
        table, lines, film_path = (
            stack.enter_context(atomic_file(out / f"{name}{suffix}")) for suffix in SUFFIXES
        )
        rows = stack.enter_context(open(table, "wb"))
        json_lines = stack.enter_context(open(lines, "w", encoding="utf-8"))
        film = stack.enter_context(Film(file, film_path))
        show = stack.enter_context(progress_line(name, "seconds of video"))
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
            people = _labelled(record["boxes"])
            film.draw(until, lambda width, height, p=people: box_overlay(width, height, p))
            show(done, len(seconds))


def _record(name: str, second: Second) -> dict[str, Any]:
    """A line of ``NAME.jsonl``; see `predict_files`."""
    boxes = [record_of(person) for person in second.persons]
    return {"video": name, "second": second.second, "boxes": boxes}


def record_of(person: Person) -> dict[str, Any]:
    """A person as JSON: ``{"box", "person_score", "actions": [{"label", "score"}, ...]}``."""
    return {
        "box": [round(x, 4) for x in person.box],
        "person_score": round(person.score, 4),
        "actions": [
            {"label": action.label, "score": round(action.score, 4)} for action in person.actions
        ],
    }


def _labelled(people: Sequence[dict[str, Any]]) -> list[LabelledBox]:
    """The ``boxes`` of a `_record`, to be drawn."""
    return [
        LabelledBox(p["box"], [(action["label"], action["score"]) for action in p["actions"]])
        for p in people
    ]
