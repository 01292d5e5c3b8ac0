"""The configuration that a run recorded in its folder, read without making anything of it."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hiera_video.errors import UsageError
from hiera_video.running.compose import SECTIONS, register_resolvers


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
