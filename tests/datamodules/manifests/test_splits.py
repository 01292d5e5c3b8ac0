import logging
import os
from pathlib import Path

import pyarrow as pa
import pytest

from datamodules.errors import DatasetError
from datamodules.manifests.lists import NO_LABEL
from datamodules.manifests.parquet import ManifestMetadata, write_manifest
from datamodules.manifests.predicted_lists import list_to_predict
from datamodules.manifests.splits import (
    list_split,
    list_videos,
    read_split,
    split_folders,
)
from datamodules.manifests.walking import media_of_folder
from datamodules.suffixes import EITHER, PICTURES, VIDEOS, kind_of


def videos_of(sources):
    """Lists among the sources are relative to their folders."""
    return list_videos(sources, lambda file: list_to_predict(file, [file.parent]))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def rows(manifest):
    return [(manifest.path(i), manifest.label(i)) for i in range(len(manifest))]


def test_class_folders_are_sorted_and_other_files_left_out(tmp_path, caplog):
    b, a = touch(tmp_path / "walk/b.MP4"), touch(tmp_path / "jump/x/a.webm")
    touch(tmp_path / "jump/notes.txt")
    touch(tmp_path / "c.mp4")
    touch(tmp_path / "walk/.DS_Store")
    touch(tmp_path / ".cache/c.mp4")
    manifest = read_split(tmp_path, tmp_path, None)
    assert manifest.class_names == ("jump", "walk")
    assert rows(manifest) == [(str(a), 0), (str(b), 1)]
    assert caplog.messages == [
        f"{tmp_path}: 2 files are skipped, such as {tmp_path / 'jump/notes.txt'} and "
        f"{tmp_path / 'c.mp4'} beside the folders of the classes"
    ]
    (tmp_path / "c.mp4").unlink()
    for name in ("a.TXT", "b.zip", "x.json"):
        touch(tmp_path / "walk" / name)
    caplog.clear()
    read_split(tmp_path, tmp_path, None)
    files = [tmp_path / name for name in ("jump/notes.txt", "walk/b.zip", "walk/x.json")]
    assert caplog.messages == [
        f"{tmp_path}: 4 files are skipped, such as {files[0]}, {files[1]} and {files[2]}"
    ]
    caplog.clear()
    videos_of([tmp_path / "jump"])
    assert caplog.messages == [
        f"{tmp_path / 'jump'}: 1 file is skipped, such as {tmp_path / 'jump/notes.txt'}"
    ]


def test_hidden_files_and_folders_with_such_a_name_are_no_videos(tmp_path, caplog):
    video = touch(tmp_path / "walk/a.mp4")
    for name in ("walk/._a.mp4", "walk/.DS_hidden.mp4", "walk/.cache/b.mp4", "._c.mp4"):
        touch(tmp_path / name)
    (tmp_path / "walk/empty.mp4").mkdir()
    assert rows(read_split(tmp_path, tmp_path, None)) == [(str(video), 0)]
    assert rows(videos_of([tmp_path])) == [(str(video), NO_LABEL)]
    (tmp_path / "walk/empty.mp4").rmdir()
    assert rows(read_split(tmp_path / "walk", tmp_path, None)) == [(str(video), NO_LABEL)]
    assert caplog.messages == []
    video.unlink()
    for read in (lambda: read_split(tmp_path, tmp_path, None), lambda: videos_of([tmp_path])):
        with pytest.raises(DatasetError, match=r": no video"):
            read()


def test_folders_of_a_class_may_be_links_and_files_links_to_nothing(tmp_path, caplog):
    inside, outside = touch(tmp_path / "clips/walk/a.mp4"), touch(tmp_path / "more/b.mp4")
    (tmp_path / "clips/walk/more").symlink_to(outside.parent)
    (tmp_path / "clips/walk/all").symlink_to(tmp_path / "clips")
    (tmp_path / "clips/walk/gone.mp4").symlink_to(tmp_path / "gone.mp4")
    found = [str(inside), f"{inside.parent}/gone.mp4", f"{inside.parent}/more/b.mp4"]
    assert rows(read_split(tmp_path / "clips", tmp_path, None)) == [(path, 0) for path in found]
    assert rows(videos_of([inside.parent])) == [(path, NO_LABEL) for path in found]
    assert caplog.messages == []


OLD_AND_RARE = (".3gp", ".3g2", ".asf", ".gif", ".m2ts", ".mts", ".mxf", ".nut", ".ogv", ".VOB")


@pytest.mark.parametrize("suffix", OLD_AND_RARE)
def test_suffixes_of_videos(tmp_path, suffix):
    path = touch(tmp_path / f"walk/a{suffix}")
    assert rows(read_split(tmp_path, tmp_path, None)) == [(str(path), 0)]


def test_class_folders_keep_the_ids_of_known_classes(tmp_path):
    touch(tmp_path / "walk/b.mp4")
    manifest = read_split(tmp_path, tmp_path, ["swim", "walk"])
    assert manifest.label(0) == 1
    with pytest.raises(DatasetError, match=r"walk: not one of the 1 known classes.*class_names$"):
        read_split(tmp_path, tmp_path, ["swim"])
    with pytest.raises(DatasetError, match=r"; did you mean Walk\?$"):
        read_split(tmp_path, tmp_path, ["swim", "Walk"])


