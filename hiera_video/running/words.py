"""Translate our command line, ``fit --config demo/pretrain data.seed=1``, to Hydra's and back."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from datamodules.video.live_source import is_live
from hiera_video.errors import UsageError
from hiera_video.running.configurations import conf_dir, configurations
from hiera_video.running.folders import config_file, is_run
from hiera_video.running.quoting import path_exists, quote, quoted_path, unquoted
from hiera_video.running.sweeps import best_job, is_sweep
from hiera_video.terminal import did_you_mean

RUN_COMMANDS = ("fit", "validate", "test", "predict")
# Hydra's flags that take a value. Where values are listed, the value may be left out.
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
FROM_CHECKPOINT = "checkpoint"  # Hydra's name for a configuration read from a checkpoint


@dataclass
class HydraCall:
    """A command in Hydra's terms.

    Attributes:
        command: one of RUN_COMMANDS.
        config: the configuration as the user wrote it: a name, a file or a run.
        is_run: whether the folder or a checkpoint of a run was given in place of ``--config``.
        config_flags: Hydra's flags that select the configuration.
        flags: Hydra's other flags that the user gave.
        overrides: ``key=value`` words.
        inputs: video files and folders to predict.
        default_values: see `overrides.default_values`, which takes long and keeps them here.
    """

    command: str
    config: str = ""
    is_run: bool = False
    config_flags: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    default_values: dict[str, Any] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        """All words, for ``hydra.main``."""
        extra = [f"++command={self.command}"]
        if self.inputs:
            extra.append(f"++data.predict=[{','.join(map(quote, self.inputs))}]")
        return [*self.config_flags, *self.flags, *self.overrides, *extra]

    @property
    def config_words(self) -> list[str]:
        """The words that select the configuration on our own command line."""
        # A run is the value of resume= or ckpt_path=, among the overrides.
        return [] if self.is_run else ["--config", self.config]

    @property
    def own_name(self) -> str:
        """The word that names a run after its configuration."""
        is_ours = self.config in configurations()
        return f"name={quote(self.config if is_ours else Path(self.config).stem)}"

    @property
    def config_dir(self) -> str:
        """The folder that Hydra reads the configuration from."""
        if "--config-path" in self.config_flags:
            return self.config_flags[self.config_flags.index("--config-path") + 1]
        return str(conf_dir())

    @property
    def config_name(self) -> str:
        """Name of the configuration in `config_dir`."""
        return self.config_flags[self.config_flags.index("--config-name") + 1]

    @property
    def searched_folders(self) -> list[str]:
        """The folder that ``--config-dir`` names, if any."""
        for flag, following in pairwise([*self.flags, ""]):
            name, _, folder = flag.partition("=")
            if name in ("--config-dir", "-cd"):
                return [str(Path(folder or following).absolute())]
        return []

    def value(self, key: str) -> str | None:
        """The value, as text, of the last override of a key; None if there is none."""
        texts = [word.partition("=")[2] for word in self.overrides if word.startswith(f"{key}=")]
        return unquoted(texts[-1]) if texts else None


def translate(words: Sequence[str]) -> HydraCall:
    """Sort the words of a command into flags, overrides and inputs, and find its configuration.

    Raises:
        UsageError: a word that is none of these, or no configuration.
    """
    call, paths = _sorted_words(words)
    if not call.config:
        _take_run(call, paths)
    if call.command == "predict":
        call.inputs = paths + call.inputs
    elif paths:
        raise UsageError(f"{paths[0]!r} is neither key=value nor a flag; use ckpt_path={paths[0]}")
    _find_config(call)
    return call


def _sorted_words(words: Sequence[str]) -> tuple[HydraCall, list[str]]:
    """The call, except for ``config_flags``, and the words that are paths."""
    call, rest = HydraCall(words[0]), list(words[1:])
    paths: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            call.inputs = rest
            break
        if word == "--config" or word.startswith("--config="):
            call.config = word.partition("=")[2] or (rest.pop(0) if rest else "")
        elif call.command != "fit" and _is_path(word, call.command):
            paths.append(word)
        elif word.startswith("-"):
            if word.partition("=")[0] not in FLAGS:
                raise UsageError(f"no flag {word!r}{did_you_mean(word, FLAGS)}")
            call.flags.append(word)
            values = FLAGS_WITH_VALUE.get(word)
            if rest and values is not None and (not values or rest[0] in values):
                call.flags.append(rest.pop(0))
        elif "=" in word or word.startswith("~"):
            call.overrides.append(quoted_path(_with_home(word)))
        else:
            raise UsageError(_meaningless(call.command, word))
    return call, paths


def _take_run(call: HydraCall, paths: list[str]) -> None:
    """Take the configuration from a run, where none is named; removes the run from ``paths``.

    Raises:
        UsageError: no run is named, or there is no such run.
    """
    key = "resume" if call.command == "fit" else "ckpt_path"
    run = call.value(key)
    if call.command != "fit" and run is None and paths and _is_trained(Path(paths[0])):
        run = paths.pop(0)
        call.overrides.append(f"{key}={quote(run)}")
    if run is None and paths and _is_weights(paths[0]):
        raise UsageError(_weights_alone(call.command, paths[0]))
    if run is None and paths and call.command != "predict":
        raise UsageError(f"{paths[0]}: neither the folder of a training run nor a checkpoint")
    if run in (None, "auto", "null"):
        needed = "--config NAME_OR_FILE, or resume=RUN to continue a run"
        if call.command != "fit":
            needed = "a run folder or checkpoint, or --config NAME_OR_FILE"
        if paths:
            needed += f", and {paths[0]} is neither a run nor a checkpoint"
        raise UsageError(f"{call.command} needs {needed}; `hiera-video configs ls` lists names")
    if call.command != "fit" and is_sweep(Path(run)):
        run = str(best_job(Path(run))[0])
    if not is_run(Path(run)):
        raise UsageError(f"{run}: no run folder or checkpoint")
    call.config, call.is_run = run, True


def _find_config(call: HydraCall) -> None:
    """Set the flags that select the configuration.

    Raises:
        UsageError: an unknown configuration.
    """
    if not call.is_run and call.config in configurations():
        call.config_flags = ["--config-name", f"experiment/{call.config}"]
        return
    file = Path(call.config)
    if call.command != "fit" and is_run(file.parent) and not call.is_run:
        weights = ("ckpt_path", "task.init_from")
        if file.name == "config.yaml" and not any(call.value(key) for key in weights):
            raise UsageError(
                f"{file} is the configuration of a run without its weights; give the run in its "
                f"place: {call.command} {file.parent}"
            )
    if is_run(file):
        if (file := config_file(file)) is None:
            call.config_flags = ["--config-name", FROM_CHECKPOINT]
            return
    elif not file.is_file():
        hint = did_you_mean(call.config, configurations())
        raise UsageError(f"no configuration or file {call.config!r}{hint}")
    elif file.suffix != ".yaml":  # Hydra finds no others
        raise UsageError(f"{file}: the name of a configuration must end in .yaml")
    # Its folder becomes the primary one, so that no configuration of ours can hide the file.
    file = file.resolve()
    call.config_flags = ["--config-path", str(file.parent), "--config-name", file.name]
    call.overrides = with_searched_folders(call.overrides, [str(conf_dir())])


def with_searched_folders(overrides: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Put these folders first on Hydra's search path, by an override."""
    if not folders:
        return list(overrides)
    key, added = "hydra.searchpath=", [quote(f"file://{folder}") for folder in folders]
    search_paths = [word for word in overrides if word.startswith(key)]
    searched = search_paths[-1].removeprefix(key).strip("[]") if search_paths else ""
    searched = ",".join([*(f for f in added if f not in searched), *filter(None, [searched])])
    return [f"{key}[{searched}]", *(word for word in overrides if word not in search_paths)]


