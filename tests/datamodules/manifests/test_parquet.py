import json
import os
import re
import time
from contextlib import closing
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from datamodules.errors import DatasetError
from datamodules.loading.loader import Loader
from datamodules.loading.sampler import EpochSampler
from datamodules.manifests.byte_range import ByteRange
from datamodules.manifests.parquet import (
    FACTS,
    MANIFEST_NAME,
    ManifestMetadata,
    read_manifest,
    write_manifest,
)
from datamodules.manifests.splits import read_split


def rows(count, **columns):
    paths = [f"class/video-{i:07d}.mp4" for i in range(count)]
    return pa.table({"path": paths, "label": pa.array([0] * count, pa.int64()), **columns})


def with_facts(count, bad=()):
    columns = {field.name: pa.nulls(count, field.type) for field in FACTS}
    columns["ok"] = pa.array([i not in bad for i in range(count)])
    return rows(count, **columns)


def test_rows_and_metadata_come_back_and_the_bytes_are_the_same(tmp_path):
    table = with_facts(3)
    metadata = ManifestMetadata(("ü", "b c"), "videos", {"settings": {"every_frame": True}})
    write_manifest(tmp_path / "a.parquet", table, metadata)
    write_manifest(tmp_path / "b.parquet", table, metadata)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    table_read, about = read_manifest(tmp_path / "a.parquet")
    assert table_read.equals(table)
    assert about == ManifestMetadata(
        ("ü", "b c"), str(tmp_path / "videos"), {"settings": {"every_frame": True}}
    )
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet"]
    texts = pq.read_schema(tmp_path / "a.parquet").metadata
    assert json.loads(texts[b"class_names"]) == ["ü", "b c"]
    assert json.loads(texts[b"version"]) == 1


def test_a_folder_or_file_is_read_in_place_of_videos(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "train").mkdir()
    file = tmp_path / "train" / MANIFEST_NAME
    write_manifest(file, rows(2), ManifestMetadata(("x",), str(tmp_path / "videos")))
    for source in (file, file.parent):
        manifest = read_split(source, tmp_path / "nowhere", None)
        assert manifest.path(1) == str(tmp_path / "videos/class/video-0000001.mp4")
        assert manifest.source(1) == manifest.path(1)
        assert (manifest.label(1), manifest.class_names) == (0, ("x",))
        assert manifest.without_bad() is manifest
    os.rmdir(tmp_path / "videos")
    with pytest.raises(DatasetError, match=r"the videos' folder .* is gone"):
        read_split(file, tmp_path, None)


def test_bad_rows_stay_unless_they_are_left_out(tmp_path):
    write_manifest(tmp_path / MANIFEST_NAME, with_facts(4, bad={1}), ManifestMetadata(("x",), "."))
    manifest = read_split(tmp_path, tmp_path, None)
    assert len(manifest) == 4
    good = manifest.without_bad()
    assert [good.path(i)[-5] for i in range(len(good))] == ["0", "2", "3"]
    assert good.class_names == ("x",)


def test_a_packed_video_is_a_range_beside_the_manifest_or_in_a_store(tmp_path):
    url = "memory://bucket/shard-1.tar"
    table = rows(2, shard=["shard-0.tar", url], offset=[512, 0], bytes=[7, 9])
    write_manifest(tmp_path / MANIFEST_NAME, table, ManifestMetadata(("x",), "/gone"))
    manifest = read_split(tmp_path, tmp_path, None)
    names = [f"/gone/class/video-000000{i}.mp4" for i in range(2)]
    assert manifest.source(0) == ByteRange(str(tmp_path / "shard-0.tar"), 512, 7, names[0])
    assert manifest.source(1) == ByteRange(url, 0, 9, names[1])
    assert manifest.path(1) == names[1]


def test_a_store_needs_its_library(tmp_path):
    table = rows(1, shard=["lakefs://bucket/shard-1.tar"], offset=[0], bytes=[9])
    write_manifest(tmp_path / MANIFEST_NAME, table, ManifestMetadata(("x",), "/gone"))
    with pytest.raises(DatasetError, match="its shards are at lakefs://: .*install lakefs"):
        read_split(tmp_path, tmp_path, None)


