"""Public names of a package that are imported when they are first used (PEP 562)."""

import ast
from collections.abc import Callable
from importlib import import_module
from typing import Any

Hooks = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def public_names(package: str, file: str) -> Hooks:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose import costs nothing.

    Args:
        package: its ``__name__``.
        file: its ``__file__``; what type checkers find under its ``if TYPE_CHECKING:`` is public.
    """
    with open(file, "rb") as source:
        blocks = [node.body for node in ast.parse(source.read()).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom)]
    module_of = {alias.name: str(node.module) for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of[name]), name)

    return get, lambda: sorted(module_of), sorted(module_of)
