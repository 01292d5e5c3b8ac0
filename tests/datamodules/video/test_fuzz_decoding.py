"""Damaged files give frames or a VideoDecodeError; `tests/fuzz_decoding.py` tries many more."""

from pathlib import Path

import pytest

from datamodules.suffixes import VIDEO_SUFFIXES
from tests import fuzz_decoding
from tests.fuzz_decoding import fuzz, mutant, write_sources

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    real = sorted(p for p in DATA.rglob("*") if p.suffix in VIDEO_SUFFIXES)
    return write_sources(tmp_path_factory.mktemp("sources")) + real


def test_damaged_files(sources: list[Path]):
    outcomes = dict(fuzz(range(200), 0, sources))
    assert sorted(outcomes) == list(range(200))
    assert not {number: o for number, o in outcomes.items() if o.kind == "fault"}
    kinds = [outcome.kind for outcome in outcomes.values()]
    assert min(kinds.count("frames"), kinds.count("error")) > 40


def test_another_error_is_a_fault(sources: list[Path], monkeypatch: pytest.MonkeyPatch):
    def broken(path: Path, threads: int) -> None:
        raise KeyError(path.suffix)

    monkeypatch.setattr(fuzz_decoding, "VideoFile", broken)
    folder = sources[0].parent
    outcome = fuzz_decoding.read_mutant(3, lambda: None, seed=0, sources=sources, folder=folder)
    assert outcome.kind == "fault"
    assert "KeyError" in outcome.reason


def test_a_mutant_is_what_its_number_says(sources: list[Path]):
    assert mutant(7, 0, sources)[:2] == mutant(7, 0, sources)[:2] != mutant(7, 1, sources)[:2]
