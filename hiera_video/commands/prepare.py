"""The command ``prepare``: probe, transcode or resize a data set once, and write its manifest."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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

SHOWN = 20  # bad videos that are printed; the list has all


def run(words: Sequence[str]) -> None:
    """Prepare data sets, or merge prepared parts, and print what was found.

    Raises:
        UserError: wrong usage or input (exit code 2), or no file can be decoded (1).
    """
    arguments = _parser().parse_intermixed_args(words)
    if arguments.pack and arguments.shard:
        raise UsageError("--pack needs the whole data set: use it with --merge")
    if arguments.pack_mib < 1:
        raise UsageError("--pack-mib must be positive")
    if arguments.pack_url and not (arguments.pack and "://" in arguments.pack_url):
        raise UsageError("--pack-url needs --pack, and a URL such as s3://bucket/folder")
    encoding = _encoding(arguments)
    sources: dict[str, Any] = {}  # manifests of what is prepared, by the name of the split
    if arguments.merge:
        from datamodules.preparing.parts import merge

        if arguments.words or arguments.config or arguments.shard or encoding:
            raise UsageError("--merge takes folders, --out and --pack only")
        with progress_line("merge", None):
            merged = merge(arguments.merge, arguments.out)
        manifests = {file: file.parent.name for file in merged}
    else:
        # All are listed before any is decoded: one that is missing shows at once.
        listed = [(split, _list_split(split, arguments, encoding)) for split in splits(arguments)]
        manifests = {
            _prepare_split(split, manifest, arguments, encoding): split.name
            for split, manifest in listed
        }
        for split, manifest in listed:
            sources |= dict.fromkeys(split.uses, manifest)
    any_good, noun = False, "videos"
    for manifest, name in manifests.items():
        is_good, noun = _print_summary(manifest)
        any_good |= is_good
        if not arguments.shard:
            prepared = _print_classes(manifest, name)
            if arguments.merge:
                sources[name] = prepared
        if arguments.pack:
            _pack(manifest, arguments)
    for line in shared_lines(sources, noun):
        print(line)
    if not any_good:
        raise UsageError(f"none of the {noun} can be decoded", 1)


def _list_split(split: Split, arguments: argparse.Namespace, encoding: Any) -> Any:
    """The files of a split that are to be prepared."""
    out = arguments.out / split.folder
    source, is_folder = split.source, split.source.is_dir()
    if encoding and is_folder and out.resolve().is_relative_to(source.resolve()):
        raise UsageError(
            f"--out {out} lies in {source}, where its new files would count as originals"
        )
    in_place = is_folder and out.exists() and source.samefile(out)  # so renew its manifest
    with progress_line(f"list {split.name}", None):
        manifest = (split.list if in_place else split.read)()
    _check_source(manifest, source, arguments)
    return _without_folders(manifest, split.name)


def _prepare_split(
    split: Split, manifest: Any, arguments: argparse.Namespace, encoding: Any
) -> Path:
    from datamodules.preparing.parts import WHOLE
    from datamodules.preparing.prepare import prepare

    with progress_line(f"prepare {split.name}") as progress:
        return prepare(
            manifest,
            manifest.root,
            arguments.out / split.folder,
            every_frame=not arguments.quick,
            encoding=encoding,
            part=arguments.shard or WHOLE,
            retry_bad=arguments.retry_bad,
            processes=arguments.processes,
            patience=arguments.hang_seconds,
            progress=progress,
        )


def _check_source(manifest: Any, source: Path, arguments: argparse.Namespace) -> None:
    """See that files can be prepared as the arguments say."""
    from datamodules.suffixes import PICTURES
    from datamodules.video.resizing import QUALITY

    if "shard" in manifest.table.column_names:
        raise UsageError(f"{source} is packed; prepare the files that it was packed from")
    of_videos = [name for name in ("gop", "crf") if getattr(arguments, name) is not None]
    if of_videos and noun_of(manifest) == PICTURES.noun:
        raise UsageError(
            f"--{of_videos[0]} is for videos; images are written as JPEG of quality {QUALITY}"
        )


def _without_folders(manifest: Any, split: str) -> Any:
    """The video files of a split; folders of frames, which are read as they are, are counted."""
    files, folders = manifest.without_folders()
    if folders:
        what, left = ("is a folder", "it is") if folders == 1 else ("are folders", "they are")
        line = f"{split}: {folders} of {counted(len(manifest), 'videos')} {what} of frames"
        if not len(files):
            raise UsageError(f"{line}, to be read as {left}; there is nothing to prepare")
        print(f"{line} and left as {left}")
    return files


def _encoding(arguments: argparse.Namespace) -> Any:
    values = {name: getattr(arguments, name) for name in ("short_side", "gop", "crf")}
    values = {name: value for name, value in values.items() if value is not None}
    if not arguments.transcode:
        if values:
            raise UsageError(f"--{min(values).replace('_', '-')} needs --transcode")
        return None
    if arguments.quick:
        raise UsageError("--transcode decodes every frame; leave out --quick")
    from datamodules.video.transcoding import Encoding

    try:
        return Encoding(**values)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _print_summary(manifest: Path) -> tuple[bool, str]:
    """Print the summary beside a manifest.

    Returns:
        Whether a file, if any, can be decoded; and what messages call the files.
    """
    from datamodules.manifests.parquet import read_manifest
    from datamodules.preparing.parts import beside, read_bad
    from datamodules.suffixes import PICTURES, kind_of

    summary = json.loads(beside(manifest, "summary.json").read_text())
    kind = kind_of(read_manifest(manifest)[0]["path"].to_pylist())
    if not summary["videos"]:  # a part of few files
        print(f"{manifest}: no files in this part")
        return True, kind.noun
    spacing = summary["keyframe_spacing"]
    keyframes = (
        f"; keyframes up to {counted(round(spacing['largest'] or 0), 'frames')} apart, "
        f"{spacing['median'] or 0:.0f} in the median video"
    )
    of_time = kind is not PICTURES
    hours = f"{summary['hours']:.3g} hours, "
    print(
        f"{manifest}: {counted(summary['videos'], kind.noun)}, {summary['ok']} ok, "
        f"{summary['bad']} bad; {hours * of_time}"
        f"{summary['bytes'] / 1e9:.3g} GB; {', '.join(summary['codecs'])}; "
        f"{', '.join(list(summary['sizes'])[:3])}{keyframes * of_time}"
    )
    if summary["bad"]:
        rows, file = read_bad(manifest), beside(manifest, "bad_videos.csv")
        for path, reason in rows[:SHOWN]:
            print(f"bad  {path}: {reason}")
        print(f"all {len(rows)} in {file}" if len(rows) > SHOWN else f"listed in {file}")
    return summary["ok"] > 0, kind.noun


def _print_classes(manifest: Path, split: str) -> Any:
    """Print how many videos the classes of a manifest file have; returns what it holds."""
    from datamodules.manifests.splits import read_split

    prepared = read_split(manifest, manifest.parent, None)
    for line in class_lines(split, prepared):
        print(line)
    return prepared


def _pack(manifest: Path, arguments: argparse.Namespace) -> None:
    from datamodules.manifests.packing import pack

    folder, url = manifest.parent.relative_to(arguments.out), arguments.pack_url
    url = f"{url.rstrip('/')}/{folder.as_posix()}".removesuffix("/.") if url else ""
    packed = arguments.out / "packed" / folder
    with progress_line(f"pack {folder}", "MiB") as progress:

        def in_mib(done: int, total: int) -> None:
            progress(done >> 20, total >> 20)

        file = pack(manifest.parent, packed, arguments.pack_mib << 20, in_mib, url)
    print(f"packed: {file}")


def _part(text: str) -> Any:
    from datamodules.preparing.parts import Part

    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N")
    return Part(int(part), int(parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video prepare",
        usage="%(prog)s (SOURCE | --config NAME [key=value ...] | --merge DIR ...) --out DIR [...]",
        description="Decode every file once, to the end, and write the findings to "
        "DIR/manifest.parquet (with --config: DIR/SPLIT/manifest.parquet), with summary.json and "
        "bad_videos.csv. An interrupted run continues when it is started again.",
    )
    add_source(parser)
    add = parser.add_argument
    add("--merge", nargs="+", type=Path, metavar="DIR", help="join what --shard runs wrote")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--quick", action="store_true", help="decode the first frame only, read the rest")
    add("--retry-bad", action="store_true", help="check files again that were found bad")
    add("--shard", type=_part, metavar="I/N", help="prepare the I-th of N parts, from 1")
    add(
        "--transcode",
        action="store_true",
        help="write copies that are fast to read: videos re-encoded, images resized",
    )
    add("--short-side", type=int, metavar="PIXELS", help="of the copies; default 256")
    add("--gop", type=int, metavar="FRAMES", help="between keyframes of videos; default 32")
    add("--crf", type=int, metavar="0-51", help="quality of videos, 0 is best; default 20")
    add("--pack", action="store_true", help="also pack the files into tar files in DIR/packed")
    add(
        "--pack-mib", type=int, default=1024, metavar="MIB", help="size of a tar file; default 1024"
    )
    add("--pack-url", default="", metavar="URL", help="their later address; default DIR/packed")
    add_work(parser)
    return parser
