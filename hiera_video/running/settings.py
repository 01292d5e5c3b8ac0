"""What can be set in a configuration: the arguments of its classes, with their docstrings."""

import ast
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from textwrap import shorten
from typing import Any

import yaml
from omegaconf import OmegaConf

from hiera_video.running.compose import prepare
from hiera_video.running.overrides import composed
from hiera_video.running.signatures import Argument, NotReadable, described_arguments
from hiera_video.running.usage_errors import explained
from hiera_video.running.words import HydraCall

SECTIONS = ("model", "data", "task")
KEY, VALUE = 30, 24  # characters of a column
# Keys that are set from others, and what to set.
WITHOUT_EFFECT = {
    "task.optimizer": {
        "lr": "set task.lr",
        "weight_decay": "set task.weight_decay",
        "params": "all parameters of the network that need gradients are trained",
    },
    "trainer": {
        "callbacks": "add an entry to callbacks",
        "logger": "add an entry to logger",
        "enable_checkpointing": "set callbacks.recovery=null and callbacks.best=null",
    },
}
# They follow from others.
NOT_SET = {"task.model", "task.recipe", "model.num_classes"}
NOT_SET |= {f"{section}.{key}" for section, keys in WITHOUT_EFFECT.items() for key in keys}
INTERNAL = ("_target_", "_partial_")


def settings(call: HydraCall) -> str:
    """A table of the arguments of model, data and task: key, value, what it is.

    An argument that the configuration does not mention has the default of its class. Nothing is
    imported but what composes the configuration.

    Args:
        call: names the configuration; its overrides apply.

    Raises:
        UsageError: an unknown configuration, or words that do not fit it.
    """
    with explained(call):
        prepare(call)
        config: Any = OmegaConf.to_container(composed(call, call.overrides), resolve=False)
    width = shutil.get_terminal_size((132, 24)).columns
    tables = [line for name in SECTIONS for line in _section(name, config.get(name) or {}, width)]
    title = "key, value and meaning of what can be set as key=value (null stands for None):"
    return "\n".join([title, *tables])


def _section(key: str, values: Mapping[str, Any], width: int) -> Iterator[str]:
    """The lines of a section, then those of the objects in it."""
    target = values.get("_target_")
    arguments: dict[str, Argument] = {}
    with suppress(NotReadable):
        arguments = described_arguments(target or "")
    yield f"\n{key}: {target}"
    for name in dict.fromkeys([*arguments, *values]):
        path, value = f"{key}.{name}", values.get(name)
        if name in INTERNAL or path in NOT_SET or _is_object(value):
            continue
        argument = arguments.get(name, Argument(name, "", ""))
        shown = _on_one_line(value) if name in values else _as_yaml(argument.default)
        text = shorten(
            argument.text.replace("`", ""), max(width - KEY - VALUE - 4, 20), placeholder=" ..."
        )
        yield f"  {path:<{KEY}} {shown:<{VALUE}} {text}".rstrip()
    for name, value in values.items():
        if _is_object(value) and f"{key}.{name}" not in NOT_SET:
            yield from _section(f"{key}.{name}", value, width)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _as_yaml(code: str) -> str:
    """Python code of a value as one writes the value on the command line."""
    try:
        value = ast.literal_eval(code)
    except (ValueError, SyntaxError):  # none, or that of an object
        return code
    return _on_one_line([*value] if isinstance(value, tuple) else value)


def _on_one_line(value: Any) -> str:
    """A value as one writes it on the command line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n...\n").strip()
