"""``key=value`` words, compared with the configuration and with what its classes take."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.configurations import conf_dir
from hiera_video.running.words import HydraCall


def default_values(call: HydraCall) -> dict[str, Any]:
    """All keys and values of the configuration with no override but choices of its parts."""
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()}

    def is_choice(word: str) -> bool:
        key = word.lstrip("+~").partition("=")[0]
        if key == "hydra.searchpath":
            return True
        # Of a sweep over choices, the configuration's own choice must do.
        return key.partition("@")[0].partition("/")[0] in groups and "," not in word

    overrides = [word for word in call.overrides if is_choice(word)]
    config = OmegaConf.to_container(composed(call, overrides), resolve=False)
    return dict(_flatten(config))


def composed(call: HydraCall, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a call with these overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(call.config_dir, version_base="1.3"):
        return compose(call.config_name, list(overrides))


def _flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")


def with_plus(words: Sequence[str], values: dict[str, Any]) -> list[str]:
    """The words, with Hydra's ``+`` before those that name an argument without a value so far.

    Args:
        words: overrides.
        values: all keys and values of the configuration.

    Raises:
        UsageError: text is given for a number or a switch.
    """
    plain = [word for word in words if not word.startswith(("~", "+", "hydra"))]
    new = set()
    for word, override in zip(plain, OverridesParser.create().parse_overrides(plain), strict=True):
        key = override.key_or_group
        if key in values:
            if not override.is_sweep_override():
                _check_kind(key, override.value(), values[key])
        elif override.package is None and is_argument(key, values):
            new.add(word)
    return [f"+{word}" if word in new else word for word in words]


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Refuse text in place of a number or a switch."""
    if not isinstance(value, (str, QuotedString)) or "${" in str(value):
        return
    if isinstance(default, bool):
        raise UsageError(f"{key}: expected true or false, not {value!r}")
    if isinstance(default, (int, float)):
        raise UsageError(f"{key}: expected a number like {default}, not {value!r}")


def is_argument(key: str, values: dict[str, Any]) -> bool:
    """Whether a key, or what it is a part of, is an argument of its section's class."""
    section, name = section_of(key, values)
    return section is not None and name.partition(".")[0] in arguments(
        values[f"{section}._target_"]
    )


def section_of(key: str, values: dict[str, Any]) -> tuple[str | None, str]:
    """The innermost section above a key that is made by a ``_target_``, and the key in it."""
    section, name = key, ""
    while section:
        section, _, last = section.rpartition(".")
        name = f"{last}.{name}" if name else last
        if values.get(f"{section}._target_"):
            return section, name
    return None, key


def arguments(target: str) -> list[str]:
    """Names of what the function or class that a ``_target_`` names takes.

    Where a function passes keywords on (``**overrides``), what it returns takes them; where a class
    does, its base classes take them.
    """
    function: Any = get_object(target)
    names: list[str] = []
    if not isinstance(function, type):
        signature = inspect.signature(function, eval_str=True)
        names = _keywords(signature)
        function = signature.return_annotation
        if not _passes_on(signature) or not isinstance(function, type):
            return names
    for owner in function.__mro__:
        if "__init__" not in vars(owner):
            continue
        signature = inspect.signature(owner.__init__)
        names += _keywords(signature)
        if not _passes_on(signature):
            break
    return list(dict.fromkeys(names))


def _keywords(signature: inspect.Signature) -> list[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in signature.parameters.values() if p.kind in named and p.name != "self"]


def _passes_on(signature: inspect.Signature) -> bool:
    return any(p.kind == inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
