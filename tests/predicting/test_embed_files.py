"""Features of many videos in a folder: after a kill, from several processes, with bad files."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from datamodules.errors import DatasetError, StorageFailure
from datamodules.files import locked_folder
from datamodules.loading.file_workers import Lost
from datamodules.manifests.splits import make_manifest
from hiera_video import load
from hiera_video.errors import EmbeddingError, UsageError
from hiera_video.models.names import IMAGE_MEAN, IMAGE_STD
from hiera_video.predicting.embed_files import embed_files
from hiera_video.predicting.embed_worker import EmbedGroup, Group, Video
from hiera_video.predicting.embedding import EmbeddingOptions
from tests.models.conftest import _one_thread  # noqa: F401
from tests.trained_models import write_image_run, write_mae_run, write_run
from tests.video_files import moving_frames, write_video
from tests.white_squares import predictor

STRIDE = EmbeddingOptions(stride=0.5)
NAMES = ["a/0.mp4", "a/bad.mp4", "b/0.mp4", "b/1.mp4", "c.mp4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A run and five videos, of which one is none."""
    folder = tmp_path_factory.mktemp("data")
    write_run(folder / "run")
    for name in ("a", "b"):
        (folder / "videos" / name).mkdir(parents=True)
    for i, name in enumerate(NAMES):
        write_video(folder / "videos" / name, moving_frames(20 + 15 * i, 80, 120, seed=i))
    (folder / "videos/a/bad.mp4").write_text("no video")
    return folder


def listed(data, names=NAMES):
    return make_manifest([str(data / "videos" / name) for name in names], [-1] * len(names), ())


def columns(out):
    table = pq.read_table(out / "embeddings.parquet")
    vectors = np.stack(table["vector"].to_numpy())
    return table["path"].to_pylist(), *(table[n].to_numpy() for n in ("start", "end")), vectors


@pytest.fixture(scope="module")
def whole(data):
    """What an uninterrupted run of one process writes."""
    out = data / "whole"
    seen = []
    embedded = embed_files(
        data / "run", listed(data), out, STRIDE, progress=lambda *counts: seen.append(counts)
    )
    assert embedded == (out / "embeddings.parquet", 4, 1)
    assert seen == [(i, 5) for i in range(1, 6)]
    return out


def test_the_table_has_the_features_of_all_videos_in_order(data, whole):
    predictor = load(data / "run", "cpu")
    good = [str(data / "videos" / name) for name in NAMES if name != "a/bad.mp4"]
    expected = [predictor.embed(path, stride=0.5) for path in good]
    paths, start, end, vectors = columns(whole)
    assert paths == [p for p, e in zip(good, expected, strict=True) for _ in e.start]
    np.testing.assert_array_equal(start, np.concatenate([e.start for e in expected]))
    np.testing.assert_array_equal(end, np.concatenate([e.end for e in expected]))
    np.testing.assert_allclose(vectors, np.concatenate([e.features for e in expected]), atol=1e-5)
    bad = (whole / "bad_videos.csv").read_text().splitlines()
    assert bad[0] == "path,reason"
    assert bad[1] == f'{data}/videos/a/bad.mp4,"not a video, or cut off before its index"'
    assert len(bad) == 2
    assert sorted(os.listdir(whole)) == ["bad_videos.csv", "embeddings.json", "embeddings.parquet"]
    metadata = pq.read_schema(whole / "embeddings.parquet").metadata
    record = json.loads((whole / "embeddings.json").read_text())
    assert {k: json.loads(metadata[k.encode()]) for k in record} == record
    assert (record["stride"], record["videos"]) == (0.5, 5)


