"""Label maps of AVA: the names of action ids, in the text form of protocol buffers (pbtxt)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from datamodules.errors import DatasetError
from datamodules.manifests.lists import at, read_text

_STRING = r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
_TOKEN = re.compile(rf"(?P<space>\s+|#[^\r\n]*)|(?P<value>{_STRING}|[\w.+-]+)|(?P<sign>[{{}}:,;])")
_ESCAPE = re.compile(r"\\(.)")
_ID_LIMIT = 1_000_000  # ids are below it


class _Token(NamedTuple):
    """A word, a quoted string or a sign, and its line, from 1."""

    text: str
    number: int


def read_label_map(path: str | Path) -> dict[int, str]:
    """Names of action ids from a label map in text form (pbtxt), in the order of the ids.

    Both published maps are read: ``ava_action_list_v2.2.pbtxt`` with ``label { name: "..."
    label_id: 1 label_type: ... }`` (80 classes), and the one ``..._for_activitynet_2019.pbtxt``
    with ``item { name: "..." id: 1 }`` (the 60 that are evaluated). Line breaks do not matter.

    Raises:
        DatasetError: not a label map, an id is not a positive number, or an id or a name is
            repeated.
    """
    path = Path(path)
    names: dict[int, str] = {}
    for fields, number in _entries(path):
        ids = [value for key, value in fields.items() if key in ("id", "label_id")]
        name, text = _plain(fields.get("name", ""), path, number), "".join(ids[:1])
        if not name or len(ids) != 1 or not re.fullmatch("0*[1-9][0-9]{0,5}", text):
            _wrong(path, number, f"expected a name and a positive id below {_ID_LIMIT} before '}}'")
        if int(text) in names or name in names.values():
            _wrong(path, number, f"id {text} or name {name!r} is repeated")
        names[int(text)] = name
    if not names:
        raise DatasetError(f"{path}: not a label map; expected item {{ name: ... id: ... }}")
    return dict(sorted(names.items()))


def _entries(path: Path) -> Iterator[tuple[dict[str, str], int]]:
    """Yield the fields of each entry, strings in quotes, and the line of its ``}``."""
    tokens = _tokens(path)
    for kind in tokens:
        opening = next(tokens, _Token("", kind.number))
        if opening.text == ":":  # the format allows it
            opening = next(tokens, opening)
        if not kind.text.isidentifier() or opening.text != "{":
            _wrong(path, kind.number, f"expected 'item {{' or 'label {{', not {kind.text[:40]!r}")
        fields: dict[str, str] = {}
        last = opening
        while (key := next(tokens, _Token("", last.number))).text != "}":
            if key.text in (",", ";") and fields:
                continue
            colon, value = next(tokens, key), next(tokens, key)
            if not key.text.isidentifier() or colon.text != ":" or value.text in set("{}:,;"):
                _wrong(path, key.number, f"expected 'name: value' or '}}', not {key.text[:40]!r}")
            if key.text in fields:
                _wrong(path, key.number, f"{key.text} is repeated in an entry")
            fields[key.text], last = value.text, value
        yield fields, key.number


def _tokens(path: Path) -> Iterator[_Token]:
    text, place, number = read_text(path), 0, 1
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            line = text[place : place + 40].splitlines()[0]
            _wrong(path, number, f"not part of a label map: {line!r}")
        if match["space"] is None:
            yield _Token(match[0], number)
        place, number = match.end(), number + match[0].count("\n")


def _plain(value: str, path: Path, number: int) -> str:
    """A string without its quotes and escapes."""
    if value[:1] not in ('"', "'"):
        return value
    for letter in _ESCAPE.findall(value):
        if letter not in "\"'\\":
            _wrong(path, number, f"unknown escape \\{letter} in {value[:40]!r}")
    return _ESCAPE.sub(r"\1", value[1:-1])


def _wrong(path: Path, number: int, what: str) -> NoReturn:
    raise DatasetError(f"{at(path, number)}: {what}")
