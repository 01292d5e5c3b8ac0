"""The command ``check``: find files that are missing, changed or corrupt, and bad annotations."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from datamodules.wording import counted
from hiera_video.commands.sources import (
    Split,
    add_source,
    add_work,
    class_lines,
    noun_of,
    shared_lines,
    splits,
)
from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line

if TYPE_CHECKING:
    from datamodules.preparing.check import Fault


class Findings(NamedTuple):
    """What the check of a split found.

    Attributes:
        videos: number of videos, including missing ones.
        faults: of videos.
        annotation_faults: of the annotation that the split belongs to.
        remarks: lines about that annotation and about the classes.
        noun: what messages call the videos.
        manifest: the videos that exist; None if the annotation cannot be read.
    """

    videos: int
    faults: "list[Fault]"
    annotation_faults: "list[Fault]"
    remarks: list[str]
    noun: str
    manifest: Any = None


def run(words: Sequence[str]) -> None:
    """Print every fault of the splits that the words select.

    Raises:
        UserError: wrong usage or input (exit code 2), or there are faults (1).
    """
    arguments = _parser().parse_intermixed_args(words)
    videos, faults, noun = 0, 0, "videos"
    annotation_faults: dict[Fault, None] = {}
    remarks: list[str] = []
    manifests: dict[str, Any] = {}
    chosen = splits(arguments)
    for split in chosen:
        findings = _check_split(split, arguments, alone=len(chosen) == 1)
        noun = findings.noun
        if findings.manifest is not None:
            manifests |= dict.fromkeys(split.uses, findings.manifest)
        videos, faults = videos + findings.videos, faults + len(findings.faults)
        # Splits may share an annotation; its faults are reported once.
        new = dict.fromkeys(f for f in findings.annotation_faults if f not in annotation_faults)
        annotation_faults |= new
        remarks += findings.remarks
        for fault in [*findings.faults, *new]:
            print(fault)
    for remark in [*remarks, *shared_lines(manifests, noun)]:
        print(remark)
    if annotation_faults:
        raise UsageError(
            f"{faults} of {counted(videos, noun)} and "
            f"{counted(len(annotation_faults), 'annotations')} have faults",
            1,
        )
    if faults:
        verb = "has" if faults == 1 else "have"
        raise UsageError(f"{faults} of {counted(videos, noun)} {verb} faults", 1)
    print(f"{counted(videos, noun)}, no faults")


def _check_split(split: Split, arguments: argparse.Namespace, alone: bool) -> Findings:
    """Check a split; if it cannot be read, that is an error where it is alone, else a fault."""
    from datamodules.errors import AnnotationError, DatasetError
    from datamodules.preparing.check import Fault, check

    with progress_line(f"read the annotation of {split.name}", None):
        diagnoses = split.diagnose()
    manifest, corrupt, classes = None, [], []
    annotation_faults = [fault for diagnosis in diagnoses for fault in diagnosis.faults]
    try:
        with progress_line(f"list {split.name}", None):
            manifest = split.read()
    except DatasetError as error:
        if not diagnoses and alone:
            raise
        if not isinstance(error, AnnotationError):  # the diagnosis has told it
            hint = ""
            if not alone and split.name != "train" and not split.source.exists():
                hint = f"; if there is no such split, set data.{split.name}=null"
            annotation_faults.insert(0, Fault("wrong", f"{error}{hint}"))
    else:
        classes = class_lines(split.name, manifest)
        annotation_faults += _label_faults(split, manifest)
        with progress_line(f"check {split.name}") as progress:
            corrupt = check(
                manifest,
                decode=arguments.decode,
                every_frame=not arguments.quick,
                processes=arguments.processes,
                patience=arguments.hang_seconds,
                progress=progress,
            )
    missing = [Fault("missing", m.video, f"{m.file}, row {m.row}") for m in split.missing()]
    remarks = [*classes, *(line for diagnosis in diagnoses for line in diagnosis.lines)]
    videos = len(missing) + len(manifest or ())
    noun = split.noun or ("videos" if manifest is None else noun_of(manifest))
    return Findings(videos, missing + corrupt, annotation_faults, remarks, noun, manifest)


def _label_faults(split: Split, manifest: Any) -> "list[Fault]":
    """That files have no label where training needs all labels, and validation some."""
    from datamodules.preparing.check import Fault

    unknown, files = manifest.table["label"].to_pylist().count(-1), len(manifest)
    lacking = [name for name in split.labelled if unknown >= (1 if name == "train" else files)]
    verb = "has" if unknown == 1 else "have"
    what = f"{unknown} of {counted(files, noun_of(manifest))} {verb} no label"
    return [Fault("wrong", f"{split.source}: {what}; data.{n} needs labels") for n in lacking[:1]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video check",
        usage="%(prog)s (SOURCE | --config NAME [key=value ...]) [...]",
        description="List the videos or pictures that are missing, changed or corrupt, one per "
        "line. The exit code is 1 if there are any. Prepared files are compared by size and "
        "modification time; other files are decoded to the end. For data in AVA's or COCO's "
        "format, check the annotation, too, to find what would make mAP or AP 0.",
    )
    add_source(parser)
    parser.add_argument("--decode", action="store_true", help="also decode prepared files")
    parser.add_argument(
        "--quick", action="store_true", help="where files are decoded, decode the first frame only"
    )
    add_work(parser)
    return parser
