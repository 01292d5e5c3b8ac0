"""Class folders become splits of links, class by class."""

from pathlib import Path

import pytest

from datamodules import DatasetError, VideoFolderDataModule, split_folder


def make(folder: Path, **classes: int) -> Path:
    for name, count in classes.items():
        for i in range(count):
            file = folder / name / ("deeper" if i % 2 else "") / f"{i}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{name} {i}")
    (folder / "notes.txt").touch()
    return folder


def contents(folder: Path) -> dict[str, set[str]]:
    """Of the files of each split."""
    return {
        split.name: {path.read_text() for path in split.rglob("*.mp4")}
        for split in folder.iterdir()
    }


def test_each_class_is_divided_and_each_video_comes_once(tmp_path):
    source = make(tmp_path / "clips", waving=20, clapping=10)
    assert split_folder(source, tmp_path / "videos") == {"train": 21, "val": 4, "test": 5}
    splits = contents(tmp_path / "videos")
    for name, counts in {"waving": (14, 3, 3), "clapping": (7, 1, 2)}.items():
        numbers = [len([t for t in splits[s] if name in t]) for s in ("train", "val", "test")]
        assert tuple(numbers) == counts
    assert sum(map(len, splits.values())) == len(set().union(*splits.values())) == 30


def test_pictures_count_where_there_are_no_videos(tmp_path):
    for i in range(4):
        for file in (f"videos/{i}.mp4", f"videos/{i}.jpg", f"pictures/{i}.jpg"):
            (tmp_path / "all" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / file).touch()
    assert sum(split_folder(tmp_path / "all", tmp_path / "splits").values()) == 8
    assert len(list((tmp_path / "splits").rglob("videos/*.jpg"))) == 0


def test_the_data_module_reads_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split_folder(make(Path("clips"), waving=4, clapping=3), "videos")  # relative paths
    data = VideoFolderDataModule("videos")
    for split, count in {"train": 3, "val": 2, "test": 2}.items():
        manifest = data.list_split(split, None)
        assert (len(manifest), manifest.class_names) == (count, ("clapping", "waving"))
        assert all(Path(manifest.path(i)).read_text() for i in range(count))


def test_a_seed_names_one_split_and_a_second_call_replaces_the_first(tmp_path):
    source, target = make(tmp_path / "clips", waving=20), tmp_path / "videos"
    splits = []
    for seed in (0, 1, 0):
        split_folder(source, target, seed=seed)
        splits.append(contents(target))
    assert splits[0] == splits[2] != splits[1]
    (source / "waving").rename(source / "clapping")
    split_folder(source, target)
    assert {path.name for path in target.glob("*/*")} == {"clapping"}


def test_every_split_has_a_video_of_every_class(tmp_path):
    source = make(tmp_path / "clips", waving=3)
    for shares in ((98, 1, 1), (1, 98, 1), (1, 1, 98)):
        counts = split_folder(source, tmp_path / "videos", shares)
        assert counts == {"train": 1, "val": 1, "test": 1}


def test_what_cannot_be_split(tmp_path):
    with pytest.raises(DatasetError, match="nothing: no class folders"):
        split_folder(tmp_path / "nothing", tmp_path / "videos")
    source = make(tmp_path / "clips", waving=2)
    with pytest.raises(DatasetError, match="waving: a class needs at least three videos"):
        split_folder(source, tmp_path / "videos")
    with pytest.raises(ValueError, match="three positive numbers"):
        split_folder(source, tmp_path / "videos", (0.5, 0.5, 0))


def test_a_folder_of_splits_is_not_split(tmp_path):
    source = make(tmp_path / "clips", **{"train/waving": 4, "val/waving": 4, "test/waving": 4})
    with pytest.raises(DatasetError, match="clips: train, val, test are splits, not classes; it"):
        split_folder(source, tmp_path / "videos")
    assert not (tmp_path / "videos").exists()


def test_hidden_files_are_left_out_and_linked_folders_are_not(tmp_path):
    source = make(tmp_path / "clips", waving=3)
    other = make(tmp_path / "other", waving=3)
    (source / "waving/._0.mp4").touch()
    (source / "waving/more").symlink_to(other / "waving")
    assert sum(split_folder(source, tmp_path / "videos").values()) == 6
    assert sum(split_folder(source, tmp_path / "videos").values()) == 6  # replaces its own links


def test_files_of_the_user_are_not_touched(tmp_path):
    source = make(tmp_path / "clips", waving=3)
    mine = tmp_path / "videos/val/waving/0.mp4"
    mine.parent.mkdir(parents=True)
    mine.write_text("waving 0")
    with pytest.raises(DatasetError, match="waving.*: not a link of an earlier split of .*clips"):
        split_folder(source, tmp_path / "videos")
    assert mine.read_text() == "waving 0"
    assert not (tmp_path / "videos/train").exists()


def test_links_of_the_user_are_not_touched(tmp_path):
    source = make(tmp_path / "clips", waving=3)
    other = make(tmp_path / "other", waving=3)
    mine = tmp_path / "videos/train/waving/mine.mp4"
    mine.parent.mkdir(parents=True)
    mine.symlink_to(other / "waving/0.mp4")
    with pytest.raises(DatasetError, match="mine.mp4: not a link of an earlier split"):
        split_folder(source, tmp_path / "videos")
    assert mine.is_symlink()
