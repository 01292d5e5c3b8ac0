"""From an exception that a user caused to one clear line."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hiera_video.running.words import HydraCall, UsageError, conf_dir
from hiera_video.spelling import did_you_mean

FAILED = ("VideoDecodeError", "TooManyBadVideos")
WRONG_INPUT = (
    "DatasetError",
    "CheckpointError",
    "PredictionFileError",
    "MisconfigurationException",
)


def explain(error: BaseException, call: HydraCall) -> UsageError | None:
    """What to tell the user; None for an error that is a bug and wants its traceback."""
    if isinstance(error, UsageError):
        return error
    if isinstance(error, InstantiationException):
        return UsageError(_instantiation(error))
    if isinstance(error, MissingConfigException):
        return UsageError(_missing_group(error))
    if isinstance(error, (ConfigCompositionException, OmegaConfBaseException)):
        return UsageError(_wrong_key(error, call))
    if isinstance(error, OverrideParseException):
        reason = _one_line(error).partition(" See https")[0]
        return UsageError(f"cannot read {error.override!r}: {reason}; is a bracket or quote open?")
    if isinstance(error, HydraException):
        return UsageError(_one_line(error))
    if isinstance(error, YAMLError):
        return UsageError(f"{call.config}: {_one_line(error)}")
    if isinstance(error, OSError) and error.filename is not None:
        return UsageError(f"{error.filename}: {error.strerror}", 1)
    return written_for_users(error)


def written_for_users(error: BaseException) -> UsageError | None:
    """Errors of the work itself whose message is one line for the user as it is."""
    # By name: what raised them is imported, and nothing else need be.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if not kinds & {*FAILED, *WRONG_INPUT}:
        return None
    return UsageError(str(error).strip().splitlines()[-1], 1 if kinds & set(FAILED) else 2)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _instantiation(error: InstantiationException) -> str:
    """``data: batch_size must be positive, not 0``: the section and the constructor's own words."""
    key = re.search(r"full_key: (\S+)", str(error))
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    section = f"{key.group(1)}: " if key else ""
    return section + constructor_error(_one_line(cause).partition(" full_key: ")[0])


def constructor_error(text: str) -> str:
    """A constructor's complaint in the words of a configuration."""
    unexpected = re.search(r"got an unexpected keyword argument '(\w+)'", text)
    return f"no such key {unexpected.group(1)!r}" if unexpected else text


def check_values(call: HydraCall) -> None:
    """Compare the given values with the kind of value that is there.

    Raises:
        UsageError: text is given for a number or a switch.
    """
    words = [word for word in call.overrides if not word.startswith(("~", "hydra"))]
    if not words:
        return
    values = _values_of(call)
    for override in OverridesParser.create().parse_overrides(words):
        key, given = override.key_or_group, override.value()
        before = None if override.is_sweep_override() else values.get(key)
        is_text = isinstance(given, (str, QuotedString)) and "${" not in str(given)
        if is_text and isinstance(before, bool):
            raise UsageError(f"{key}: expected true or false, not {given!r}")
        if is_text and isinstance(before, (int, float)):
            raise UsageError(f"{key}: expected a number like {before}, not {given!r}")


def _missing_group(error: MissingConfigException) -> str:
    """``no configuration data/folders; did you mean folder?``"""
    if error.options is None or error.missing_cfg_file is None:
        return _one_line(error)
    wanted = str(error.missing_cfg_file)
    hint = did_you_mean(wanted.rpartition("/")[2], error.options)
    return f"no configuration {wanted!r}{hint or '; there are ' + ', '.join(error.options)}"


def _wrong_key(error: BaseException, call: HydraCall) -> str:
    """Name the key that does not exist and the nearest ones that do."""
    found = re.search(r"Could not override '([^']+)'", str(error))
    if found is None:
        key = re.search(r"full_key: (\S+)", str(error))
        reason = str(error).strip().splitlines()[0].partition(" while resolving interpolation: ")
        return (f"{key.group(1)}: " if key else "") + (reason[2] or reason[0])
    key, keys = found.group(1), _values_of(call)
    if key in keys:
        return f"{key}: {_one_line(error.__cause__ or error)}"
    section, _, name = key.rpartition(".")
    arguments = _arguments(keys.get(f"{section}._target_"))
    if name in arguments:
        return f"{key} has no value in {call.config}; to give it one, write +{key}=..."
    keys = {k: v for k, v in keys.items() if not k.rpartition(".")[2].startswith("_")}
    keys |= {f"{section}.{argument}": None for argument in arguments}
    same_name = [k for k in keys if k.rpartition(".")[2] == name]
    hint = f"; did you mean {' or '.join(same_name[:3])}?" if same_name else did_you_mean(key, keys)
    return f"no key {key!r} in {call.config}{hint or '; --cfg job prints all keys'}"


# What passes its arguments on.
_CLASS_OF = {
    "hiera_video.models.zoo.create_model": "hiera_video.models.hiera.Hiera",
    "hiera_video.models.zoo.create_mae": "hiera_video.models.mae.MaskedAutoencoderHiera",
}


def _arguments(target: str | None) -> list[str]:
    """What the constructor of a configuration's section takes."""
    if target is None:
        return []
    found = get_object(_CLASS_OF.get(target, target))
    functions = [c.__init__ for c in found.__mro__] if isinstance(found, type) else [found]
    names = [n for f in functions for n in inspect.signature(f).parameters]
    return [n for n in dict.fromkeys(names) if n not in ("self", "args", "kwargs", "encoder")]


def _values_of(call: HydraCall) -> dict[str, Any]:
    """All keys and values of the configuration when nothing is given on the command line."""
    GlobalHydra.instance().clear()
    name = call.config_flags[call.config_flags.index("--config-name") + 1]
    folder = str(conf_dir())
    if "--config-path" in call.config_flags:
        folder = call.config_flags[call.config_flags.index("--config-path") + 1]
    overrides = [word for word in call.overrides if word.startswith("hydra.searchpath=")]
    with initialize_config_dir(folder, version_base="1.3"):
        config: Any = OmegaConf.to_container(compose(name, overrides), resolve=False)
    return dict(_flatten(config))


def _flatten(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