def _with_home(word: str) -> str:
    """Expand a ``~`` that begins a value, which a shell leaves as it is in a word like ours."""
    key, equals, value = word.partition("=")
    return key + equals + os.path.expanduser(value) if f"{value}/".startswith("~/") else word


def _is_path(word: str, command: str) -> bool:
    """Whether a word is a path: a video to predict, or a run; not an override of the same name."""
    if command == "predict" and is_live(word):  # an address may have a "=", too
        return True
    return path_exists(word) and (
        "=" not in word or command == "predict" or _is_trained(Path(word))
    )


def _is_trained(path: Path) -> bool:
    """Whether a path is a run, a checkpoint of one, or the folder of a sweep."""
    return is_run(path) or is_sweep(path)


def _meaningless(command: str, word: str) -> str:
    if command != "fit" and _is_weights(word):
        return _weights_alone(command, word)
    if command == "predict":
        is_pattern = any(character in word for character in "*?[")
        hint = "; without quotes, the shell finds the files that match it" if is_pattern else ""
        if "://" in word:
            hint = "; a stream has an rtsp:// or http:// address"
        return f"{word}: no such file or folder{hint}"
    if path_exists(word) and is_run(Path(word)):
        return f"{word!r} is a run: continue it with `fit {shlex.quote(f'resume={word}')}`"
    if command != "fit":
        return f"{word}: no such run folder or checkpoint"
    if word in configurations():
        return f"{word!r} is a configuration: --config {word}"
    return f"{word!r} is neither key=value nor a flag"


def _is_weights(word: str) -> bool:
    """Whether a word is a published name, or a folder that an export or transformers wrote."""
    if path_exists(word):
        return (Path(word) / "model.safetensors").is_file()
    from hiera_video.models.names import CHECKPOINTS

    return word in CHECKPOINTS


def _weights_alone(command: str, weights: str) -> str:
    others = ""
    if command == "predict" and (
        not path_exists(weights) or (Path(weights) / "model.json").is_file()
    ):
        others = "; `embed`, `explain` and hiera_video.load take it as it is"
    return (
        f"{weights}: weights without the configuration of a run; use {command} --config NAME "
        f"{shlex.quote(f'task.init_from={weights}')}{others}"
    )
