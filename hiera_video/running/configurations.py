"""The shipped configurations and their names."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def conf_dir() -> Path:
    """The folder ``conf``: inside the package when installed, beside it in a checkout."""
    return next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.is_dir())


def configurations() -> dict[str, Path]:
    """The files of all configurations, by the names that ``--config`` takes."""
    root = conf_dir() / "experiment"
    files = sorted(root.rglob("*.yaml"))
    return {str(path.relative_to(root).with_suffix("")): path for path in files}
