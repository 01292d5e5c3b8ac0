import pytest

from datamodules.wording import counted, did_you_mean, few


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


def test_a_name_that_differs_in_case_alone_is_meant():
    assert did_you_mean("RUN", ["Run", "Ruin", "Walk"]) == "; did you mean Run?"
    assert did_you_mean("RUIM", ["Run", "Ruin", "Walk"]) == "; did you mean Ruin or Run?"
    assert did_you_mean("xyz", ["Run", "Walk"]) == ""


def test_the_first_few():
    assert few([], 3) == ""
    assert few([1, "b", 3.5], 3) == "1, b, 3.5"
    assert few(range(12), 3) == "0, 1, 2 and 9 more"
    assert few(range(1235), 1, ",") == "0 and 1,234 more"
