"""The command ``check``: videos that are missing, changed or corrupt, and faulty annotations."""

import argparse
from collections.abc import Sequence

from hiera_video.commands.sources import add_source, add_work, splits
from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: wrong usage or input (2), or faults were found (1).
    """
    parser = argparse.ArgumentParser(
        "hiera-video check",
        usage="%(prog)s (SOURCE | --config NAME [key=value ...]) [...]",
        description="List the videos that are missing, changed or corrupt, one a line; exit code 1 "
        "if there are any. What was prepared is compared by size and time of change, other files "
        "are decoded to their end. Of data in AVA's format the annotation is checked, too, and "
        "compared with the person boxes: why mAP would be 0.",
    )
    add_source(parser)
    parser.add_argument("--decode", action="store_true", help="decode prepared files, too")
    parser.add_argument(
        "--quick", action="store_true", help="where files are decoded: the first frame only"
    )
    add_work(parser)
    arguments = parser.parse_intermixed_args(words)
    from datamodules.errors import DatasetError
    from datamodules.preparing.check import Fault, check

    faults = videos = 0
    wrong: list[Fault] = []
    lines: list[str] = []
    for split in splits(arguments):
        manifest, found, annotation = (), [], []
        diagnoses = split.diagnose()
        with progress_line(f"check {split.name}") as progress:
            try:
                manifest = split.read()
            except DatasetError as error:
                if not diagnoses:
                    raise
                annotation.append(Fault("wrong", str(error)))
            else:
                found = check(
                    manifest,
                    decode=arguments.decode,
                    every_frame=not arguments.quick,
                    processes=arguments.processes,
                    patience=arguments.hang_seconds,
                    progress=progress,
                )
        gone = [Fault("missing", m.video, f"{m.file}, row {m.row}") for m in split.missing()]
        faults, videos = faults + len(gone + found), videos + len(gone) + len(manifest)
        for diagnosis in diagnoses:
            annotation += diagnosis.faults
            lines += diagnosis.lines
        new = [fault for fault in dict.fromkeys(annotation) if fault not in wrong]
        wrong += new
        for fault in gone + found + new:
            print(fault)
    for line in lines:
        print(line)
    if wrong:
        raise UsageError(f"{faults} of {videos} videos and {len(wrong)} annotations have faults", 1)
    if faults:
        raise UsageError(f"{faults} of {videos} videos have faults", 1)
    print(f"{videos} videos, no faults")
