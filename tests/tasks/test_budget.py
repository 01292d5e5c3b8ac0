import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiera_video.tasks.budget import Budget, BudgetError, passes

small = st.integers(1, 12)


@given(small, small, small, small, st.sampled_from(["videos", "clips"]))
def test_accumulation_makes_the_batch_exactly(batch_size, repeats, world, accumulate, unit):
    videos = batch_size * world * accumulate
    budget = Budget(videos * (repeats if unit == "clips" else 1), unit)
    assert budget.accumulation(batch_size, repeats, world) == accumulate


@given(st.integers(1, 300), small, small, small, st.sampled_from(["videos", "clips"]))
def test_a_batch_that_cannot_be_made_is_refused(batch, batch_size, repeats, world, unit):
    clips = batch * (1 if unit == "clips" else repeats)
    step = batch_size * world * repeats
    if clips % step == 0:
        assert Budget(batch, unit).accumulation(batch_size, repeats, world) == clips // step
    else:
        with pytest.raises(BudgetError, match="no multiple"):
            Budget(batch, unit).accumulation(batch_size, repeats, world)


def test_the_error_names_a_batch_size_that_fits():
    with pytest.raises(BudgetError, match=r"data\.batch_size=6 would do"):
        Budget(24).accumulation(8, 1, 4)
    with pytest.raises(BudgetError, match="do not divide among 7 processes, 21 would"):
        Budget(24).accumulation(8, 1, 7)
    with pytest.raises(BudgetError, match="needs 4; leave it out"):
        Budget(64).accumulation(8, 2, 2, accumulate=3)


def test_without_a_batch_the_trainer_decides():
    assert Budget().accumulation(8, 2, 4, accumulate=3) == 3
    assert Budget().lr_factor(96, 2) == 1


def test_the_learning_rate_follows_the_batch_in_its_unit():
    assert Budget(lr_reference=256).lr_factor(128, repeats=2) == 0.5
    assert Budget(batch_unit="clips", lr_reference=256).lr_factor(128, repeats=2) == 1


def test_effective_epochs_count_every_clip():
    assert passes(3200, "effective", 4) == 800
    assert passes(800, "passes", 4) == 800
    assert passes(None, "passes", 4) == -1
    with pytest.raises(BudgetError, match=r"is 37\.5 passes"):
        passes(150, "effective", 4)
    with pytest.raises(BudgetError, match="at least 1"):
        passes(150, "effective", 0)


@pytest.mark.parametrize(
    ("batch", "epochs", "message"),
    [
        ({"size": 3}, None, "batch has no key 'size'"),
        ({"unit": "frames"}, None, "videos or clips"),
        ({"global": 0}, None, "positive whole number"),
        ({"global": 2.5}, None, "positive whole number"),
        ({"lr_reference": 0}, None, "must be positive"),
        (None, {"unit": "epochs"}, "passes or effective"),
        (None, {"warmup": 3}, "epochs has no key 'warmup'"),
    ],
)
def test_wrong_values_are_named(batch, epochs, message):
    with pytest.raises(BudgetError, match=message):
        Budget.of(batch, epochs)
