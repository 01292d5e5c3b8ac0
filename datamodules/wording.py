"""Parts of messages: numbers with their nouns, hints for misspelt names."""

import difflib
import re
from collections.abc import Iterable, Sequence

_ENDINGS = re.compile(r"((?<=ss)|(?<=ch)|(?<=x))es\b|(?<!s)s\b")  # classes, batches, boxes; videos


def counted(number: int, plural: str, spec: str = "") -> str:
    """A number and what it counts: ``1 video``, ``2 videos``, ``1 video or image``.

    Args:
        number: from 0 on.
        plural: regular nouns in the plural, and no other words that end in ``s``.
        spec: how the number is written, as for `format`.
    """
    noun = _ENDINGS.sub("", plural.replace("ies", "y")) if number == 1 else plural
    return f"{number:{spec}} {noun}"


def few(values: Sequence[object], shown: int, spec: str = "") -> str:
    """The first values, and how many are left, a number as in `counted`: ``a, b and 3 more``."""
    more = f" and {len(values) - shown:{spec}} more" if len(values) > shown else ""
    return ", ".join(map(str, values[:shown])) + more


def described(value: object) -> str:
    """What a value of a wrong type is: ``None``, or ``an object of type list``."""
    return "None" if value is None else f"an object of type {type(value).__name__}"


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """``; did you mean ...?`` with up to three similar names; "" if no name is similar.

    A name that differs from the word in case alone is the only one.
    """
    names_of = {name.casefold(): name for name in names}
    folded = word.casefold()
    near = [folded] if folded in names_of else []
    near = near or difflib.get_close_matches(folded, names_of, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(names_of[name] for name in near)}?" if near else ""
