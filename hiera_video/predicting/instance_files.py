"""The objects in pictures and videos as files: JSON lines, and pictures and videos with masks."""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.coco.rle import encode, to_text
from datamodules.files import atomic_file
from datamodules.suffixes import PICTURES
from datamodules.video.decoding import VideoFile
from datamodules.video.pictures import PictureFile
from hiera_video.predicting.film import Film
from hiera_video.predicting.instances import InstancePredictor, Objects, check_options, frames_of
from hiera_video.predicting.result_files import check_folder, write_each
from hiera_video.terminal import progress_line
from hiera_video.visualize.boxes import LabelledBox, box_overlay, laid_over

PICTURE, VIDEO = (".jsonl", ".png"), (".jsonl", ".mp4")  # suffixes of the files that are written


def predict_instances(
    predictor: InstancePredictor,
    files: Sequence[str],
    out: Path,
    min_score: float = 0.5,
    stride: float | None = None,
) -> list[str]:
    """Write the objects in files into a folder; a file that fails is reported and left out.

    A picture ``NAME.jpg`` gives ``NAME.jsonl``, with one line, and ``NAME.png``, the picture with
    boxes, names and masks drawn in. A video ``NAME.mp4`` gives ``NAME.jsonl``, with a line for each
    frame that is looked at, and ``NAME.mp4``, the video with these drawn in and its sound; other
    frames show the objects of the last one that was looked at. A line is ``{"image", "objects"}``
    or ``{"video", "start", "end", "objects"}``, and an object is as in a file of COCO's results,
    with its name: ``{"category", "category_id", "score", "bbox", "segmentation"}``. ``bbox`` is x,
    y, width and height in pixels; ``segmentation`` has run lengths as text.

    Args:
        predictor: finds objects.
        files: pictures, by their suffixes, and videos.
        out: the folder, created if it does not exist.
        min_score: objects with a lower score are left out, in [0, 1].
        stride: of videos, as in `InstancePredictor.along`.

    Returns:
        The files that did not fail.

    Raises:
        ValueError: as `check_instances`; nothing is written.
    """
    check_instances(files, out, min_score, stride)

    def write(file: str) -> None:
        if PICTURES.has(file):
            _write_picture(predictor, file, out, min_score)
        else:
            _write_video(predictor, file, out, min_score, stride)

    return write_each(files, out, write)


def check_instances(
    files: Sequence[str], out: Path, min_score: float, stride: float | None
) -> None:
    """Check that `predict_instances` can begin; arguments are the same.

    Raises:
        ValueError: the score is not in [0, 1], or the stride is not a positive number.
        DatasetError: two files have the same name, or one would be overwritten.
    """
    check_options(min_score, stride)
    check_folder(files, out, ".png", ".mp4")


def object_records(objects: Objects, category_ids: dict[str, int]) -> list[dict[str, Any]]:
    """Objects as JSON; see `predict_instances`.

    Args:
        objects: N of them.
        category_ids: by the names of the classes.
    """
    records = []
    for label, score, box, mask in zip(*objects, strict=True):
        x1, y1, x2, y2 = box.tolist()
        records.append(
            {
                "category": label,
                "category_id": category_ids[label],
                "score": round(float(score), 4),
                "bbox": [round(n, 2) for n in (x1, y1, x2 - x1, y2 - y1)],
                "segmentation": {"size": list(mask.shape), "counts": to_text(encode(mask))},
            }
        )
    return records


def object_overlay(width: int, height: int, objects: Objects) -> Image.Image:
    """Draw objects on a transparent picture, to be laid over a frame; see `box_overlay`."""
    shares = objects.boxes / np.array([width, height, width, height])
    rows = zip(objects.labels, objects.scores.tolist(), shares, objects.masks, strict=True)
    return box_overlay(
        width, height, [LabelledBox(box, [(name, score)], mask) for name, score, box, mask in rows]
    )


def _write_picture(predictor: InstancePredictor, file: str, out: Path, min_score: float) -> None:
    name = Path(file).stem
    with PictureFile(file) as opened:
        (picture,) = opened.frames_at([0.0])
    objects = predictor.in_picture(picture, min_score)
    overlay = object_overlay(opened.width, opened.height, objects)
    with ExitStack() as stack:
        lines, drawn = (stack.enter_context(atomic_file(out / f"{name}{s}")) for s in PICTURE)
        lines.write_text(_line(predictor, {"image": name}, objects), encoding="utf-8")
        Image.fromarray(laid_over(picture, overlay)).save(drawn, "PNG")


def _write_video(
    predictor: InstancePredictor, video: str, out: Path, min_score: float, stride: float | None
) -> None:
    name = Path(video).stem
    with ExitStack() as stack:
        file = stack.enter_context(VideoFile(video))
        lines, film_path = (stack.enter_context(atomic_file(out / f"{name}{s}")) for s in VIDEO)
        json_lines = stack.enter_context(open(lines, "w", encoding="utf-8"))
        film = stack.enter_context(Film(file, film_path))
        show = stack.enter_context(progress_line(name, "seconds of video"))
        total = math.ceil(file.duration)
        for shown in frames_of(video, stride):
            objects = predictor.in_picture(shown.picture, min_score)
            times = {"start": round(float(shown.start), 3), "end": round(float(shown.end), 3)}
            json_lines.write(_line(predictor, {"video": name, **times}, objects))
            film.draw(shown.end, lambda w, h, o=objects: object_overlay(w, h, o))
            show(min(math.ceil(shown.end), total), total)


def _line(predictor: InstancePredictor, source: dict[str, Any], objects: Objects) -> str:
    """A line of ``NAME.jsonl``; see `predict_instances`."""
    ids = dict(zip(predictor.class_names, predictor.category_ids, strict=True))
    record = {**source, "objects": object_records(objects, ids)}
    return json.dumps(record, ensure_ascii=False) + "\n"
