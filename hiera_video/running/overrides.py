"""Check ``key=value`` words against the configuration and the arguments of its classes."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pkgutil import resolve_name
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from omegaconf import DictConfig, OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.configurations import conf_dir
from hiera_video.running.signatures import NotReadable, argument_names
from hiera_video.running.words import HydraCall, with_searched_folders
from hiera_video.terminal import did_you_mean

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def default_values(call: HydraCall) -> dict[str, Any]:
    """All keys of the configuration and their values before ``key=value`` words apply.

    Choices of parts, such as ``data=folder``, and of classes do apply: they decide which keys there
    are.

    Raises:
        UsageError: a part is chosen to be null.
    """
    if call.default_values:
        return call.default_values
    groups = config_groups()

    def is_choice(word: str) -> bool:
        key = word.lstrip("+~").partition("=")[0]
        if key == "hydra.searchpath" or _is_class(key):
            return True
        # In a sweep over choices, the configuration's own choice stands for all of them.
        return key.partition("@")[0].partition("/")[0] in groups and "," not in word

    overrides = [_with_new_part(word) for word in call.overrides if is_choice(word)]
    if nothing := [w for w in overrides if w.endswith("=null") and "." not in w]:
        raise UsageError(f"{nothing[0]}: a run needs this part; name one of its kind")
    config = OmegaConf.to_container(composed(call, overrides), resolve=False)
    call.default_values = dict(_flatten(config))
    return call.default_values


def config_groups() -> set[str]:
    """Folders of parts that a configuration chooses from: ``data``, ``model``, ..."""
    return {path.name for path in conf_dir().iterdir() if path.is_dir()}


def composed(call: HydraCall, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a call with these overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(call.config_dir, version_base="1.3"):
        return compose(call.config_name, with_searched_folders(overrides, call.searched_folders))


def _flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")


def with_plus(words: Sequence[str], values: dict[str, Any]) -> list[str]:
    """Put Hydra's ``++`` before words that set what the configuration does not mention.

    That may be an argument of a class, or the class of a new part, such as another callback.

    Args:
        words: overrides.
        values: all keys and values of the configuration.

    Returns:
        All words, in the same order.

    Raises:
        UsageError: a word gives text in place of a number or a switch, or adds a key that nothing
            reads.
    """
    words = list(map(_with_new_part, words))
    _check_added(words, values)
    plain = [word for word in words if not word.startswith(("~", "+", "hydra"))]
    new = set()
    for word, override in zip(plain, OverridesParser.create().parse_overrides(plain), strict=True):
        key = override.key_or_group
        if key in values:
            if not override.is_sweep_override():
                _check_kind(key, override.value(), values[key])
        elif override.package is None and is_argument(key, values):
            new.add(word)
    return [f"++{word}" if word in new else word for word in words]


def _with_new_part(word: str) -> str:
    """Put ``++`` before the class of a part, which may be one that the configuration lacks."""
    return f"++{word}" if _is_class(word.partition("=")[0]) else word


def _is_class(key: str) -> bool:
    """Whether a key, without a prefix, names the class of a part."""
    return key.partition(".")[0] in config_groups() and key.endswith("._target_")


def _check_added(words: Sequence[str], values: dict[str, Any]) -> None:
    """Refuse ``+key=value`` outside of all sections, unless another word refers to the key."""
    sections = [key for key in values if "." not in key]
    for word in words:
        key = word.lstrip("+").partition("=")[0].partition(".")[0]
        is_choice = "/" in key or "@" in key or key in config_groups()
        if not word.startswith("+") or is_choice or key in (*sections, "hydra"):
            continue
        if not any(f"${{{key}" in text for text in map(str, [*words, *values.values()])):
            raise UsageError(f"{word}: nothing reads the key {key!r}{did_you_mean(key, sections)}")


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Refuse text in place of a number or a switch."""
    if not isinstance(value, (str, QuotedString)) or "${" in str(value):
        return
    if isinstance(default, bool):
        raise UsageError(f"{key}: expected true or false, not {value!r}")
    if isinstance(default, (int, float)):
        raise UsageError(f"{key}: expected a number like {default}, not {value!r}")


def is_argument(key: str, values: dict[str, Any]) -> bool:
    """Whether a key is an argument of its section's class."""
    section, name = section_of(key, values)
    return section is not None and name in arguments(values[f"{section}._target_"])


def section_of(key: str, values: dict[str, Any]) -> tuple[str | None, str]:
    """Split a key into the innermost section with a ``_target_``, None if none, and the rest."""
    section, name = key, ""
    while section:
        section, _, last = section.rpartition(".")
        name = f"{last}.{name}" if name else last
        if values.get(f"{section}._target_"):
            return section, name
    return None, key


def arguments(target: str) -> list[str]:
    """Names of the arguments of a ``_target_``, a class or a function.

    Keywords that a function passes on (``**overrides``) are arguments of the class that it returns;
    those that a class passes on are arguments of its base classes. What cannot be imported or
    inspected has none here; making it will say what is wrong with it.
    """
    with suppress(NotReadable):
        return argument_names(target)
    try:
        return list(parameters(resolve_name(target)))
    except Exception:  # an import runs any code
        return []


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function by name, those of what it passes keywords on to too.

    Raises:
        TypeError, ValueError, NameError: it has no signature that can be read.
    """
    signatures = []
    if not isinstance(function, type):
        signatures.append(inspect.signature(function, eval_str=True))
        function = signatures[0].return_annotation
    if isinstance(function, type) and all(map(_passes_on, signatures)):
        for owner in function.__mro__:
            if "__init__" in vars(owner):
                signatures.append(inspect.signature(owner.__init__))
                if not _passes_on(signatures[-1]):
                    break
    refused = {"self", *getattr(function, "REFUSED", ())}
    by_name: dict[str, inspect.Parameter] = {}
    for signature in signatures:
        for name, parameter in signature.parameters.items():
            if parameter.kind in NAMED and name not in refused:
                by_name.setdefault(name, parameter)
    return by_name


def _passes_on(signature: inspect.Signature) -> bool:
    return any(p.kind == inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
