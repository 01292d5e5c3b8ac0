"""Every command in README.md and docs/ has a name, keys and options that exist.

Commands with a configuration are composed, as they would be before they look for data. Of the
others, the options are looked up. Those of README.md and docs/quick_start.md are really run, by
`tests/integration/test_quick_start.py`, and those of docs/extending.md by `test_extending.py`.
"""

import contextlib
import io
import re
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from docs.recipes import composed as composed_alone
from hiera_video.cli import COMMANDS
from hiera_video.running.compose import prepare
from hiera_video.running.overrides import composed
from hiera_video.running.words import RUN_COMMANDS, translate
from tests.documents import PAGES, ROOT, Command, commands

ALL = [command for page in PAGES for command in commands(page)]
# Each once, wherever it stands.
OURS = list({" ".join(command.ours): command for command in ALL if command.ours}.values())
RUN_ELSEWHERE = {"docs/extending.md"}  # its configurations are those of a package of the user's own
DATA_SETS = ("kinetics", "ssv2", "ava/", "imagenet", "inaturalist", "places365")
RUNS = re.compile(r"runs/(\w+/\w+)/RUN")
ANY_RUN = "folder/finetune"


def named(command: Command) -> str:
    return f"{command.page}:{command.line}"


@pytest.mark.parametrize("command", OURS, ids=named)
def test_ours(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *words = command.ours or []
    if name == "--version" or command.page in RUN_ELSEWHERE:
        return
    assert name in COMMANDS
    if {"--help", "--multirun"} & set(words):
        words = [word.partition(",")[0] if "=[" not in word else word for word in words]
        words = [word for word in words if word not in ("--help", "--multirun")]
    if name not in RUN_COMMANDS:
        options = {word for word in words if word.startswith("--")}
        assert options <= set(re.findall(r"--[\w-]+", help_of(name, words)))
        if "--config" not in words:
            return
        words = [*words[: words.index("--config") + 2], *(w for w in words if "=" in w)]
        name = "fit"
    compose(tmp_path, name, words)


def compose(folder: Path, name: str, words: list[str]) -> None:
    """Compose a run's configuration; those runs and videos that the words name are made up."""
    for word in words:
        config = RUNS.search(word)
        if config or word == "RUN":
            make_run(folder / (config[0] if config else word), config[1] if config else ANY_RUN)
        elif Path(word).suffix in (".mp4", ".jpg") or word.endswith("/"):
            (folder / word).touch() if word[-1] != "/" else (folder / word).mkdir()
    call = translate([name, *words])
    prepare(call)
    composed(call, [*call.overrides, f"++command={name}", "run_dir=runs/any"])


def make_run(folder: Path, config: str) -> None:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints/last.ckpt").touch()
    (folder / "config.yaml").write_text(values_of(config))


@cache
def values_of(config: str) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(composed_alone(config)))


def help_of(name: str, words: list[str]) -> str:
    """What the command prints with ``--help``, of the part that the words choose."""
    part = ["--task", words[words.index("--task") + 1]] if "--task" in words else []
    part += [word for word in words if word in ("push", "pull")]
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        import_module(f"hiera_video.commands.{COMMANDS[name]}").run([*part, "--help"])
    return text.getvalue()


@pytest.mark.parametrize("command", [c for c in ALL if not c.ours], ids=named)
def test_others(command):
    if command.needs:
        return
    match [word for word in command.words if "=" not in word or word.startswith("-")]:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["python" | "python3", "-m", "venv", _]:
            pass
        case ["python" | "python3", "-m", module, *options]:
            check_script(ROOT / f"{module.replace('.', '/')}.py", options)
        case ["python" | "python3", script, *options]:
            check_script(ROOT / script, options)
        case [pip, "install", *packages] if pip.endswith("pip"):
            check_packages(packages)
        case other:
            pytest.fail(f"{other}: say what it needs: <!-- needs: ... --> before the block")


def check_script(script: Path, options: list[str]) -> None:
    text = script.read_text()
    assert not [option for option in options if option.startswith("--") and option not in text]


def check_packages(packages: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if packages[0] == "-c":
        assert (ROOT / packages[1]).exists()
        packages = packages[2:]
    for package in packages:
        _, _, extra = package.strip("'").rstrip("]").partition("[")
        assert not extra or extra in project["optional-dependencies"]


@pytest.mark.parametrize("command", [c for c in ALL if c.ours and not c.inline], ids=named)
def test_a_data_set_that_one_must_have_is_named(command):
    config = re.search(r"--config (\S+)|runs/(\S+)/RUN", command.text)
    if config and (config[1] or config[2]).startswith(DATA_SETS):
        assert command.needs, f"put <!-- needs: ... --> before the block of {command.text}"


def test_links_of_the_readme_lead_somewhere():
    for path, anchor in re.findall(r"\]\((?!http)([^)#]+)#?([^)]*)\)", PAGES[0].read_text()):
        text = (ROOT / path).read_text() if path.endswith(".md") else ""
        assert (ROOT / path).exists(), path
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        anchors = [
            re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings
        ]
        assert not anchor or anchor in anchors, f"{path}#{anchor}"
