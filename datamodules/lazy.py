"""Public names of a package that are imported when they are first used (PEP 562)."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

Hooks = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def public_names(package: str, names: Mapping[str, Sequence[str]]) -> Hooks:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose import costs nothing.

    Args:
        package: its ``__name__``.
        names: the public names in each of its modules, which are named relative to the package.
    """
    module_of = {name: module for module, group in names.items() for name in group}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return get, lambda: sorted(module_of), sorted(module_of)
