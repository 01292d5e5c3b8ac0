"""The shipped configurations and their names."""

from itertools import groupby
from pathlib import Path
from textwrap import wrap

_PACKAGE = Path(__file__).parents[1]


def conf_dir() -> Path:
    """The folder ``conf``: inside the package when installed, beside it in a checkout."""
    return next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.is_dir())


def configurations() -> dict[str, Path]:
    """The files of all configurations, by the names that ``--config`` takes."""
    root = conf_dir() / "experiment"
    files = sorted(root.rglob("*.yaml"))
    return {str(path.relative_to(root).with_suffix("")): path for path in files}


def parts() -> dict[str, Path]:
    """The files of all parts of configurations by name, such as ``data/folder``."""
    root = conf_dir()
    return {
        str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))
    }


def overview() -> str:
    """The names of all configurations, a paragraph for each of their folders."""
    lines = ["configurations, for example --config demo/pretrain:"]
    names = [name.partition("/") for name in configurations()]
    width = 2 + max(len(folder) for folder, *_ in names)  # with its slash and a blank
    for folder, group in groupby(names, lambda parts: parts[0]):
        words = " ".join(name for *_, name in group)
        indent = f"  {folder + '/':{width}s}"
        lines += wrap(words, 96, initial_indent=indent, subsequent_indent=" " * len(indent))
    return "\n".join(lines)
