"""From an exception that a user caused to one clear line."""

import re
from collections.abc import Iterator

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamodules.decoding import VideoDecodeError
from datamodules.manifest import DatasetError
from hiera_video.command_line import HydraCall, UsageError, conf_dir, did_you_mean
from hiera_video.models.checkpoints import CheckpointError

# Their message is written for users as it is.
OWN_ERRORS = (DatasetError, VideoDecodeError, CheckpointError, MisconfigurationException)


def explain(error: BaseException, call: HydraCall) -> UsageError | None:
    """What to tell the user; None for an error that is a bug and wants its traceback."""
    if isinstance(error, UsageError):
        return error
    if isinstance(error, OWN_ERRORS):
        # A worker's error arrives with the worker's traceback in front.
        code = 1 if isinstance(error, VideoDecodeError) else 2
        return UsageError(_last_line(error), code)
    if isinstance(error, InstantiationException):
        return UsageError(_instantiation(error))
    if isinstance(error, MissingConfigException):
        return UsageError(_missing_group(error))
    if isinstance(error, (ConfigCompositionException, OmegaConfBaseException)):
        return UsageError(_wrong_key(error, call))
    if isinstance(error, (OverrideParseException, HydraException)):
        return UsageError(_one_line(error))
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1]


def _instantiation(error: InstantiationException) -> str:
    """``data: batch_size must be positive, not 0``: the section and the constructor's own words."""
    key = re.search(r"full_key: (\S+)", str(error))
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    section = f"{key.group(1)}: " if key else ""
    # "Error in call to target '...': TypeError(...)" repeats the cause.
    text = _one_line(cause).partition(" full_key: ")[0]
    unexpected = re.search(r"(\S+)\(\) got an unexpected keyword argument '(\w+)'", text)
    return section + (f"no such key {unexpected.group(2)!r}" if unexpected else text)


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
        return (f"{key.group(1)}: " if key else "") + str(error).strip().splitlines()[0]
    key = found.group(1)
    cause = error.__cause__
    if cause is not None and "is not in struct" not in str(cause) and key in _keys_of(call):
        return f"{key}: {str(cause).splitlines()[0]}"
    keys = _keys_of(call)
    same_name = [k for k in keys if k.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"; did you mean {' or '.join(same_name[:3])}?" if same_name else did_you_mean(key, keys)
    return f"no key {key!r} in {call.config}{hint or '; --cfg job prints all keys'}"


def _keys_of(call: HydraCall) -> list[str]:
    """All keys of the configuration as it is without overrides."""
    GlobalHydra.instance().clear()
    name = call.flags[call.flags.index("--config-name") + 1]
    folder = str(conf_dir())
    overrides = []
    if "--config-path" in call.flags:
        folder = call.flags[call.flags.index("--config-path") + 1]
        overrides = [word for word in call.overrides if word.startswith("hydra.searchpath")]
    with initialize_config_dir(folder, version_base="1.3"):
        return list(_flatten(compose(name, overrides)))


def _flatten(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in config:
        yield f"{prefix}{key}"
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, str(key)):
            continue
        if isinstance(config[key], DictConfig):
            yield from _flatten(config[key], f"{prefix}{key}.")
