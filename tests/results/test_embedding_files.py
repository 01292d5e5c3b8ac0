"""Files of features: what is in them, and that other programs read it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hiera_video.errors import EmbeddingError
from hiera_video.results import embedding_files
from hiera_video.results.embedding_files import (
    Embedding,
    join_table,
    read_blocks,
    write_npz,
    write_table_part,
)


def pieces(count, shape, seed=0):
    """Features of a video in pieces of at most three rows, and all of them."""
    rng = np.random.default_rng(seed)
    whole = Embedding(
        np.arange(count) * 0.5,
        np.arange(1, count + 1) * 0.5,
        rng.normal(size=(count, *shape)).astype(np.float32),
    )
    parts = [Embedding(*(column[i : i + 3] for column in whole)) for i in range(0, count, 3)]
    return iter(parts), whole


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 4, 6)])
def test_a_table_of_several_videos(tmp_path, scratch, dtype, shape):
    wholes = []
    for i, count in enumerate((1, 8, 4)):
        parts, whole = pieces(count, shape, i)
        write_table_part(tmp_path / f"{i}.part", scratch, f"ü/{i}.mp4", parts, dtype)
        wholes.append(whole)
    files = [tmp_path / f"{i}.part" for i in range(3)]
    join_table(files, tmp_path / "embeddings.parquet", scratch, {"model": "any", "stride": 0.5})
    table = pq.read_table(tmp_path / "embeddings.parquet")
    value = pa.float16() if dtype == "float16" else pa.float32()
    assert table.schema.names == ["path", "start", "end", "vector"]
    assert table.schema.field("vector").type == pa.list_(value, int(np.prod(shape)))
    metadata = {k: json.loads(v) for k, v in table.schema.metadata.items()}
    assert metadata == {b"model": "any", b"stride": 0.5, b"shape": [*shape]}
    assert table["path"].to_pylist() == [
        f"ü/{i}.mp4" for i, n in enumerate((1, 8, 4)) for _ in range(n)
    ]
    start, end, features = (np.concatenate(column) for column in zip(*wholes, strict=True))
    np.testing.assert_array_equal(table["start"].to_numpy(), start)
    np.testing.assert_array_equal(table["end"].to_numpy(), end)
    vectors = np.stack(table["vector"].to_numpy()).reshape(-1, *shape)
    np.testing.assert_array_equal(vectors, features.astype(dtype))
    (block,) = read_blocks(tmp_path)
    np.testing.assert_array_equal(block.vectors, features.astype(dtype).reshape(13, -1))
    assert block.vectors.dtype == np.float32
    assert not list(scratch.iterdir())


def test_row_groups_and_blocks_are_of_bounded_size(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(embedding_files, "GROUP_BYTES", 3 * 6 * 4)  # three rows of six numbers
    parts, _ = pieces(7, (6,))
    write_table_part(tmp_path / "0.part", scratch, "a.mp4", parts, "float32")
    target = tmp_path / "embeddings.parquet"
    join_table([tmp_path / "0.part"], target, scratch, {})
    file = pq.ParquetFile(target)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 3, 1]
    blocks = [(block.first, len(block.paths)) for block in read_blocks(target)]
    assert blocks == [(0, 3), (3, 3), (6, 1)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 4, 6)])
def test_arrays_of_a_video(tmp_path, scratch, dtype, shape):
    parts, whole = pieces(8, shape)
    facts = {"fps": 29.97, "duration": 4.0, "stride": 0.5}
    write_npz(tmp_path / "a.npz", scratch, "ü/a.mp4", parts, dtype, facts)
    with np.load(tmp_path / "a.npz") as arrays:
        assert sorted(arrays) == ["duration", "end", "feats", "fps", "path", "start", "stride"]
        assert arrays["feats"].dtype == dtype
        np.testing.assert_array_equal(arrays["feats"], whole.features.astype(dtype))
        np.testing.assert_array_equal(arrays["start"], whole.start)
        np.testing.assert_array_equal(arrays["end"], whole.end)
        assert {name: float(arrays[name]) for name in facts} == facts
        assert str(arrays["path"]) == "ü/a.mp4"
    assert not list(scratch.iterdir())
    (block,) = read_blocks(tmp_path)
    assert block.paths == ["ü/a.mp4"] * 8


@pytest.mark.parametrize("write", [write_table_part, write_npz])
@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (7e4, "float16", r"a.mp4, second 2: float16 cannot hold 70000; use float32"),
        (np.nan, "float16", r"a.mp4, second 2: the model computes numbers that are not finite"),
        (np.inf, "float32", r"a.mp4, second 2: the model computes numbers that are not finite"),
    ],
)
def test_numbers_that_do_not_fit_are_no_features(tmp_path, scratch, write, value, dtype, message):
    _, whole = pieces(8, (6,))
    whole.features[4, 2] = value
    more = () if write is write_table_part else ({},)
    with pytest.raises(EmbeddingError, match=message):
        write(tmp_path / "a", scratch, "a.mp4", iter([whole]), dtype, *more)
    assert not list(scratch.iterdir())
    assert not (tmp_path / "a").exists()


def test_what_holds_no_features(tmp_path):
    with pytest.raises(EmbeddingError, match=r"no embeddings.parquet and no .npz files"):
        next(read_blocks(tmp_path))
    (tmp_path / "a.parquet").write_text("no table")
    with pytest.raises(EmbeddingError, match="cannot be read as features"):
        next(read_blocks(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(EmbeddingError, match="cannot be read as features"):
        next(read_blocks(tmp_path / "b.parquet"))
    (tmp_path / "._a.npz").touch()  # as macOS writes it
    with pytest.raises(EmbeddingError, match=r"no embeddings.parquet and no .npz files"):
        next(read_blocks(tmp_path))
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(EmbeddingError, match="cannot be read as features"):
        next(read_blocks(tmp_path))
