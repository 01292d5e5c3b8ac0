"""A video that is in the training split and in another one is noticed, through links, too."""

import time

import pytest

from datamodules.manifests.manifest import make_manifest
from datamodules.manifests.shared import shared_videos


@pytest.fixture
def videos(tmp_path):
    """Three files of a pool."""
    (tmp_path / "pool").mkdir()
    for name in "abc":
        (tmp_path / "pool" / f"{name}.mp4").touch()
    return tmp_path


def split(root, *paths):
    return make_manifest([str(root / path) for path in paths], [0] * len(paths), ["x"], str(root))


def test_how_many_which_and_where(videos):
    train = split(videos, "pool/a.mp4", "pool/b.mp4", "pool/a.mp4")
    val = split(videos, "pool/c.mp4", "pool/b.mp4", "pool/b.mp4")
    (warning,) = shared_videos({"train": train, "val": val, "test": split(videos, "pool/c.mp4")})
    assert warning.startswith("1 of the 2 videos of val is in train, too: pool/b.mp4; leave")
    many = split(videos, *(f"{i}.mp4" for i in range(9)))
    (warning,) = shared_videos({"train": many, "test": many})
    assert "9 of the 9 videos of test are in train, too: 0.mp4, 1.mp4, 2.mp4, ...; " in warning
    assert shared_videos({"val": many, "test": many}) == []  # the same list, on purpose


def test_the_same_name_in_two_folders_is_another_video(videos):
    for folder in ("train", "val"):
        (videos / folder).mkdir()
        (videos / folder / "a.mp4").touch()
    assert shared_videos({"train": split(videos / "train", "a.mp4"),
                          "val": split(videos / "val", "a.mp4")}) == []  # fmt: skip


def test_links_lead_to_the_same_video(videos):
    (videos / "train").mkdir()
    (videos / "train/1.mp4").symlink_to("../pool/a.mp4")
    (videos / "train/2.mp4").symlink_to(videos / "pool/b.mp4")
    (videos / "train/3.mp4").symlink_to("2.mp4")
    (videos / "train/loop.mp4").symlink_to("loop.mp4")
    (videos / "val").symlink_to("pool")
    train = split(videos / "train", "1.mp4", "3.mp4", "loop.mp4")
    (warning,) = shared_videos(
        {"train": train, "val": split(videos / "val", "a.mp4", "b.mp4", "c")}
    )
    assert "2 of the 3 videos of val are in train, too: a.mp4, b.mp4; " in warning


def test_300_000_rows_take_about_a_second(tmp_path):
    names = [f"class {i % 400}/{i}.mp4" for i in range(300_000)]
    train, val = split(tmp_path, *names), split(tmp_path, *names[:20_000])
    started = time.process_time()
    assert len(shared_videos({"train": train, "val": val})) == 1
    assert time.process_time() - started < 10
