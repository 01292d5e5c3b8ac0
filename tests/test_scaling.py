"""The tables of docs/scaling.md are what the code gives; here those of the quickest models."""

import pytest

from benchmarks.communication import Sizes
from docs import communication
from docs.communication import KINDS, NOT_POSSIBLE, Recipe, line
from docs.scaling import DEVICES_HEADER, HEADER, PAGE, row
from hiera_video.models.names import WIDTHS

STALE = "run python -m docs.scaling"


@pytest.mark.parametrize("kind", KINDS)
def test_the_row_of_tiny_is_up_to_date(kind):
    assert row("tiny", kind) in PAGE.read_text().splitlines(), STALE


@pytest.mark.slow
@pytest.mark.parametrize("size", [size for size in WIDTHS if size != "tiny"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_rows_are_up_to_date(size, kind):
    assert row(size, kind) in PAGE.read_text().splitlines(), STALE


def test_the_page_has_all_models():
    lines = PAGE.read_text().splitlines()
    assert line(HEADER) in lines
    assert line(DEVICES_HEADER) in lines
    for size in WIDTHS:
        for task in KINDS.values():
            assert any(text.startswith(f"| {size} | {task} | ") for text in lines)


def test_communication_of_base_is_up_to_date():
    lines = PAGE.read_text().splitlines()
    for text in (*communication.rows_of("base", "finetune"), *_others("base", "finetune")):
        assert text in lines, STALE


@pytest.mark.slow
def test_all_tables_of_communication_are_up_to_date():
    assert communication.communication_tables() in PAGE.read_text(), STALE


def _others(size, kind):
    return communication.ethernet_row(size, kind, "ddp"), communication.loader_row(size, kind)


def test_a_step_is_divided_into_batches_down_to_one_video():
    trained = Recipe(Sizes((), 0), 0, videos=256, most=8, repeats=2)
    divided = [communication.batches(trained, gpus) for gpus in (8, 16, 64, 256, 512)]
    assert divided == [(4, 16), (2, 16), (1, 8), (1, 2), None]
    assert sum(NOT_POSSIBLE in text for text in PAGE.read_text().splitlines()) >= 10
