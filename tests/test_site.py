"""The documentation as a web site: no broken link, no request to anybody else."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs the extra docs: pip install '.[docs]'")
from docs.hooks import PACKAGES

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"<(?:script|img|source|iframe)\b[^>]*\bsrc=\"?([^\">\s]+)|<link\b[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not built.returncode, built.stderr  # of a warning, too: broken links, wrong docstrings
    return folder


def test_a_page_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for tag in LOADED.finditer(page.read_text()):
            is_loaded = tag[1] or "stylesheet" in tag[0] or "preconnect" in tag[0]
            assert not (is_loaded and "://" in tag[0]), f"{page.name}: {tag[0]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_name(site, package):
    page = (site / f"api/{package}.html").read_text()
    for name in import_module(package).__all__:
        heading = (
            rf'<h2 id="{re.escape(f"{package}.{name}")}" class="doc doc-heading">.*?</h2>\s*(.*?)'
        )
        described = re.search(heading + r"<(?:h2|/article)", page, re.DOTALL)
        assert described, name
        assert "<p>" in described[1], f"{name} has no docstring"
