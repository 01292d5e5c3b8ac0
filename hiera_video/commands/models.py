"""The command ``models``: size and cost of every model; ``models heads`` compares decoders."""

import argparse
from collections.abc import Sequence

from hiera_video.terminal import progress_line


def run(words: Sequence[str]) -> None:
    """Print the cost of every model, or run ``models heads``.

    Raises:
        UserError: wrong usage, weights or videos.
    """
    if words[:1] == ["heads"]:
        from hiera_video.commands import decoder_heads

        decoder_heads.run(words[1:])
        return
    parser = argparse.ArgumentParser(
        "hiera-video models",
        usage="%(prog)s [-h] | %(prog)s heads WEIGHTS VIDEO ...",
        description="Print the parameters and multiply-adds of every model. `models heads` finds "
        "out with how many decoder heads a masked autoencoder was trained.",
    )
    parser.parse_args(words)
    from hiera_video.models.complexity import complexity_table

    with progress_line("build every model", None):
        table = complexity_table()
    print(table)
