"""The command ``models``: size and cost of every model."""

import argparse
from collections.abc import Sequence

from hiera_video.terminal import progress_line


def run(words: Sequence[str]) -> None:
    """Print the cost of every model."""
    parser = argparse.ArgumentParser(
        "hiera-video models",
        description="Print the parameters and multiply-adds of every model.",
    )
    parser.parse_args(words)
    from hiera_video.models.complexity import complexity_table

    with progress_line("build every model", None):
        table = complexity_table()
    print(table)
