"""The files below a folder: not the hidden ones, and each folder once."""

import errno
import os

import pytest

from datamodules.errors import DatasetError, StorageFailure
from datamodules.manifests.walking import entries, files_below, walk_files


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def below(folder):
    return [os.path.relpath(path, folder) for path in files_below(folder)]


def test_files_at_any_depth_are_sorted_folder_by_folder(tmp_path):
    for name in ("b.mp4", "a/x.mp4", "a-b/x.mp4", "a/c/notes.txt", "B.mp4"):
        touch(tmp_path / name)
    assert below(tmp_path) == ["B.mp4", "a/c/notes.txt", "a/x.mp4", "a-b/x.mp4", "b.mp4"]
    assert below(tmp_path / "gone") == []


def test_the_folder_of_the_file_system_is_left_out(tmp_path):
    touch(tmp_path / "lost+found/a.mp4")
    assert below(tmp_path) == []


def test_hidden_files_and_folders_are_left_out_but_for_the_one_that_is_named(tmp_path):
    for name in ("a.mp4", "._a.mp4", ".cache/b.mp4", "c/.DS_hidden.mp4"):
        touch(tmp_path / name)
    assert below(tmp_path) == ["a.mp4"]
    assert below(tmp_path / ".cache") == ["b.mp4"]


def test_folders_are_no_files_and_links_to_nothing_are(tmp_path):
    touch(tmp_path / "clip.mp4/a.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    assert below(tmp_path) == ["clip.mp4/a.mp4", "gone.mp4", "self.mp4"]
    files, folders = entries(tmp_path)
    assert [entry.name for entry in files] == ["gone.mp4", "self.mp4"]
    assert [entry.name for entry in folders] == ["clip.mp4"]


def test_links_to_folders_are_followed_and_each_folder_is_read_once(tmp_path):
    touch(tmp_path / "walk/own/a.mp4")
    touch(tmp_path / "other/deep/b.mp4")
    touch(tmp_path / "jump/c.mp4")
    links = {
        "walk/also": tmp_path / "other",
        "walk/again": tmp_path / "other/deep",  # the first of two links
        "walk/copy": tmp_path / "walk/own",  # which is read at its own place
        "walk/own/up": tmp_path / "walk",
        "walk/root": tmp_path,  # would bring the other classes
        "other/deep/back": tmp_path / "other",
        "class": tmp_path / "walk",
    }
    for link, target in links.items():
        (tmp_path / link).symlink_to(target)
    assert below(tmp_path / "walk") == ["again/b.mp4", "own/a.mp4"]
    assert below(tmp_path / "class") == ["again/b.mp4", "own/a.mp4"]


@pytest.mark.parametrize(
    ("code", "error", "hint"),
    [
        (errno.EACCES, DatasetError, "; make the folder readable, or move it away"),
        (errno.ESTALE, StorageFailure, "; start again when the storage gives the folder"),
    ],
)
def test_no_file_is_lost_in_a_folder_that_cannot_be_read(tmp_path, monkeypatch, code, error, hint):
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "b/c.mp4")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise OSError(code, os.strerror(code), str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(error) as raised:
        below(tmp_path)
    assert str(raised.value) == f"{tmp_path / 'b'}: {os.strerror(code)}{hint}"


def test_files_are_not_asked_for_one_by_one(tmp_path, monkeypatch):
    for i in range(50):
        touch(tmp_path / f"{i % 2}/{i}.mp4")
    asked, stat = [], os.stat
    monkeypatch.setattr("os.stat", lambda path, **how: asked.append(str(path)) or stat(path, **how))
    assert len(list(walk_files(tmp_path))) == 50
    assert not [path for path in asked if path.endswith(".mp4")]


@pytest.mark.parametrize("place", ["", "x/y"])
def test_a_relative_folder(tmp_path, monkeypatch, place):
    touch(tmp_path / place / "a/b.mp4")
    monkeypatch.chdir(tmp_path / place)
    assert files_below("a") == ["a/b.mp4"]
