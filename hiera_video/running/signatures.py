"""The arguments of a class or function, read from its source without importing it.

Importing torch and Lightning takes seconds, too long to hear of a misspelt key.
"""

import ast
import re
from collections.abc import Collection, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class NotReadable(LookupError):
    """The source does not tell; the class has to be imported."""


class Argument(NamedTuple):
    """An argument of a class or function.

    Attributes:
        name: its name.
        default: Python code of its default; empty if it has none.
        text: what the docstring says about it, on one line.
    """

    name: str
    default: str
    text: str


def argument_names(target: str) -> list[str]:
    """Names of the arguments of a class or function, those of what it passes keywords on to too.

    Args:
        target: full name, such as ``hiera_video.create_model``.

    Raises:
        NotReadable: the source does not tell.
    """
    return list(described_arguments(target))


def described_arguments(target: str) -> dict[str, Argument]:
    """The arguments of a class or function by name, as `argument_names`.

    Args:
        target: full name, such as ``hiera_video.create_model``.

    Raises:
        NotReadable: the source does not tell.
    """
    arguments: dict[str, Argument] = {}
    for argument in _arguments(*_definition(*target.rpartition(".")[::2])):
        known = arguments.setdefault(argument.name, argument)
        if not known.text:  # a subclass need not repeat what its base says
            arguments[argument.name] = known._replace(text=argument.text)
    return arguments


def _arguments(module: str, node: ast.AST) -> Iterator[Argument]:
    if isinstance(node, ast.FunctionDef):
        yield from _named(node, _texts(node))
        if node.args.kwarg:
            of_class = _arguments(*_definition(module, _name(node.returns)))
            # The function may choose what they are by default, as `create_model` does by a name.
            yield from (argument._replace(default="") for argument in of_class)
        return
    refused: Collection[str] = ()
    for owner in _classes(module, node):
        refused = refused or _refused(owner)
        functions = {n.name: n for n in owner.body if isinstance(n, ast.FunctionDef)}
        if init := functions.get("__init__"):
            named = _named(init, _texts(owner) | _texts(init))
            yield from (argument for argument in named if argument.name not in refused)
            if not init.args.kwarg:
                return


def _classes(module: str, node: ast.AST) -> Iterator[ast.ClassDef]:
    """A class and its bases, each before its own bases, as Python looks for ``__init__``."""
    if not isinstance(node, ast.ClassDef) or node.decorator_list:
        raise NotReadable
    yield node
    bases = [name for name in map(_name, node.bases) if name not in ("ABC", "object")]
    owners = (owner for base in bases for owner in _classes(*_definition(module, base)))
    if len(bases) > 1:  # a base that several bases share comes after all of them
        owners = reversed(dict.fromkeys([*owners][::-1]))
    yield from owners


def _refused(owner: ast.ClassDef) -> Collection[str]:
    """The arguments that a class itself refuses, by its attribute ``REFUSED``, a frozenset."""
    for node in owner.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "REFUSED":
            try:
                return ast.literal_eval(ast.unparse(node.value).removeprefix("frozenset"))
            except ValueError as error:
                raise NotReadable from error
    return ()


def _named(function: ast.FunctionDef, texts: dict[str, str]) -> list[Argument]:
    plain, keywords = function.args.args, function.args.kwonlyargs
    defaults = [None] * (len(plain) - len(function.args.defaults)) + function.args.defaults
    pairs = zip([*plain, *keywords], [*defaults, *function.args.kw_defaults], strict=True)
    return [
        Argument(arg.arg, ast.unparse(default) if default else "", texts.get(arg.arg, ""))
        for arg, default in pairs
        if arg.arg != "self"
    ]


def _texts(node: ast.FunctionDef | ast.ClassDef) -> dict[str, str]:
    """What the section ``Args`` of a Google-style docstring says about each argument."""
    section = re.search(r"^Args:\n((?: .*\n|\n)*)", f"{ast.get_docstring(node)}\n", re.MULTILINE)
    entries = re.findall(
        r"^    (\w+): ((?:.*\n)(?:     .*\n)*)", section[1] if section else "", re.M
    )
    return {name: " ".join(text.split()) for name, text in entries}


def _name(node: ast.AST | None) -> str:
    if not isinstance(node, ast.Name):
        raise NotReadable
    return node.id


def _definition(module: str, name: str) -> tuple[str, ast.AST]:
    """The definition of a name and its module, through imports as type checkers see them."""
    file, tree = _parsed(module)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return module, node
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    source = _absolute(node, module, file.name == "__init__.py")
                    return _definition(source, alias.name)
    raise NotReadable


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


@cache
def _parsed(module: str) -> tuple[Path, ast.Module]:
    package, *parts = module.split(".")
    try:
        spec = find_spec(package)  # of the top alone: for others, Python imports their packages
        folders = spec.submodule_search_locations if spec else None
        path = Path(folders[0], *parts) if folders else Path()
        files = (path / "__init__.py", path.with_suffix(".py"))
        file = next(file for file in files if file.is_file())
        return file, ast.parse(file.read_text(encoding="utf-8"))
    except (ImportError, ValueError, OSError, SyntaxError, StopIteration) as error:
        raise NotReadable from error
