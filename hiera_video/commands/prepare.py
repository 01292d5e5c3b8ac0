"""The command ``prepare``: probe or transcode a data set once, and write its manifest."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiera_video.commands.sources import Split, add_source, add_work, splits
from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line

SHOWN = 20  # bad videos; all are in the list


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: wrong usage or input (2), or no video can be decoded (1).
    """
    parser = argparse.ArgumentParser(
        "hiera-video prepare",
        usage="%(prog)s (SOURCE | --config NAME [key=value ...] | --merge DIR ...) --out DIR [...]",
        description="Look at every file once, decoding it to its end, and write what was found to "
        "DIR/manifest.parquet (with --config: DIR/SPLIT/manifest.parquet), with summary.json and "
        "bad_videos.csv. A run that was stopped goes on when it is started again.",
    )
    add_source(parser)
    add = parser.add_argument
    add("--merge", nargs="+", type=Path, metavar="DIR", help="join what --shard runs wrote")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--quick", action="store_true", help="decode the first frame only, read the rest")
    add("--retry-bad", action="store_true", help="look again at files that were found bad")
    add("--shard", type=_part, metavar="I/N", help="do the I-th of N parts, 1 to N")
    add("--transcode", action="store_true", help="write every file anew, for fast random access")
    add("--short-side", type=int, metavar="PIXELS", help="of new files; default 256")
    add("--gop", type=int, metavar="FRAMES", help="between their keyframes; default 32")
    add("--crf", type=int, metavar="0-51", help="their quality, 0 is best; default 20")
    add("--pack", action="store_true", help="also pack the videos into tar files in DIR/packed")
    add("--pack-mib", type=int, default=1024, metavar="MIB", help="of a tar file; default 1024")
    add("--pack-url", default="", metavar="URL", help="where you will put them; default DIR/packed")
    add_work(parser)
    arguments = parser.parse_intermixed_args(words)
    if arguments.pack and arguments.shard:
        raise UsageError("--pack needs the whole data set: use it with --merge")
    if arguments.pack_mib < 1:
        raise UsageError("--pack-mib must be positive")
    if arguments.pack_url and not (arguments.pack and "://" in arguments.pack_url):
        raise UsageError("--pack-url needs --pack, and a URL such as s3://bucket/folder")
    encoding = _encoding(arguments)
    if arguments.merge:
        from datamodules.preparing.parts import merge

        if arguments.words or arguments.config or arguments.shard or encoding:
            raise UsageError("--merge takes folders and --out alone, and --pack")
        _report(merge(arguments.merge, arguments.out), arguments)
        return
    manifests = [_prepare_split(split, arguments, encoding) for split in splits(arguments)]
    _report(manifests, arguments)


def _prepare_split(split: Split, arguments: argparse.Namespace, encoding: Any) -> Path:
    from datamodules.preparing.parts import WHOLE
    from datamodules.preparing.prepare import prepare

    out = arguments.out / split.folder
    source, is_folder = split.source, split.source.is_dir()
    if encoding and is_folder and out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"--out {out} lies in {source}, where its new files would count as videos")
    in_place = is_folder and out.exists() and source.samefile(out)  # its manifest is to be renewed
    with progress_line(f"prepare {split.name}") as progress:
        manifest = (split.list if in_place else split.read)()
        if "shard" in manifest.table.column_names:
            raise UsageError(f"{source}: is packed; prepare what it was packed from")
        return prepare(
            manifest,
            manifest.root,
            out,
            every_frame=not arguments.quick,
            encoding=encoding,
            part=arguments.shard or WHOLE,
            retry_bad=arguments.retry_bad,
            processes=arguments.processes,
            patience=arguments.hang_seconds,
            progress=progress,
        )


def _encoding(arguments: argparse.Namespace) -> Any:
    given = {k: getattr(arguments, k) for k in ("short_side", "gop", "crf")}
    given = {name: value for name, value in given.items() if value is not None}
    if not arguments.transcode:
        if given:
            raise UsageError(f"--{min(given).replace('_', '-')} needs --transcode")
        return None
    if arguments.quick:
        raise UsageError("--transcode decodes every frame; leave out --quick")
    from datamodules.video.transcoding import Encoding

    try:
        return Encoding(**given)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _report(manifests: Sequence[Path], arguments: argparse.Namespace) -> None:
    """Print the summaries; pack, if that is asked for."""
    from datamodules.preparing.parts import beside

    good = 0
    for manifest in manifests:
        summary = json.loads(beside(manifest, "summary.json").read_text())
        good += summary["ok"]
        _print_summary(manifest, summary)
        if arguments.pack:
            from datamodules.manifests.packing import pack

            folder, url = manifest.parent.relative_to(arguments.out), arguments.pack_url
            url = f"{url.rstrip('/')}/{folder.as_posix()}".removesuffix("/.") if url else ""
            packed = arguments.out / "packed" / folder
            with progress_line(f"pack {folder}", "MiB") as progress:

                def in_mib(done: int, total: int) -> None:
                    progress(done >> 20, total >> 20)

                file = pack(manifest.parent, packed, arguments.pack_mib << 20, in_mib, url)
            print(f"packed: {file}")
    if not good:
        raise UsageError("no video can be decoded", 1)


def _print_summary(manifest: Path, summary: dict[str, Any]) -> None:
    spacing = summary["keyframe_spacing"]
    print(
        f"{manifest}: {summary['videos']} videos, {summary['ok']} ok, {summary['bad']} bad; "
        f"{summary['hours']:.3g} hours, {summary['bytes'] / 1e9:.3g} GB; "
        f"{', '.join(summary['codecs'])}; {', '.join(list(summary['sizes'])[:3])}; "
        f"keyframes up to {spacing['largest'] or 0:.0f} frames apart, {spacing['median'] or 0:.0f} "
        "in the median video"
    )
    if summary["bad"]:
        from datamodules.preparing.parts import beside, read_bad

        rows, file = read_bad(manifest), beside(manifest, "bad_videos.csv")
        for path, reason in rows[:SHOWN]:
            print(f"bad  {path}: {reason}")
        print(f"all {len(rows)} in {file}" if len(rows) > SHOWN else f"listed in {file}")


def _part(text: str) -> Any:
    from datamodules.preparing.parts import Part

    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N")
    return Part(int(part), int(parts))
