"""Numbers with their nouns, as messages have them."""

import re

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
