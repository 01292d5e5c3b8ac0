"""Person boxes in AlphAction's json."""

import math
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from datamodules.errors import DatasetError
from datamodules.manifests.lists import at, read_json

Row = tuple[str, float, tuple[float, ...], float]  # video, second, x1 y1 x2 y2, score


class _Image(NamedTuple):
    """A keyframe and its size in pixels."""

    movie: str
    second: float
    width: float
    height: float


def read_json_rows(path: Path, images: Path | None = None) -> list[Row]:
    """Read boxes as rows of video, second, box (x1, y1, x2, y2 in [0, 1]) and score.

    Args:
        path: a list of objects ``image_id``, ``bbox`` (x, y, width, height in pixels), ``score``.
        images: the json with the list ``images`` of ``id``, ``movie``, ``timestamp``, ``width`` and
            ``height``; None: ``path`` holds both lists, the boxes as ``annotations``.

    Raises:
        DatasetError: another form; names the file and the record.
    """
    content = read_json(path)
    records = content.get("annotations") if isinstance(content, dict) else content
    source = images or path
    listing = content if images is None else read_json(images)
    listed = listing.get("images") if isinstance(listing, dict) else None
    if not isinstance(records, list) or not records:
        raise DatasetError(f"{path}: expected a list of image_id, bbox and score")
    if not isinstance(listed, list):
        raise DatasetError(
            f"{source}: expected a list 'images' with id, movie, timestamp, width and height; set "
            "data.person_box_images to the json that has it"
        )
    by_id = _images(source, listed)
    return [_row(path, number, record, by_id) for number, record in enumerate(records, 1)]


def _images(source: Path, listed: list[Any]) -> dict[Any, _Image]:
    """The images of the list by their id."""
    images: dict[Any, _Image] = {}
    for number, record in enumerate(listed, 1):
        try:
            second, width, height = (float(record[key]) for key in ("timestamp", "width", "height"))
            image, key = _Image(str(record["movie"]), second, width, height), record["id"]
            earlier = images.setdefault(key, image)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"an image without id, movie, timestamp, width, height ({error!r})"
            _fail(source, number, what)
        if not math.isfinite(second):
            _fail(source, number, f"timestamp is not a finite number: {record['timestamp']!r}")
        if not (0 < width < math.inf and 0 < height < math.inf):
            size = [record["width"], record["height"]]
            _fail(source, number, f"width and height must be above 0, not {size}")
        if earlier != image:
            _fail(source, number, f"the image {key!r} differs from an earlier one with this id")
    return images


def _row(path: Path, number: int, record: Any, images: dict[Any, _Image]) -> Row:
    try:
        movie, second, width, height = images[record["image_id"]]
        x, y, w, h = map(float, record["bbox"])
        score = float(record["score"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        _fail(path, number, f"expected image_id, bbox [x, y, w, h] and score ({error!r})")
    if not all(map(math.isfinite, (x, y, w, h, score))):
        _fail(path, number, f"bbox and score must be finite numbers, not {record['bbox']}, {score}")
    box = x / width, y / height, (x + w) / width, (y + h) / height
    # Rounding may put the sides of detected boxes just outside of the frame.
    cut = (min(max(value, 0.0), 1.0) if -0.01 < value < 1.01 else value for value in box)
    return movie, second, tuple(cut), score


def _fail(path: Path, number: int, what: str) -> NoReturn:
    raise DatasetError(f"{at(path, number)}: {what}")