def test_a_list_gives_classes_and_files(tmp_path):
    walk, jump = touch(tmp_path / "a b/ü.mp4"), touch(tmp_path / "c,d.mp4")
    source = write(tmp_path / "train.csv", 'path,label\na b/ü.mp4,walk\n"c,d.mp4",jump\n\n')
    manifest = read_split(source, tmp_path, None)
    assert manifest.class_names == ("jump", "walk")
    assert rows(manifest) == [(str(walk), 1), (str(jump), 0)]
    assert rows(read_split(source, tmp_path, ["x", "walk", "jump"])) == [
        *((str(walk), 1), (str(jump), 2))
    ]
    assert manifest.class_counts().tolist() == [1, 1]


def test_a_list_without_labels(tmp_path):
    video = touch(tmp_path / "b c.mp4")
    source = write(tmp_path / "list.txt", "path\nb c.mp4\n")
    assert rows(read_split(source, tmp_path, None)) == [(str(video), NO_LABEL)]
    touch(tmp_path / "flat/x.mp4")
    assert rows(read_split(tmp_path / "flat", tmp_path, None)) == [(f"{tmp_path}/flat/x.mp4", -1)]


def test_a_list_may_repeat_a_video_but_not_under_another_label(tmp_path):
    touch(tmp_path / "a.mp4")
    source = write(tmp_path / "list.csv", "a.mp4,walk\n./a.mp4,walk\n")
    assert len(read_split(source, tmp_path, None)) == 2
    write(source, "a.mp4,walk\n\n./a.mp4,jump\n")
    with pytest.raises(DatasetError, match=r"row 3: .*a.mp4 is 'jump', and 'walk' in row 1"):
        read_split(source, tmp_path, None)


def test_files_that_a_list_names_are_looked_for_at_once(tmp_path, caplog, monkeypatch):
    for i in range(20):
        touch(tmp_path / f"v{i % 2}/{i}.mp4")
    lines = [f"v{i % 2}/{i}.mp4,{'ab'[i % 2]}" for i in range(20)]
    source = write(tmp_path / "list.csv", "\n".join(["path,label", "gone/x.mp4,c", *lines]))
    asked = []
    scandir = os.scandir
    monkeypatch.setattr("os.scandir", lambda path: asked.append(path) or scandir(path))
    with caplog.at_level(logging.WARNING):
        manifest = read_split(source, tmp_path, None)
    assert len(asked) == 3  # folders, not files
    assert len(manifest) == 20
    assert manifest.class_names == ("a", "b", "c")
    assert f"1 of 21 videos is missing in {tmp_path}, the first in row 2: gone/x.mp4" in caplog.text
    (missing,) = manifest.missing
    assert (missing.number, missing.video) == (2, f"{tmp_path}/gone/x.mp4")
    write(source, "gone/x.mp4,c\n")
    with pytest.raises(DatasetError, match=r"1 of 1 video is missing in .*; is that their root\?"):
        read_split(source, tmp_path, None)
    write(source, "a.mp4,x\nv0,y\n")
    with pytest.raises(DatasetError, match=r"row 2: .*/v0 is a folder; list video files"):
        read_split(source, tmp_path, None)


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train/a/1.mp4", "val/a/2.mp4", "test/a/3.mp4"], ["train", "val", "test"]),
        (["Train/a/1.mp4", "Validation/a/2.mp4", "annotations/x.csv"], ["Train", "Validation"]),
        (["train/1.mp4", "test/2.mp4"], ["train", "test"]),
        (["train/a/1.mp4"], ["train"]),
        (["train/1.mp4"], []),  # a class of this name
        (["train/1.mp4", "bus/2.mp4"], []),
        (["test/1.mp4", "ski/2.mp4", "val/3.mp4"], []),
    ],
)
def test_a_folder_of_splits_is_not_one_of_classes(tmp_path, files, splits):
    for file in files:
        touch(tmp_path / file)
    assert [folder.name for folder in split_folders(tmp_path)] == splits
    if not splits:
        assert set(read_split(tmp_path, tmp_path, None).class_names) == set(os.listdir(tmp_path))
        return
    with pytest.raises(DatasetError, match=f"{', '.join(splits)} are splits, not classes; name"):
        read_split(tmp_path, tmp_path, None)
    if len(splits) == len(files):  # unless one says so
        assert len(read_split(tmp_path, tmp_path, splits)) == len(files)


def test_a_split_that_is_not_there_has_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=f"^{tmp_path}/clips/val: there is no {tmp_path}/clips;"):
        read_split(Path("clips/val"), Path("clips"), None)
    touch(tmp_path / "clips/train/wave/a.mp4")
    with pytest.raises(DatasetError, match=f"^{tmp_path}/clips/val: no such folder or file;"):
        read_split(Path("clips/val"), Path("clips"), None)


