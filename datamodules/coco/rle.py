"""Run-length encoding of masks, as COCO's files have it.

The pixels of a picture are counted down its columns, one column after the other. A mask is the
lengths of its runs, the first one of pixels outside the object. In files the lengths are a list of
numbers, or a text: each number in groups of five bits, and from the fourth on its difference from
the one before the last.

Results equal those of pycocotools, to which tests compare them.
"""

import numpy as np

_FIRST_CHARACTER = 48
_MOST_GROUPS = 13  # of five bits, that an int64 has


def decode(counts: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw a mask.

    Args:
        counts: lengths of the runs, int ``(runs,)``.
        height: of the picture.
        width: of the picture.

    Returns:
        bool ``(height, width)``.

    Raises:
        ValueError: the runs have another number of pixels.
    """
    counts = np.asarray(counts, np.int64)
    check_runs(counts, height, width)
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def check_runs(counts: np.ndarray, height: int, width: int) -> None:
    """See that the lengths of runs, int64 ``(runs,)``, are those of a picture.

    Raises:
        ValueError: a length is negative, or they have another number of pixels.
    """
    if (counts < 0).any():
        raise ValueError("a run has a negative length")
    if counts.sum() != height * width:
        raise ValueError(f"the runs have {counts.sum()} pixels, not {height} x {width}")


def encode(mask: np.ndarray) -> np.ndarray:
    """The lengths of the runs of a mask, int64 ``(runs,)``; inverse of `decode`."""
    return encode_part(mask, 0, 0, *mask.shape)


def encode_part(mask: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The runs of a mask that covers a part of a picture.

    Args:
        mask: bool ``(h, w)``.
        top: row of the mask's first row in the picture.
        left: column of its first column.
        height: of the picture.
        width: of the picture.

    Returns:
        int64 ``(runs,)``, of the whole picture.
    """
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    columns[:, 1:-1] = mask.T
    column, row = np.nonzero(np.diff(columns, axis=1))  # where runs begin and end
    return counts_between((column + left) * height + row + top, height * width)


def counts_between(changes: np.ndarray, pixels: int) -> np.ndarray:
    """The lengths of runs from the pixels at which the mask changes.

    Args:
        changes: indices of pixels, int64 ``(n,)``, in any order; a pixel at which the mask changes
            twice is no change.
        pixels: number of pixels of the picture.
    """
    places, times = np.unique(changes, return_counts=True)
    places = places[(times % 2 == 1) & (places < pixels)]
    return np.diff(np.concatenate([[0], places, [pixels]]))


def to_text(counts: np.ndarray) -> str:
    """Write the lengths of runs, int ``(runs,)``, as text."""
    rest = np.array(counts, np.int64)
    rest[3:] -= np.asarray(counts, np.int64)[1:-2]
    characters = np.zeros((len(rest), _MOST_GROUPS), np.uint8)
    written = np.zeros(characters.shape, bool)
    more = np.ones(len(rest), bool)
    for group in range(_MOST_GROUPS):
        bits = rest & 31
        rest = rest >> 5
        written[:, group] = more
        more = more & np.where(bits & 16, rest != -1, rest != 0)
        characters[:, group] = _FIRST_CHARACTER + bits + 32 * more
    return characters[written].tobytes().decode("ascii")


def from_text(text: str | bytes) -> np.ndarray:
    """Read the lengths of runs, int64 ``(runs,)``; inverse of `to_text`.

    Raises:
        ValueError: the text is not of this form.
    """
    data = text.encode() if isinstance(text, str) else text
    groups = np.frombuffer(data, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not len(groups):
        return groups
    if groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("not the text of a run-length encoding")
    ends = np.flatnonzero(groups < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_GROUPS:
        raise ValueError("not the text of a run-length encoding")
    shift = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    values = np.add.reduceat((groups & 31) << shift, starts)
    values -= np.where(groups[ends] & 16, np.int64(1) << (5 * lengths), 0)
    for first in (1, 2):
        values[first::2] = values[first::2].cumsum()
    return values
