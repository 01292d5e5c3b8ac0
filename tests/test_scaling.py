"""The tables of docs/scaling.md are what the code gives; here those of the quickest models."""

import pytest

from docs.scaling import DEVICES_HEADER, HEADER, KINDS, PAGE, line, row
from hiera_video.models.names import WIDTHS


@pytest.mark.parametrize("kind", KINDS)
def test_the_row_of_tiny_is_up_to_date(kind):
    assert row("tiny", kind) in PAGE.read_text().splitlines(), "run python docs/scaling.py"


@pytest.mark.slow
@pytest.mark.parametrize("size", [size for size in WIDTHS if size != "tiny"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_rows_are_up_to_date(size, kind):
    assert row(size, kind) in PAGE.read_text().splitlines(), "run python docs/scaling.py"


def test_the_page_has_all_models():
    lines = PAGE.read_text().splitlines()
    assert line(HEADER) in lines
    assert line(DEVICES_HEADER) in lines
    for size in WIDTHS:
        for task in KINDS.values():
            assert any(text.startswith(f"| {size} | {task} | ") for text in lines)
