"""The command ``embed`` as a user runs it, and what reads its files."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hiera_video import load, neighbours
from tests.integration.forked import run
from tests.trained_models import write_image_run, write_mae_run, write_run
from tests.video_files import moving_frames, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier, an autoencoder, three videos and something that is none."""
    folder = tmp_path_factory.mktemp("embed")
    write_run(folder / "run")
    write_mae_run(folder / "mae")
    (folder / "videos").mkdir()
    for i in range(3):
        write_video(folder / f"videos/{i}.mp4", moving_frames(45, 80, 120, seed=i))
    (folder / "list.txt").write_text("videos/0.mp4\nvideos/2.mp4\n")
    (folder / "bad.mp4").write_text("no video")
    return folder


def test_a_table_of_a_folder(folder, tmp_path):
    words = ("embed", "run", "videos", "bad.mp4", "--out", tmp_path, "--stride", "0.5")
    output = run(*words, "--processes", "2", cwd=folder)
    assert f"3 of 4 videos -> {tmp_path}/embeddings.parquet" in output
    assert f"1 cannot be read: {tmp_path}/bad_videos.csv" in output
    assert "not decoded: bad.mp4: " in output
    table = pq.read_table(tmp_path / "embeddings.parquet")
    vectors = np.stack(table["vector"].to_numpy())
    assert vectors.dtype == np.float32
    expected = [load(folder / "run").embed(folder / f"videos/{i}.mp4", stride=0.5) for i in "012"]
    np.testing.assert_allclose(vectors, np.concatenate([e.features for e in expected]), atol=1e-5)
    nearest = neighbours(tmp_path, 4, count=2, same_video=False)
    assert {n.path for n in nearest} <= {"videos/0.mp4", "videos/2.mp4"}
    assert f"3 of 4 videos -> {tmp_path}" in run(*words, cwd=folder)  # there is nothing to do
    output = run(*words, "--stage", "2", cwd=folder, code=2)
    assert output.splitlines()[-1] == (
        f"hiera-video: {tmp_path} holds the features of another request (stage=None, not 2); "
        "delete it or name another folder"
    )


def test_maps_of_an_autoencoder_as_arrays(folder, tmp_path):
    options = ("--format", "npz", "--map", "--stage", "1", "--dtype", "float16")
    run("embed", "mae", "list.txt", f"out={tmp_path}", *options, cwd=folder)
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["0.npz", "2.npz"]
    with np.load(tmp_path / "2.npz") as arrays:
        features = arrays["feats"]
    expected = load(folder / "mae").embed(folder / "videos/2.mp4", stage=1, pool=False).features
    assert features.shape == expected.shape == (1, 2, 16, 16, 16)
    np.testing.assert_array_equal(features, expected.astype(np.float16))
    record = json.loads((tmp_path / "embeddings.json").read_text())
    assert (record["stage"], record["pool"], record["format"]) == (1, False, "npz")


def test_pictures_of_a_folder_and_their_neighbours(folder, tmp_path):
    write_image_run(tmp_path / "images")
    (tmp_path / "pictures/cats").mkdir(parents=True)
    for i, frame in enumerate(moving_frames(3, 64, 96)):
        Image.fromarray(frame).save(tmp_path / f"pictures/cats/{i}.png")
    Image.fromarray(frame).save(tmp_path / "pictures/again.png")
    (tmp_path / "pictures/bad.jpg").touch()
    output = run("embed", "images", "pictures", "--out", "out", cwd=tmp_path)
    assert "4 of 5 images -> out/embeddings.parquet" in output
    assert "not decoded: pictures/bad.jpg: the file is empty" in output
    nearest, *_ = neighbours(tmp_path / "out", 0, count=2)
    assert (nearest.path, nearest.start, nearest.end) == ("pictures/cats/2.png", 0, 0)
    assert nearest.similarity == pytest.approx(1, abs=1e-5)
    output = run("embed", "images", folder / "videos", "--out", "o", cwd=tmp_path, code=2)
    assert output.endswith("videos: no image files found\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run"], 2, "expected a RUN and files"),
        (["run", "videos"], 2, "where to? Add --out DIR"),
        (["gone", "videos", "--out", "o"], 2, "gone: no such run, file or published model"),
        (["hiera_bas_16x224", "videos", "out=o"], 2, "did you mean hiera_base_16x224"),
        (["run", "gone.mp4", "--out", "o"], 2, "gone.mp4: no such file or folder"),
        (["run", "mae", "--out", "o"], 2, "mae: no video files found"),
        (["run", "videos", "--out", "o", "--stage", "7"], 2, "stage must be 1 to 4, not 7"),
        (["run", "videos", "--out", "o", "--window", "2"], 2, "a window needs a stride"),
        (["run", "videos", "--out", "o", "--stride", "0"], 2, "stride must be a positive"),
        (["run", "videos", "--out", "o", "--processes", "0"], 2, ": --processes must be positive"),
        (["run", "bad.mp4", "--out=o", "--hang-seconds=-1"], 2, ": --hang-seconds must be positiv"),
        (["run", "videos", "--out", "bad.mp4"], 2, "bad.mp4 is a file; name a folder"),
        (["run", "bad.mp4", "--out", "o"], 1, "0 of 1 video can be read"),
        (["run", "videos", "--out", "o", "--format", "csv"], 2, "invalid choice: 'csv'"),
    ],
)
def test_wrong_words_are_one_line(folder, words, code, message):
    output = run("embed", *words, cwd=folder, code=code)
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output
