"""The nearest clips, beside all similarities at once."""

from pathlib import Path

import numpy as np
import pytest

from hiera_video import neighbours
from hiera_video.errors import EmbeddingError
from hiera_video.results import embedding_files
from hiera_video.results.embedding_files import (
    Embedding,
    join_table,
    write_npz,
    write_table_part,
)

VIDEOS, CLIPS, WIDTH = 5, 7, 4


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same features as a table and as arrays; the vectors, with a row that is zero."""
    folder = tmp_path_factory.mktemp("features")
    vectors = np.random.default_rng(0).normal(size=(VIDEOS, CLIPS, WIDTH)).astype(np.float32)
    vectors[2, 3] = 0
    vectors[4, 6] = 3 * vectors[0, 0]
    start = np.arange(CLIPS) * 2.0
    for name in ("scratch", "table", "arrays"):
        (folder / name).mkdir()
    parts = []
    for i, features in enumerate(vectors):
        piece, path = [Embedding(start, start + 2, features)], f"{i}.mp4"
        parts.append(folder / f"{i}.part")
        write_table_part(parts[-1], folder / "scratch", path, piece, "float32")
        target = folder / f"arrays/{i}.npz"
        write_npz(target, folder / "scratch", path, piece, "float32", {})
    join_table(parts, folder / "table/embeddings.parquet", folder / "scratch", {})
    return folder, vectors.reshape(-1, WIDTH)


@pytest.mark.parametrize("kind", ["table", "table/embeddings.parquet", "arrays"])
@pytest.mark.parametrize("block", [1, 4, 4096])
@pytest.mark.parametrize("same_video", [True, False])
def test_the_nearest_clips_of_a_clip(written, kind, block, same_video, monkeypatch):
    monkeypatch.setattr(embedding_files, "GROUP_ROWS", block)
    folder, vectors = written
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    row = 9
    similarity = unit @ unit[row]
    allowed = [
        i for i in range(len(unit)) if i != row and (same_video or i // CLIPS != row // CLIPS)
    ]
    expected = sorted(allowed, key=lambda i: (-similarity[i], i))[:6]
    found = neighbours(folder / kind, row, count=6, same_video=same_video)
    assert [n.row for n in found] == expected
    assert [n.path for n in found] == [f"{i // CLIPS}.mp4" for i in expected]
    assert [(n.start, n.end) for n in found] == [
        (i % CLIPS * 2.0, i % CLIPS * 2.0 + 2) for i in expected
    ]
    np.testing.assert_allclose([n.similarity for n in found], similarity[expected], atol=1e-6)


def test_the_nearest_clips_of_a_vector(written):
    folder, vectors = written
    first, second = neighbours(folder / "table", 5 * vectors[0].astype(np.float64), count=2)
    assert (first.row, second.row) == (0, VIDEOS * CLIPS - 1)  # lengths do not count
    assert first.similarity == pytest.approx(1)
    assert second.similarity == pytest.approx(1)
    everything = neighbours(folder / "table", vectors[0], count=1000)
    assert len(everything) == VIDEOS * CLIPS
    assert {n.similarity for n in everything if n.row == 2 * CLIPS + 3} == {0.0}


def test_wrong_input(written):
    folder, _ = written
    for row in (-1, VIDEOS * CLIPS):
        with pytest.raises(EmbeddingError, match=f"no row {row}; it has 35, from 0"):
            neighbours(folder / "table", row)
    with pytest.raises(EmbeddingError, match="its vectors have 4 numbers, the query has 5"):
        neighbours(folder / "table", np.zeros(5))
    with pytest.raises(ValueError, match="count must be at least 1"):
        neighbours(folder / "table", 0, count=0)


def test_features_in_memory_are_compared_as_those_of_files(written):
    folder, vectors = written
    start = np.arange(CLIPS) * 2.0
    features = {
        Path(f"{i}.mp4"): Embedding(start, start + 2, vectors[i * CLIPS : (i + 1) * CLIPS])
        for i in range(VIDEOS)
    }
    for query in (9, vectors[9]):
        assert neighbours(features, query, 6) == neighbours(folder / "table", query, 6)
    maps = {path: e._replace(features=e.features[:, None, :, None]) for path, e in features.items()}
    assert neighbours(maps, 9, 6) == neighbours(features, 9, 6)
    with pytest.raises(EmbeddingError, match="the features: no row 35; it has 35, from 0"):
        neighbours(features, 35)
    with pytest.raises(EmbeddingError, match="the features: its vectors have 4 numbers"):
        neighbours(features, np.ones(3))
