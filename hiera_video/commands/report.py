"""The command ``report``: one HTML page that shows a run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line

CLIPS = 12
PAGE = "report.html"


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: it is no run, a file of it is damaged, or the page would overwrite another file.
    """
    parser = argparse.ArgumentParser(
        "hiera-video report",
        description="Write one HTML page about a run: configuration, curves, accuracy, confusion "
        "matrix, wrongly classified videos, reconstructions, speed and environment. It holds its "
        "pictures and clips itself, so it can be opened anywhere and sent to anybody. It also "
        "names machine, folders and videos.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a run, or a checkpoint in it")
    add("--test", type=Path, metavar="TEST_RUN", help="folder of the test to show; default: the "
        "newest test of this run")  # fmt: skip
    add("--out", type=Path, metavar="FILE.html", help=f"default: RUN/{PAGE}")
    add("--clips", type=int, default=CLIPS, metavar="N", help="wrongly classified videos to show, "
        f"at most (default {CLIPS}; 0: none)")  # fmt: skip
    arguments = parser.parse_args(words)
    if arguments.clips < 0:
        raise UsageError(f"--clips {arguments.clips}: name a number from 0 on")
    _report(arguments)


def _report(arguments: argparse.Namespace) -> None:
    from datamodules.files import atomic_file
    from hiera_video.reporting.page import is_page, page
    from hiera_video.reporting.run_files import evaluation_in, evaluations_of, run_folder_of
    from hiera_video.running.recorded import recorded_config

    folder = run_folder_of(arguments.run)
    out = arguments.out or folder / PAGE
    if out.is_dir():
        raise UsageError(f"{out} is a folder; name a file, such as --out {out / PAGE}")
    if out.exists() and not (out.is_file() and is_page(out)):
        raise UsageError(f"{out} exists already and is no report; name another file with --out")
    config = recorded_config(folder)
    evaluations = evaluations_of(folder)
    if arguments.test:
        chosen = evaluation_in(arguments.test, folder)
        named = chosen.folder.absolute()
        others = [other for other in evaluations if other.folder.absolute() != named]
        evaluations = [chosen, *others]
    with progress_line("report", "rows") as progress:
        values, text = (config.values, config.text) if config else ({}, "")
        html = page(folder, values, text, evaluations, arguments.clips, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    print(f"{folder} -> {out}  {out.stat().st_size / 2**20:.1f} MiB")
