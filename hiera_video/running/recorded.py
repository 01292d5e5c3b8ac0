"""The configuration that a run recorded in its folder, read without making anything of it."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.errors import DatasetError
from hiera_video.errors import UsageError
from hiera_video.running.compose import SECTIONS, register_resolvers
from hiera_video.running.folders import config_file


class RecordedConfig(NamedTuple):
    """``config.yaml`` of a run.

    Attributes:
        text: the file as it is.
        values: its sections as plain values. References between keys are resolved; a section with a
            reference that cannot be resolved keeps all of them as they are.
    """

    text: str
    values: dict[str, Any]


def recorded_config(folder: Path) -> RecordedConfig | None:
    """Read ``config.yaml`` of a run; None if there is none.

    Args:
        folder: of the run, which ``${run_dir}`` stands for.

    Raises:
        UsageError: the file is not a configuration.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8")
        config: Any = OmegaConf.create(text)
        given = OmegaConf.create({"run_dir": str(folder), "ckpt_path": None, "out": None})
        config = OmegaConf.merge(given, config)
    except (UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"{file}: not a configuration ({str(error).splitlines()[0]})") from error
    register_resolvers()
    values: Any = OmegaConf.to_container(config, resolve=False)
    for name in SECTIONS:
        with suppress(OmegaConfBaseException):
            section = config.get(name)
            resolved = OmegaConf.is_config(section)
            values[name] = OmegaConf.to_container(section, resolve=True) if resolved else section
    return RecordedConfig(text, {name: values[name] for name in SECTIONS if name in values})


@contextmanager
def moved_root_named(config: DictConfig, checkpoint: Path | None) -> Iterator[None]:
    """Have the error of data that are not found say where they were when the run was trained.

    Args:
        config: the whole configuration.
        checkpoint: of the run whose data are read; None for weights without a run.

    Raises:
        DatasetError: the error, whose line also has the ``data.root`` to set.
    """
    try:
        yield
    except DatasetError as error:
        root = config.data.get("root")
        run = checkpoint and config_file(checkpoint)
        started = run and started_in(run.parent)
        if root is None or started is None or Path(root).exists():
            raise
        if not (there := started / root).exists():
            raise
        raise DatasetError(
            f"{error}; the run was trained in {started}: {shlex.quote(f'data.root={there}')}"
        ) from error


def started_in(run: Path) -> Path | None:
    """The current folder of the command that last trained a run; None if that is not known."""
    try:
        return Path(json.loads((run / "run.json").read_text())[-1]["cwd"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
