"""Check the values of a configuration against the annotations of the classes that take them."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hydra.utils import get_object

from hiera_video.errors import UsageError
from hiera_video.running.overrides import parameters

NUMBERS = (bool, int, float)
# Their entries are parts: objects to be made, or null.
SECTIONS_OF_PARTS = ("callbacks", "logger")
PART = "a part with _target_"


def check_kinds(config: Mapping[str, Any]) -> None:
    """Refuse values that a class cannot take, such as text for a number, before it is made.

    Kinds of numbers are not told apart, and text that an annotation does not mention is left to the
    class: many turn it into what they need.

    Args:
        config: plain values; references, such as ``${seed}``, are not checked.

    Raises:
        UsageError: the first such value; the message has its key.
    """
    for section in SECTIONS_OF_PARTS:
        for name, value in (config.get(section) or {}).items():
            if not isinstance(value, (dict, NoneType)) and not _is_reference(value):
                raise UsageError(f"{section}.{name}: expected {PART} or null, not {value!r}")
    for key, value, annotation in _arguments(config):
        if not fits(value, annotation):
            expected = described(annotation)
            is_path = type(value) is int and any(map(_is_path, (annotation, *get_args(annotation))))
            hint = f"; a file or folder of that name is ./{value}" if is_path else ""
            raise UsageError(f"{key}: expected {expected}, not {value!r}{hint}")


def _arguments(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key, value and annotation of every argument in a configuration."""
    if isinstance(section, list):
        for index, value in enumerate(section):
            yield from _arguments(value, f"{prefix}{index}.")
    if not isinstance(section, dict):
        return
    taken = _annotations(section["_target_"]) if section.get("_target_") else {}
    for name, value in section.items():
        if name in taken:
            yield f"{prefix}{name}", value, taken[name]
        yield from _arguments(value, f"{prefix}{name}.")


def _annotations(target: str) -> dict[str, Any]:
    """The annotations of a ``_target_``; none if it cannot be inspected."""
    try:
        return {name: p.annotation for name, p in parameters(get_object(target)).items()}
    except Exception:  # an import runs any code; making it will say what is wrong
        return {}


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value may be passed where an annotation stands; True in doubt.

    Args:
        value: None, a number, text, a list or a dict.
        annotation: of the parameter.
    """
    origin = get_origin(annotation) or annotation
    if origin in (Union, UnionType):
        parts = get_args(annotation)
        if any(map(_is_path, parts)):
            parts = [part for part in parts if part is not str]  # which takes numbers, too
        return any(fits(value, part) for part in parts)
    if _is_reference(value) or not isinstance(origin, type):
        return True  # a name in quotes, a type variable, literals
    if origin in (Any, object, inspect.Parameter.empty):
        return True
    if isinstance(value, dict) and "_target_" in value:
        return not issubclass(origin, (*NUMBERS, NoneType, str))
    if origin is NoneType or value is None:
        return origin is NoneType and value is None
    if origin in NUMBERS:
        return isinstance(value, NUMBERS)
    if _is_path(origin):
        return isinstance(value, str)
    if issubclass(origin, (str, Enum)):
        return not isinstance(value, (list, dict))
    if issubclass(origin, Mapping):
        of = (*get_args(annotation), Any, Any)[1]
        return isinstance(value, dict) and all(fits(part, of) for part in value.values())
    if issubclass(origin, tuple):
        if isinstance(value, NUMBERS):
            return True  # our classes say better what the values are
        return isinstance(value, list) and _fits_tuple(value, get_args(annotation))
    if _is_collection(origin):
        of = (get_args(annotation) or (Any,))[0]
        if isinstance(value, str):
            return of in (str, Any)
        return isinstance(value, list) and all(fits(part, of) for part in value)
    # A device can be given by its name; what holds values, such as a tensor, has none.
    return isinstance(value, str) and origin is not Callable and not issubclass(origin, Iterable)


def _is_path(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, PurePath)


def _fits_tuple(values: list[Any], parts: tuple[Any, ...]) -> bool:
    if not parts:
        return True
    if parts[-1] is Ellipsis:
        return all(fits(value, parts[0]) for value in values)
    return len(values) == len(parts) and all(map(fits, values, parts))


def _is_collection(origin: type) -> bool:
    """Whether a type is one of Python's own collections: a network can be iterated over, too."""
    return issubclass(origin, Iterable) and origin.__module__ in ("builtins", "collections.abc")


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and ("${" in value or value == "???")


def described(annotation: Any) -> str:
    """An annotation in words: ``a number or null``."""
    origin, parts = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(described, parts)))
    names = {bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}
    if origin in names:
        return names[origin]
    if not isinstance(origin, type):  # literals, a name in quotes
        return " or ".join(map(str, parts)) or PART
    if issubclass(origin, (str, PurePath)):
        return "text"
    if issubclass(origin, Mapping):
        return "keys and values"
    if not _is_collection(origin):
        return PART
    count = ""
    if issubclass(origin, tuple) and parts and parts[-1] is not Ellipsis:
        count = f" of {len(parts)} values"
    kinds = {described(part) for part in parts if part not in (Any, Ellipsis)}
    return f"a list{count}, each {kinds.pop()}" if len(kinds) == 1 else f"a list{count}"
