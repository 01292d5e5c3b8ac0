"""The clips nearest to a clip, by the features that ``embed`` computed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hiera_video.errors import EmbeddingError
from hiera_video.results.embedding_files import Block, Embedding, read_blocks

Features = str | Path | Mapping[str | Path, Embedding]  # what `neighbours` takes


class Neighbour(NamedTuple):
    """A part of a video, and how similar it is.

    Attributes:
        path: of the video.
        start: seconds from the start of the video.
        end: the same.
        similarity: cosine of the angle between the vectors, in [-1, 1].
        row: number of its row, from 0.
    """

    path: str
    start: float
    end: float
    similarity: float
    row: int


def neighbours(
    source: Features, query: int | np.ndarray, count: int = 10, same_video: bool = True
) -> list[Neighbour]:
    """Find the parts of videos whose features have the greatest cosine similarity with a query.

    The features are read in blocks of at most 4096 rows, each compared by one matrix product, so
    memory does not grow with their number. Nothing is approximated.

    Args:
        source: what ``embed`` wrote: a folder, or its ``embeddings.parquet``. Or features in
            memory: for the path of each video, what ``load(RUN).embed`` gives.
        query: the number of a row, from 0 (in ``.npz`` files, counted in the order of their names),
            which is then left out; or a vector, float ``(D,)``.
        count: at most so many.
        same_video: whether parts of the query's own video count, too. A vector has no video.

    Returns:
        The most similar first; of equal ones, the earlier row.

    Raises:
        EmbeddingError: there are no features, no such row, or vectors of another length.
        ValueError: ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    row, path, vector = -1, None, query
    if not isinstance(query, np.ndarray):
        row, path, vector = query, *_row(source, query)
    vector = _unit(np.asarray(vector, np.float32)[None])[0]  # (D,)
    best: list[Neighbour] = []
    for block in _blocks(source):
        if block.vectors.shape[1:] != vector.shape:
            raise EmbeddingError(
                f"{_name(source)}: its vectors have {block.vectors.shape[1]} numbers, the query "
                f"has {vector.size}"
            )
        similarity = _unit(block.vectors) @ vector  # (n,)
        if not same_video:
            similarity[np.array(block.paths, object) == path] = -np.inf
        if 0 <= row - block.first < len(similarity):
            similarity[row - block.first] = -np.inf
        best = sorted([*best, *_most_similar(block, similarity, count)], key=_rank)[:count]
    return best


def _most_similar(block: Block, similarity: np.ndarray, count: int) -> list[Neighbour]:
    order: list[int] = np.argsort(-similarity, kind="stable")[:count].tolist()
    return [
        Neighbour(
            block.paths[i],
            float(block.start[i]),
            float(block.end[i]),
            float(similarity[i]),
            block.first + i,
        )
        for i in order
        if similarity[i] > -np.inf
    ]


def _rank(neighbour: Neighbour) -> tuple[float, int]:
    return -neighbour.similarity, neighbour.row


def _blocks(source: Features) -> Iterator[Block]:
    if not isinstance(source, Mapping):
        yield from read_blocks(source)
        return
    first = 0
    for path, (start, end, features) in source.items():
        vectors = features.reshape(len(start), -1)  # maps (n, T', H', W', C) to (n, D)
        yield Block(first, [str(path)] * len(start), start, end, vectors)
        first += len(start)


def _name(source: Features) -> str:
    return "the features" if isinstance(source, Mapping) else str(source)


def _row(source: Features, row: int) -> tuple[str, np.ndarray]:
    """Path and vector of a row."""
    rows = 0
    for block in _blocks(source):
        rows = block.first + len(block.paths)
        if block.first <= row < rows:
            return block.paths[row - block.first], block.vectors[row - block.first]
    raise EmbeddingError(f"{_name(source)}: no row {row}; it has {rows}, from 0")


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``(n, D)`` of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