def test_two_processes_write_the_same_table(data, whole, tmp_path):
    embed_files(data / "run", listed(data), tmp_path / "out", STRIDE, processes=2)
    for mine, other in zip(columns(tmp_path / "out"), columns(whole), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_run_that_is_killed_goes_on_and_ends_the_same(data, whole, tmp_path):
    out = tmp_path / "out"
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from datamodules.manifests.splits import make_manifest
        from hiera_video.predicting.embed_files import embed_files
        from hiera_video.predicting.embedding import EmbeddingOptions

        def progress(done, total):
            if done == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            videos = make_manifest({listed(data).table["path"].to_pylist()}, [-1] * 5, ())
            words = {str(data / "run")!r}, videos, Path({str(out)!r}), EmbeddingOptions(stride=0.5)
            embed_files(*words, progress=progress)
    """)
    (tmp_path / "script.py").write_text(script)
    program = [sys.executable, str(tmp_path / "script.py")]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    assert subprocess.run(program, env=environment, timeout=300).returncode == -signal.SIGKILL
    assert not (out / "embeddings.parquet").exists()
    scratch = out / ".embed.unfinished"
    parts = {part: part.stat().st_mtime_ns for part in scratch.glob("*.part")}
    assert len(parts) >= 2
    (scratch / ".half.unfinished").write_text("as a kill within a write leaves it")
    seen, kept = [], []

    def progress(done, total):
        seen.append(done)
        kept.append(all(part.stat().st_mtime_ns == stamp for part, stamp in parts.items()))

    embed_files(data / "run", listed(data), out, STRIDE, progress=progress)
    assert all(kept)
    assert seen == [*range(6 - len(seen), 6)]
    assert len(seen) <= 5 - len(parts)
    for mine, other in zip(columns(out), columns(whole), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert sorted(os.listdir(out)) == sorted(os.listdir(whole))


def test_a_finished_run_has_nothing_to_do(data, whole):
    stamp = (whole / "embeddings.parquet").stat().st_mtime_ns
    seen = []
    again = embed_files(
        data / "run", listed(data), whole, STRIDE, progress=lambda *counts: seen.append(counts)
    )
    assert again == (whole / "embeddings.parquet", 4, 1)
    assert not seen
    assert (whole / "embeddings.parquet").stat().st_mtime_ns == stamp


def test_a_changed_request_is_refused(data, whole, tmp_path):
    run, videos = data / "run", listed(data)
    with pytest.raises(EmbeddingError, match=r"request \(stride=0.5, not 1.0\); delete it"):
        embed_files(run, videos, whole, STRIDE._replace(stride=1.0))
    with pytest.raises(EmbeddingError, match=r"\(dtype=float32, not float16\)"):
        embed_files(run, videos, whole, STRIDE, dtype="float16")
    with pytest.raises(EmbeddingError, match="other videos"):
        embed_files(run, listed(data, [*NAMES[:4], "d.mp4"]), whole, STRIDE)
    write_mae_run(tmp_path / "other")
    with pytest.raises(EmbeddingError, match="other weights"):
        embed_files(tmp_path / "other", videos, whole, STRIDE)
    with locked_folder(whole / ".embed.unfinished"), pytest.raises(DatasetError, match="another"):
        embed_files(run, videos, whole, STRIDE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/embeddings.parquet").write_text("of somebody else")
    with pytest.raises(EmbeddingError, match=r"embeddings.parquet exists already"):
        embed_files(run, videos, tmp_path / "out", STRIDE)
    with pytest.raises(EmbeddingError, match="is a file; name a folder"):
        embed_files(run, videos, tmp_path / "out/embeddings.parquet", STRIDE)


def test_arrays_lie_as_the_videos_do_and_missing_ones_are_made(data, whole, tmp_path):
    out = tmp_path / "out"
    words = (data / "run", listed(data, [*NAMES, "a/0.mp4"]), out, STRIDE)
    assert embed_files(*words, format="npz", dtype="float16") == (out, 4, 1)
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*.npz"))
    assert files == ["a/0.npz", "b/0.npz", "b/1.npz", "c.npz"]
    paths, start, end, vectors = columns(whole)
    for name in files:
        video = str(data / "videos" / name.replace("npz", "mp4"))
        rows = [i for i, path in enumerate(paths) if path == video]
        with np.load(out / name) as arrays:
            assert arrays["feats"].dtype == np.float16
            np.testing.assert_array_equal(arrays["feats"], vectors[rows].astype(np.float16))
            np.testing.assert_array_equal(arrays["start"], start[rows])
            np.testing.assert_array_equal(arrays["end"], end[rows])
            assert str(arrays["path"]) == video
            assert (float(arrays["fps"]), float(arrays["stride"])) == (30, 0.5)
            assert float(arrays["duration"]) == end[rows][-1]
    (out / "b/0.npz").unlink()
    stamp = (out / "c.npz").stat().st_mtime_ns
    assert embed_files(*words, format="npz", dtype="float16") == (out, 4, 1)
    assert (out / "b/0.npz").exists()
    assert (out / "c.npz").stat().st_mtime_ns == stamp


def test_two_videos_of_one_name_are_refused(data, tmp_path):
    videos = listed(data, ["c.mp4", "c.avi"])
    with pytest.raises(EmbeddingError, match=r"c.mp4 and .*c.avi would both be c.npz"):
        embed_files(data / "run", videos, tmp_path / "out", format="npz")


def test_none_can_be_read(data, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="0 of 2 videos can be read") as error:
        embed_files(data / "run", listed(data, ["a/bad.mp4", "gone.mp4"]), out)
    assert error.value.exit_code == 1
    assert len((out / "bad_videos.csv").read_text().splitlines()) == 3
    assert not (out / "embeddings.json").exists()


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_no_table_while_the_storage_does_not_give_a_file(pictures, monkeypatch, tmp_path, format):
    write_image_run(tmp_path / "run")
    away = str(pictures[1])

    def work(function, items, **_):
        os.rename(away, tmp_path / "away")
        try:
            yield from work_here(function, items)
        finally:
            os.rename(tmp_path / "away", away)

    monkeypatch.setattr("hiera_video.predicting.embed_files.work", work)
    embed = partial(embed_files, tmp_path / "run", manifest_of(pictures), tmp_path, format=format)
    with pytest.raises(StorageFailure, match=f"1 of 4 files cannot be read.*{away}: No such file"):
        embed()
    assert not (tmp_path / "embeddings.parquet").exists()
    monkeypatch.setattr("hiera_video.predicting.embed_files.work", work_here)
    assert embed()[1:] == (3, 1)


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        (EmbeddingOptions(stage=7), {}, "stage must be 1 to 4, not 7"),
        (EmbeddingOptions(window=1.0), {}, "a window needs a stride"),
        (STRIDE, {"dtype": "int8"}, "expected float32 or float16, not 'int8'"),
        (STRIDE, {"format": "csv"}, "expected parquet or npz, not 'csv'"),
        (STRIDE, {"device": "gpu"}, "expected cpu.*, not 'gpu'"),
        (STRIDE, {"processes": 0}, "processes must be positive, not 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    data, tmp_path, options, more, message
):
    with pytest.raises(UsageError, match=message):
        embed_files(data / "run", listed(data), tmp_path / "out", options, **more)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of 96 by 64 pixels, the third of which is none."""
    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / name for name in ("a/0.png", "a/1.webp", "b/bad.jpg", "b/0.png")]
    for i, frame in enumerate(moving_frames(4, 64, 96)):
        files[i].parent.mkdir(exist_ok=True)
        Image.fromarray(frame).save(files[i], lossless=True)
    files[2].write_text("no picture")
    return files


