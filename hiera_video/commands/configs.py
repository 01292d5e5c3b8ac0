"""The command ``configs``: list, show and copy the shipped configurations."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from hiera_video.errors import UsageError
from hiera_video.running.configurations import configurations, parts
from hiera_video.terminal import did_you_mean


def run(words: Sequence[str]) -> None:
    """List, print or copy configurations.

    Raises:
        UsageError: an unknown configuration, or the copy would overwrite a file.
    """
    arguments = _parser().parse_args(words)
    files = configurations()
    if arguments.action == "ls":
        print("\n".join(files))
        return
    if arguments.action == "show":
        files = {**parts(), **files}
    if arguments.name not in files:
        raise UsageError(
            f"no configuration {arguments.name!r}{did_you_mean(arguments.name, files)}"
        )
    source = files[arguments.name]
    if arguments.action == "show":
        print(source.read_text(), end="")
        return
    target = arguments.target or Path(arguments.name.replace("/", "_") + ".yaml")
    if target.exists():
        raise UsageError(f"{target} exists already; name another file")
    shutil.copyfile(source, target)
    print(f"{target}: use it with --config {target}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("hiera-video configs")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("ls", help="list the names")
    actions.add_parser("show", help="print one, or a part such as data/folder").add_argument("name")
    copy = actions.add_parser("copy", help="copy one, to edit it and pass it to --config")
    copy.add_argument("name")
    copy.add_argument("target", nargs="?", type=Path, help="file to write; default: NAME.yaml")
    return parser
