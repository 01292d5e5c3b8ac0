import pytest

from datamodules.counting import counted


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("videos", "video"),
        ("images", "image"),
        ("classes", "class"),
        ("processes", "process"),
        ("batches", "batch"),
        ("boxes", "box"),
        ("categories", "category"),
        ("videos or images", "video or image"),
        ("seconds of video", "second of video"),
        ("MB", "MB"),
    ],
)
def test_one_of_them_is_singular(plural, singular):
    assert counted(1, plural) == f"1 {singular}"
    assert [counted(n, plural) for n in (0, 2)] == [f"0 {plural}", f"2 {plural}"]


def test_large_numbers_may_be_grouped():
    assert counted(1000, "videos", ",") == "1,000 videos"