def manifest_of(files):
    return make_manifest(map(str, files), [-1] * len(files), ())


def expected_vectors(model, files):
    """Of pictures whose middle square is what the model sees, in plain arithmetic."""
    crops = [np.asarray(Image.open(file).crop((16, 0, 80, 64))) for file in files]
    pixels = torch.from_numpy((np.stack(crops) / 255 - IMAGE_MEAN) / IMAGE_STD)  # (n, H, W, 3)
    norm = model.norm if hasattr(model, "head") else model.encoder_norm
    with torch.no_grad():
        maps = model.forward_features(pixels.permute(0, 3, 1, 2).float())  # (n, H', W', C)
        return norm(maps.mean(dim=(1, 2))).numpy()


def test_pictures_have_one_vector_each_and_no_time(pictures, tmp_path):
    model = write_image_run(tmp_path / "run")
    table = tmp_path / "out/embeddings.parquet"
    assert embed_files(tmp_path / "run", manifest_of(pictures), tmp_path / "out") == (table, 3, 1)
    paths, start, end, vectors = columns(tmp_path / "out")
    good = [file for file in pictures if file.name != "bad.jpg"]
    assert paths == [*map(str, good)]
    assert [*start, *end] == [0] * 6
    np.testing.assert_allclose(vectors, expected_vectors(model, good), atol=1e-4)
    bad = (tmp_path / "out/bad_videos.csv").read_text().splitlines()
    assert bad[1].startswith(f'{pictures[2]},"not one of the pictures read here')


