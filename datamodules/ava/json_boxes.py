"""Person boxes in AlphAction's json, as rows of an AVA csv."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from datamodules.errors import DatasetError
from datamodules.manifests.lists import at, read_text


class _Image(NamedTuple):
    """A keyframe, and the pixels that its boxes count in."""

    movie: str
    second: str
    width: float
    height: float


def read_json_rows(path: Path, images: Path | None = None) -> list[tuple[str, ...]]:
    """Rows video, second, x1, y1, x2, y2, action (empty) and score, as text.

    Args:
        path: a list of objects ``image_id``, ``bbox`` (x, y, width, height in pixels), ``score``.
        images: the json with the list ``images`` of ``id``, ``movie``, ``timestamp``, ``width`` and
            ``height``; None: ``path`` holds both lists, the boxes as ``annotations``.

    Raises:
        DatasetError: another form; names the file and the record.
    """
    content = _load(path)
    if isinstance(content, dict):
        records, listed = content.get("annotations"), content.get("images")
    else:
        records, listed = content, None
    source = path if images is None else images
    if images is not None:
        more = _load(source)
        listed = more.get("images") if isinstance(more, dict) else None
    if not isinstance(records, list) or not records:
        raise DatasetError(f"{path}: expected a list of image_id, bbox and score")
    if not isinstance(listed, list):
        raise DatasetError(
            f"{source}: expected a list 'images' with id, movie, timestamp, width and height; set "
            "data.person_box_images to the json that has it"
        )
    known = _images(source, listed)
    return [_row(path, number, record, known) for number, record in enumerate(records, 1)]


def _images(source: Path, listed: list[Any]) -> dict[Any, _Image]:
    known: dict[Any, _Image] = {}
    for number, image in enumerate(listed, 1):
        try:
            second, size = float(image["timestamp"]), (image["width"], image["height"])
            width, height = map(float, size)
            name, found = image["id"], str(image["movie"])
            hash(name)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"an image without id, movie, timestamp, width, height ({error!r})"
            _wrong(source, number, what)
        if not second.is_integer():
            _wrong(source, number, f"timestamp is no whole second: {image['timestamp']!r}")
        if not (0 < width < math.inf and 0 < height < math.inf):
            _wrong(source, number, f"width and height must be above 0, not {list(size)}")
        seen = _Image(found, str(int(second)), width, height)
        if known.setdefault(name, seen) != seen:
            _wrong(source, number, f"the image {name!r} is there twice")
    return known


def _row(path: Path, number: int, record: Any, known: dict[Any, _Image]) -> tuple[str, ...]:
    try:
        movie, second, width, height = known[record["image_id"]]
        x, y, w, h = map(float, record["bbox"])
        score = float(record["score"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        _wrong(path, number, f"expected image_id, bbox [x, y, w, h] and score ({error!r})")
    box = x / width, y / height, (x + w) / width, (y + h) / height
    # Boxes of a detector end at the border to within a rounding.
    cut = (min(max(value, 0.0), 1.0) if -0.01 < value < 1.01 else value for value in box)
    return movie, second, *map(repr, cut), "", repr(score)


def _load(path: Path) -> Any:
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON ({error})") from None


def _wrong(path: Path, number: int, what: str) -> NoReturn:
    raise DatasetError(f"{at(path, number)}: {what}")
