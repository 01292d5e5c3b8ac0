"""Our words and Hydra's: ``fit --config demo/pretrain data.seed=1`` <-> flags and overrides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hiera_video.spelling import did_you_mean

RUN_COMMANDS = ("fit", "validate", "test", "predict")
# Hydra's own flags that come with a word of their own; where words are named, it may be left out.
FLAGS_WITH_VALUE = {
    "--cfg": ("job", "hydra", "all"),
    "-c": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": (),
    "-p": (),
    "--config-dir": (),
    "-cd": (),
}
FLAGS = (*FLAGS_WITH_VALUE, "--multirun", "-m", "--resolve", "--hydra-help", "--version")
_HERE = Path(__file__).parents[1]


class UsageError(Exception):
    """One line for the user, and the exit code: 2 = wrong usage or input, 1 = the work failed."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def conf_dir() -> Path:
    """The shipped configurations: inside the package when installed, beside it in a checkout."""
    return next(path for path in (_HERE / "conf", _HERE.parent / "conf") if path.is_dir())


def configs() -> dict[str, Path]:
    """Names that ``--config`` takes, and their files."""
    root = conf_dir() / "experiment"
    files = sorted(root.rglob("*.yaml"))
    return {str(path.relative_to(root).with_suffix("")): path for path in files}


@dataclass
class HydraCall:
    """A command in Hydra's terms.

    Attributes:
        command: one of RUN_COMMANDS.
        config: as given: a name or a file.
        config_flags: what names the configuration on Hydra's command line.
        flags: flags of Hydra's that were given.
        overrides: ``key=value`` words.
        inputs: files to predict.
    """

    command: str
    config: str
    config_flags: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)

    @property
    def argv(self) -> list[str]:
        """All of it for ``hydra.main``."""
        extra = [f"++command={self.command}"]
        if self.inputs:
            extra.append(f"++data.predict=[{','.join(map(quote, self.inputs))}]")
        return [*self.config_flags, *self.flags, *self.overrides, *extra]


def quote(text: str) -> str:
    """A value that Hydra's override grammar reads back as ``text``, whatever is in it."""
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)  # a backslash escapes only before a quote ...
    text = re.sub(r"(\\+)$", r"\1\1", text)  # ... such as the closing one
    return '"' + text.replace("${", "\\${") + '"'


def translate(words: Sequence[str]) -> HydraCall:
    """Sort the words of a command into flags, overrides and inputs.

    Raises:
        UsageError: a word that means nothing here, or no ``--config``.
    """
    command, rest = words[0], list(words[1:])
    call = HydraCall(command, config="")
    while rest:
        word = rest.pop(0)
        if word == "--":
            call.inputs += rest
            break
        if word == "--config" or word.startswith("--config="):
            call.config = word.partition("=")[2] or (rest.pop(0) if rest else "")
        elif command == "predict" and _exists(word):
            call.inputs.append(word)
        elif word.startswith("-"):
            if word.partition("=")[0] not in FLAGS:
                raise UsageError(f"no flag {word!r}{did_you_mean(word, FLAGS)}")
            call.flags.append(word)
            values = FLAGS_WITH_VALUE.get(word)
            if rest and values is not None and (not values or rest[0] in values):
                call.flags.append(rest.pop(0))
        elif "=" in word or word.startswith("~"):
            call.overrides.append(word)
        else:
            raise UsageError(_meaningless(command, word))
    if not call.config:
        raise UsageError(
            f"{command} needs --config NAME_OR_FILE; `hiera-video configs ls` lists names"
        )
    path = configs().get(call.config)
    if path is not None:
        call.config_flags = ["--config-name", f"experiment/{call.config}"]
    elif Path(call.config).is_file():
        # The file's folder becomes the primary one, so that nothing of ours can hide it.
        path = Path(call.config).resolve()
        call.config_flags = ["--config-path", str(path.parent), "--config-name", path.name]
        call.overrides = _with_ours_on_the_search_path(call.overrides)
    else:
        hint = did_you_mean(call.config, configs())
        raise UsageError(f"no configuration or file {call.config!r}{hint}")
    return call


def _with_ours_on_the_search_path(overrides: list[str]) -> list[str]:
    """The overrides, with our folder first among those that Hydra searches."""
    key, ours = "hydra.searchpath=", quote(f"file://{conf_dir()}")
    given = [word for word in overrides if word.startswith(key)]
    folders = given[-1].removeprefix(key).strip("[]") if given else ""
    if ours not in folders:
        folders = f"{ours},{folders}".rstrip(",")
    return [f"{key}[{folders}]", *(word for word in overrides if word not in given)]


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # too long for a path, as a list of many files is
        return False


def _meaningless(command: str, word: str) -> str:
    if command == "predict":
        return f"{word}: no such file or folder"
    return f"{word!r} is neither key=value nor a flag"


def run_help(command: str) -> str:
    """Help for one of RUN_COMMANDS."""
    lines = {
        "fit": "train; resume=auto continues, task.init_from=FILE starts from weights",
        "validate": "evaluate on the validation split",
        "test": "evaluate the test split with all views; resume=auto goes on after one cut off",
        "predict": "name the classes of video files and folders; writes JSON lines to out=FILE\n"
        "action detection: boxes=detector, FILE.csv or full_frame is where persons are; out=DIR",
    }
    videos = " VIDEO_OR_FOLDER..." if command == "predict" else ""
    checkpoint = "" if command == "fit" else " ckpt_path=FILE"
    return (
        f"usage: hiera-video {command} --config NAME_OR_FILE{checkpoint} [key=value ...]{videos}\n"
        "\n"
        f"{lines[command]}\n\n"
        "  --cfg job          print the configuration and stop\n"
        "  --multirun         run once for every combination of key=a,b,...\n\n"
        "configurations:\n" + "\n".join(f"  {name}" for name in configs())
    )