def test_arrays_of_pictures_from_an_autoencoder(pictures, tmp_path):
    model = write_image_run(tmp_path / "run", "masked_autoencoder")
    words = (str(tmp_path / "run"), EmbeddingOptions(), "npz", "float32", "cpu", 1, tmp_path)
    path, target = str(pictures[3]), tmp_path / "0.npz"
    assert EmbedGroup(*words)(Group((Video(path, path, target),)), lambda: None) == {}
    with np.load(target) as arrays:
        assert sorted(arrays.files) == ["end", "feats", "path", "start"]
        expected = expected_vectors(model, [pictures[3]])
        np.testing.assert_allclose(arrays["feats"], expected, atol=1e-4)


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A run and 35 pictures, more than share a group; the sixth is none. And their vectors."""
    folder = tmp_path_factory.mktemp("album")
    model = write_image_run(folder / "run")
    files = [folder / f"pictures/{i:02d}.png" for i in range(35)]
    files[0].parent.mkdir()
    for file, frame in zip(files, moving_frames(35, 64, 96), strict=True):
        Image.fromarray(frame).save(file)
    expected = dict(zip(map(str, files), expected_vectors(model, files), strict=True))
    files[5].write_text("no picture")
    return folder / "run", files, expected


def work_here(function, items, **_):
    """Like `file_workers.work`, in this process."""
    for item in items:
        yield item, function(item, lambda: None)


@pytest.fixture(scope="module")
def album_table(album, tmp_path_factory):
    """What is written of the pictures if a later group is done first, as by other processes."""
    run, files, expected = album
    out, seen = tmp_path_factory.mktemp("out"), []
    with pytest.MonkeyPatch.context() as patch:
        name = "hiera_video.predicting.embed_files.work"
        patch.setattr(name, lambda function, items, **_: work_here(function, items[::-1]))
        progress = lambda *counts: seen.append(counts)  # noqa: E731
        assert embed_files(run, manifest_of(files), out, progress=progress)[1:] == (34, 1)
    assert seen == [(i, 35) for i in range(1, 36)]
    paths, _, _, vectors = columns(out)
    assert paths == [path for path in expected if not path.endswith("05.png")]
    for path, vector in zip(paths, vectors, strict=True):
        np.testing.assert_allclose(vector, expected[path], atol=1e-4)
        np.testing.assert_allclose(vector, load(run, "cpu").embed(path).features[0], atol=1e-5)
    (bad,) = (out / "bad_videos.csv").read_text().splitlines()[1:]
    assert bad.startswith(f"{files[5]},")
    return columns(out)


def test_pictures_in_groups_go_on_after_a_stop(album, album_table, monkeypatch, tmp_path):
    run, files, expected = album
    monkeypatch.setattr("hiera_video.predicting.embed_files.work", work_here)

    def stop(done, total):
        if done == 33:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_files(run, manifest_of(files), tmp_path / "out", progress=stop)
    parts = [*(tmp_path / "out/.embed.unfinished").glob("*.part")]
    stamps = [part.stat().st_mtime_ns for part in parts]
    assert len(parts) == 2

    def unchanged(done, total):
        assert [part.stat().st_mtime_ns for part in parts] == stamps

    assert embed_files(run, manifest_of(files), tmp_path / "out", progress=unchanged).bad == 1
    for mine, other in zip(columns(tmp_path / "out"), album_table, strict=True):
        np.testing.assert_array_equal(mine, other)
    with pytest.raises(KeyboardInterrupt):
        embed_files(run, manifest_of(files), tmp_path / "again", progress=stop)
    before = files[5].read_bytes()
    Image.open(files[4]).save(files[5])
    try:
        assert embed_files(run, manifest_of(files), tmp_path / "again")[1:] == (35, 0)
    finally:
        files[5].write_bytes(before)
    paths, *_, vectors = columns(tmp_path / "again")
    assert paths == [*expected]
    np.testing.assert_allclose(vectors[5], vectors[4], atol=1e-5)


def test_arrays_of_pictures_in_groups(album, album_table, monkeypatch, tmp_path):
    run, files, _ = album
    monkeypatch.setattr("hiera_video.predicting.embed_files.work", work_here)
    assert embed_files(run, manifest_of(files), tmp_path, format="npz")[1:] == (34, 1)
    for path, vector in zip(album_table[0], album_table[3], strict=True):
        with np.load(tmp_path / f"{os.path.basename(path)[:2]}.npz") as arrays:
            np.testing.assert_array_equal(arrays["feats"], vector[None])
            assert str(arrays["path"]) == path
    before = (tmp_path / "03.npz").read_bytes()
    (tmp_path / "03.npz").unlink()
    stamp = (tmp_path / "04.npz").stat().st_mtime_ns
    assert embed_files(run, manifest_of(files), tmp_path, format="npz")[1:] == (34, 1)
    assert (tmp_path / "03.npz").read_bytes() == before
    assert (tmp_path / "04.npz").stat().st_mtime_ns == stamp


def test_of_a_group_only_the_picture_that_ends_its_process_is_bad(album, monkeypatch, tmp_path):
    run, files, expected = album

    def work(function, items, **_):
        for item in items:
            crashes = str(files[7]) in [file.path for file in item.files]
            yield item, Lost("the decoder ended") if crashes else function(item, lambda: None)

    monkeypatch.setattr("hiera_video.predicting.embed_files.work", work)
    seen = []
    progress = lambda *counts: seen.append(counts)  # noqa: E731
    assert embed_files(run, manifest_of(files[:9]), tmp_path, progress=progress)[1:] == (7, 2)
    assert seen == [(i, 9) for i in range(1, 10)]
    paths, *_, vectors = columns(tmp_path)
    assert paths == [str(file) for i, file in enumerate(files[:9]) if i not in (5, 7)]
    for path, vector in zip(paths, vectors, strict=True):
        np.testing.assert_allclose(vector, expected[path], atol=1e-4)
    bad = (tmp_path / "bad_videos.csv").read_text().splitlines()
    assert bad[2] == f"{files[7]},the decoder ended"


def test_what_pictures_cannot_have_is_refused(pictures, monkeypatch, tmp_path):
    write_image_run(tmp_path / "run")
    with pytest.raises(UsageError, match="0.png: a picture has one vector; leave out the stride"):
        embed_files(tmp_path / "run", manifest_of(pictures), tmp_path / "out", STRIDE)
    monkeypatch.setattr("hiera_video.predicting.embed_files.load", lambda *_: predictor())
    with pytest.raises(UsageError, match="a model of objects has no vector"):
        embed_files("any", manifest_of(pictures), tmp_path / "out")
    assert not (tmp_path / "out").exists()
