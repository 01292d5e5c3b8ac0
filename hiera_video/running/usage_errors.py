"""Turn errors of a run that the user can fix into one clear line each."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from hiera_video.errors import SILENT_PROCESS, LostProcess, UsageError, UserError, as_user_error
from hiera_video.running.overrides import (
    arguments,
    config_groups,
    default_values,
    section_of,
)
from hiera_video.running.quoting import is_path_key, quote
from hiera_video.running.words import HydraCall
from hiera_video.terminal import did_you_mean

# What Gloo and NCCL say of a process that has gone.
LOST_PROCESS = re.compile("(closed|reset) by peer|remote process exited")


@contextmanager
def explained(call: HydraCall) -> Iterator[None]:
    """Turn an error that the user caused into a UserError; pass any other error on.

    Raises:
        UserError: one line that says what is wrong.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        explanation = explain(error, call)
        if explanation is None:
            raise
        raise explanation from error


def explain(error: BaseException, call: HydraCall) -> UserError | None:
    """The line to show the user; None for a bug, which needs its traceback."""
    if isinstance(error, InstantiationException):
        return UsageError(_instantiation(error))
    if isinstance(error, MissingConfigException):
        return UsageError(_missing_group(error))
    cause: BaseException | None = error
    while isinstance(cause, InterpolationResolutionError):
        cause = cause.__context__
    if isinstance(cause, OSError):  # as the folder of the run cannot be made
        return as_user_error(cause)
    if isinstance(error, (ConfigCompositionException, OmegaConfBaseException)):
        return UsageError(_wrong_key(error, call))
    if isinstance(error, OverrideParseException):
        reason = _one_line(error).partition(" See https")[0]
        hint = _quoted_twice(str(error.override)) or "is a bracket or quote open?"
        return UsageError(f"cannot read {error.override!r}: {reason}; {hint}")
    if isinstance(error, HydraException):
        return UsageError(_one_line(error))
    if isinstance(error, RuntimeError) and LOST_PROCESS.search(str(error)):
        return LostProcess("another process of this run has ended; what it printed says why", 1)
    if isinstance(error, RuntimeError) and SILENT_PROCESS.search(str(error)):
        who = " ".join(getattr(error, "__notes__", ["another process of this run"]))  # StallReport
        return LostProcess(
            f"no answer in the time of trainer.strategy.timeout from {who}: it hangs, or the "
            "network between them is cut; what it printed may say why",
            1,
        )
    # submitit's own errors, of which that of a machine without SLURM has no class.
    if type(error).__module__.startswith("submitit") or 'detect "srun"' in str(error):
        return UsageError(str(error).strip().splitlines()[0], 1)
    if isinstance(error, YAMLError):
        return UsageError(f"{call.config}: {_one_line(error)}")
    return as_user_error(error)


def _quoted_twice(word: str) -> str:
    """How to write ``key=path`` if the path is not that of a file that exists; else nothing."""
    key, _, path = word.partition("=")
    if not is_path_key(key):
        return ""
    return f"a path like this is quoted twice: {shlex.quote(f'{key}={quote(path)}')}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _instantiation(error: InstantiationException) -> str:
    """Say the section and the constructor's words: ``data: batch_size must be positive, not 0``."""
    key = re.search(r"full_key: (\S+)", str(error))
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    section = f"{key.group(1)}: " if key else ""
    target = re.search(r"Error in call to target '([^']+)'", str(error))
    text = _one_line(cause).partition(" full_key: ")[0]
    return section + constructor_error(text, target.group(1) if target else None)


def constructor_error(text: str, target: str | None = None) -> str:
    """Rephrase the message of a constructor for a reader of configurations.

    Args:
        text: the message.
        target: the ``_target_`` of what was made, to suggest one of its arguments.
    """
    unexpected = re.search(r"got an unexpected keyword argument '(\w+)'", text)
    if not unexpected:
        return text
    name = unexpected.group(1)
    return f"no such key {name!r}{did_you_mean(name, arguments(target)) if target else ''}"


def _missing_group(error: MissingConfigException) -> str:
    """Name the missing part: ``no configuration 'data/folders'; did you mean folder?``."""
    if error.options is None or error.missing_cfg_file is None:
        return _one_line(error)
    wanted = str(error.missing_cfg_file)
    options = [name for name in error.options if not name.startswith("_")]
    hint = did_you_mean(wanted.rpartition("/")[2], options)
    if wanted.startswith("hydra/launcher/submitit"):
        hint = ": in the checkout, pip install '.[slurm]' brings it"
    return f"no configuration {wanted!r}{hint or '; there are ' + ', '.join(options)}"


def _wrong_key(error: BaseException, call: HydraCall) -> str:
    """Name the key that does not exist and similar ones that do."""
    if several := re.match(r"Ambiguous value for argument '(.*)'", str(error)):
        word = several.group(1)
        key, _, value = word.partition("=")
        hint = _quoted_twice(word) or f"a list is {key}=[{value}]"
        return f"{word}: these are several values, for --multirun; {hint}"
    override = re.search(r"Could not override '([^']+)'", str(error))
    if override is None:
        key = re.search(r"full_key: (\S+)", str(error))
        reason = str(error).strip().splitlines()[0].partition(" while resolving interpolation: ")
        return (f"{key.group(1)}: " if key else "") + (reason[2] or reason[0])
    key = override.group(1)
    if key in config_groups():  # the configuration of a run, or a copy of one
        return (
            f"{call.config} has its {key} already: +{key}=NAME adds to it; with --config NAME "
            f"resume=RUN, {key}=NAME chooses another"
        )
    values = default_values(call)
    if key in values:
        return f"{key}: {_one_line(error.__cause__ or error)}"
    keys = [k for k in values if not k.rpartition(".")[2].startswith("_")]
    section, name = section_of(key, values)
    if section is not None:
        keys += [f"{section}.{argument}" for argument in arguments(values[f"{section}._target_"])]
    keys = list(dict.fromkeys(keys))
    same_name = [k for k in keys if k.rpartition(".")[2] == name]
    hint = f"; did you mean {' or '.join(same_name[:3])}?" if same_name else did_you_mean(key, keys)
    return f"no key {key!r} in {call.config}{hint or '; --cfg job prints all keys'}"
