"""The garbage collector leaves out what is imported, and is on again afterwards."""

import gc

import pytest

from hiera_video.running.lasting import lasting_imports


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_what_is_imported_is_frozen(tmp_path, monkeypatch):
    (tmp_path / "a_module_of_ones_own.py").write_text("values = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    with lasting_imports():
        assert not gc.isenabled()
        import a_module_of_ones_own  # noqa: F401 # pyright: ignore[reportMissingImports]
    assert gc.isenabled()
    assert gc.get_freeze_count() > before + 1000


def test_without_an_import_nothing_is_frozen():
    before = gc.get_freeze_count()
    with lasting_imports():
        import sys  # noqa: F401
    assert gc.isenabled()
    assert gc.get_freeze_count() == before
