import math

from hiera_video.callbacks.stall import Mark, behind


def mark(batches, stage, text="in step 7", gave_up=False, host="a"):
    return Mark(gave_up, batches, stage, text, host)


def test_all_have_come_equally_far():
    assert behind([mark(7, 0), mark(7, 0, host="b")]) is None


def test_the_slowest_is_named_with_its_place():
    marks = [mark(8, 0), mark(7, 1, "after step 7", host="b"), mark(8, 0)]
    assert behind(marks) == "process 1 on b, which stands after step 7"


def test_several_are_counted():
    assert behind([mark(7, 0), mark(7, 0), mark(7, 1)]) == (
        "process 0 and 1 more on a, which stands in step 7"
    )


def test_evaluations_have_an_order():
    marks = [mark(7, math.inf), mark(7, 3), mark(7, 2), mark(8, 0)]
    assert str(behind(marks)).startswith("process 2 ")


def test_one_that_still_works_is_behind_those_that_gave_up():
    # In the same step, only those that wait for the others notice that time is up.
    assert str(behind([mark(7, 0, gave_up=True), mark(9, 0)])).startswith("process 1 ")