def test_missing_empty_and_binary_sources(tmp_path):
    with pytest.raises(DatasetError, match="split's name$"):
        read_split(tmp_path / "train", tmp_path, None)
    with pytest.raises(DatasetError, match="train: there is no .*clips; set data.root and"):
        read_split(tmp_path / "clips" / "train", tmp_path / "clips", None)
    touch(tmp_path / "clips/wave/a.mp4")
    with pytest.raises(DatasetError, match="train: no such .* datamodules.split_folder splits it$"):
        read_split(tmp_path / "clips" / "train", tmp_path / "clips", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no videos"):
        read_split(tmp_path / "empty", tmp_path, None)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DatasetError, match="not a readable text file"):
        read_split(tmp_path / "x.csv", tmp_path, None)


def test_a_video_in_the_place_of_a_list(tmp_path):
    video = touch(tmp_path / "a.MP4")
    message = f"{video}: a video, not a list; name a list, or a folder with one folder of videos"
    with pytest.raises(DatasetError, match=f"^{message} per class$"):
        read_split(video, tmp_path, None)
    with pytest.raises(DatasetError, match="an image, not a list; .* folder of images per class"):
        read_split(touch(tmp_path / "a.png"), tmp_path, None, PICTURES)


def test_videos_beside_class_folders_without_any_are_counted(tmp_path):
    (tmp_path / "notes").mkdir()
    videos = [touch(tmp_path / f"{i}.mp4") for i in range(2)]
    message = "2 videos directly in it, none in its folders; expected one folder of videos per"
    with pytest.raises(DatasetError, match=f"^{tmp_path}: {message} class$"):
        read_split(tmp_path, tmp_path, None)
    videos[0].unlink()
    with pytest.raises(DatasetError, match=": 1 video directly in it"):
        read_split(tmp_path, tmp_path, None)


def test_videos_to_predict(tmp_path):
    a, b = touch(tmp_path / "x/a.mp4"), touch(tmp_path / "x/y/b.mkv")
    odd = touch(tmp_path / "no-suffix")
    manifest = videos_of([tmp_path / "x", odd])
    assert rows(manifest) == [(str(p), NO_LABEL) for p in (a, b, odd)]
    with pytest.raises(DatasetError, match="gone: no such file or folder"):
        videos_of([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no video files found$"):
        videos_of([tmp_path / "empty"])
    touch(tmp_path / "empty/v_000001.jpg")
    hint = "no video files found; pictures are not read as the frames of a video here"
    with pytest.raises(DatasetError, match=hint):
        videos_of([tmp_path / "empty"])


def test_a_manifest_to_predict(tmp_path):
    a = touch(tmp_path / "x/a.mp4")
    table = pa.table({"path": ["a.mp4"], "label": pa.array([0], pa.int64())})
    file = tmp_path / "manifest.parquet"
    write_manifest(file, table, ManifestMetadata(["jump"], str(tmp_path / "x")))
    b = touch(tmp_path / "y/b.mp4")
    for source in (file, tmp_path):  # the file, or the folder that holds it
        manifest = videos_of([source])
        assert rows(manifest) == [(str(a), NO_LABEL)]
        assert manifest.class_names == ()
    assert rows(videos_of([file, b])) == [(str(a), NO_LABEL), (str(b), NO_LABEL)]
    columns = {"shard": ["s.tar"], "offset": [0], "bytes": [1]}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    write_manifest(file, table, ManifestMetadata(["jump"], str(tmp_path / "x")))
    assert len(videos_of([tmp_path])) == 1
    with pytest.raises(DatasetError, match="its videos are packed; predict them alone"):
        videos_of([file, b])


def test_a_folder_holds_pictures_if_there_is_no_video(tmp_path):
    assert media_of_folder(tmp_path) is VIDEOS
    touch(tmp_path / "a/notes.txt")
    assert media_of_folder(tmp_path) is VIDEOS
    touch(tmp_path / "a/._0.mp4")
    touch(tmp_path / "a/b/0.JPEG")
    assert media_of_folder(tmp_path) is PICTURES
    touch(tmp_path / "a/moving.GIF")
    assert media_of_folder(tmp_path) is PICTURES
    touch(tmp_path / "c.mp4")
    assert media_of_folder(tmp_path) is VIDEOS  # with a thumbnail, which is said to be skipped
    (tmp_path / "a/b/0.JPEG").unlink()
    (tmp_path / "c.mp4").unlink()
    assert media_of_folder(tmp_path) is VIDEOS  # the animated picture alone


def test_the_kind_of_files():
    assert kind_of([]) is VIDEOS
    assert kind_of(["a.PNG", "b.jpg", "c.jfif"]) is PICTURES
    assert kind_of(["a.mp4", "no suffix"]) is VIDEOS
    assert kind_of(["a.mp4", "a.png"]) is EITHER


def test_missing_pictures_of_a_list_are_called_images(tmp_path, caplog):
    touch(tmp_path / "a.png")
    source = write(tmp_path / "list.txt", "a.png\nb.png\n")
    assert len(list_split(source, tmp_path, None)) == 1
    assert f"1 of 2 images is missing in {tmp_path}, the first in row 2: b.png" in caplog.text