def test_ids_follow_the_known_classes(tmp_path):
    table = pa.table({"path": ["a", "b", "c"], "label": [1, -1, 0]})
    write_manifest(tmp_path / MANIFEST_NAME, table, ManifestMetadata(("jump", "walk"), "."))
    manifest = read_split(tmp_path, tmp_path, ["walk", "swim", "jump"])
    assert [manifest.label(i) for i in range(3)] == [0, -1, 2]
    assert manifest.class_names == ("walk", "swim", "jump")
    with pytest.raises(DatasetError, match="class 'jump' is not one of the 1 known ones"):
        read_split(tmp_path, tmp_path, ["walk"])
    table = pa.table({"path": ["a"], "label": [1]})
    write_manifest(tmp_path / MANIFEST_NAME, table, ManifestMetadata(("0", "1"), "."))
    assert read_split(tmp_path, tmp_path, ["walk", "swim", "jump"]).label(0) == 1  # ids alone


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("path", "../secret.mp4", "row 1: '../secret.mp4' is not a path below the root"),
        ("path", "a/../../secret.mp4", "row 1"),
        ("path", "/etc/passwd", "row 1: '/etc/passwd' is not a path below"),
        ("path", "", "row 1: ''"),
        ("path", None, "row 1: None"),
        ("label", 1, "row 1: label 1 is not one of its 1 classes"),
        ("label", None, "row 1: label None"),
        ("label", "walk", "column label is string, not int64"),
        ("shard", "../other.tar", "row 1: shard '../other.tar' does not lie beside the manifest"),
        ("shard", "/etc/passwd", "row 1: shard '/etc/passwd' does not lie beside"),
        ("shard", "file:///etc/passwd", "and is not the URL of a storage"),
        ("shard", "simplecache::s3://bucket/x", "and is not the URL of a storage"),
        ("shard", "s3://bucket/x::file:///etc", "and is not the URL of a storage"),
        ("shard", "/etc/passwd://", "and is not the URL of a storage"),
        ("bytes", 1.5, "column bytes is double, not int64"),
    ],
)
def test_wrong_values_name_the_file_and_the_row(tmp_path, column, value, message):
    fine = {"path": "a.mp4", "label": 0, "shard": "s.tar", "offset": 0, "bytes": 1}
    wrong = fine | {column: value}
    of_its_type = value is None or type(value) is type(fine[column])
    table = pa.Table.from_pylist([fine if of_its_type else wrong, wrong])
    file = tmp_path / MANIFEST_NAME
    write_manifest(file, table, ManifestMetadata(("x",), "."))
    with pytest.raises(DatasetError, match=re.escape(message)) as error:
        read_manifest(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_absolute_paths_below_the_root_are_fine(tmp_path):
    table = pa.table({"path": [f"{tmp_path}/a.mp4"], "label": [0]})
    write_manifest(tmp_path / MANIFEST_NAME, table, ManifestMetadata(("x",), "."))
    assert read_split(tmp_path, tmp_path, None).path(0) == f"{tmp_path}/a.mp4"


def test_files_that_are_no_manifests(tmp_path):
    file = tmp_path / MANIFEST_NAME
    file.write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match="not a readable manifest"):
        read_manifest(file)
    pq.write_table(rows(1), file)
    with pytest.raises(DatasetError, match="not a manifest; write one with"):
        read_manifest(file)
    table = rows(1).replace_schema_metadata(
        {"class_names": '["x"]', "root": '"."', "version": "99"}
    )
    pq.write_table(table, file)
    with pytest.raises(DatasetError, match="version 99; only version 1 can be read"):
        read_manifest(file)
    write_manifest(file, rows(1).slice(0, 0), ManifestMetadata(("x",), "."))
    with pytest.raises(DatasetError, match="no rows"):
        read_split(file, tmp_path, None)


# ---------------------------------------------------------------- a million rows


def large_manifest(folder, count):
    """A table as `prepare` writes it."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 1 << 40, count)
    columns = {
        "path": [f"class_{n % 400:03d}/{n:011x}_000010_000020.mp4" for n in numbers.tolist()],
        "label": rng.integers(0, 400, count),
        "bytes": rng.integers(10_000, 1_000_000, count),
        "modified_ns": rng.integers(10**18, 2 * 10**18, count),
        "duration": rng.normal(10, 0.1, count),
        "ok": np.ones(count, bool),
        "reason": [""] * count,
    }
    folder.mkdir()
    names = [f"class_{i:03d}" for i in range(400)]
    write_manifest(folder / MANIFEST_NAME, pa.table(columns), ManifestMetadata(names, "."))
    return folder


def private_mebibytes():
    with open("/proc/self/smaps_rollup") as lines:
        kib = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(kib) / 1024


class Rows:
    """Items that read many rows and report their worker's private memory."""

    item_shape = (1, 1, 1, 1, 3)

    def __init__(self, manifest):
        self.manifest = manifest

    def __getitem__(self, key):
        for index in np.random.default_rng(key).integers(0, len(self.manifest), 100).tolist():
            assert self.manifest.source(index).endswith(".mp4")
            assert 0 <= self.manifest.label(index) < 400
        video = torch.zeros(self.item_shape, dtype=torch.uint8)
        return {"video": video, "mebibytes": torch.tensor([private_mebibytes()])}


@pytest.mark.slow
def test_a_million_rows_open_quickly_and_cost_a_worker_nothing(tmp_path):
    seconds, worker = {}, {}
    for count in (1_000, 1_000_000):
        folder = large_manifest(tmp_path / str(count), count)
        start = time.process_time()  # whatever else the machine does
        manifest = read_split(folder, folder, None)
        seconds[count] = time.process_time() - start
        sampler = EpochSampler(count, training=True)
        loader = Loader(Rows(manifest.without_bad()), sampler, 50, num_workers=1)
        with closing(iter(loader)) as batches:
            (*_, last) = islice(batches, 4)
            worker[count] = last["mebibytes"].max().item()
    print(f"opened in {seconds[1_000_000]:.2f} s; a worker's private memory, MiB: {worker}")
    assert seconds[1_000_000] < 2
    assert worker[1_000_000] < worker[1_000] + 20
