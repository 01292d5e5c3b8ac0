"""The commands about data: ``prepare`` and ``check``, and the data of a configuration."""

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hiera_video.running.words import UsageError, conf_dir, translate
from hiera_video.terminal import progress_line

SHOWN = 20  # bad videos; all are in the list


def _cores() -> int:
    """Cores that this process may use: of the machine, its affinity, its container's quota."""
    here = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if here else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such control group, or "max"
        return cores


CORES = _cores()


class Split(NamedTuple):
    """Videos to work on.

    Attributes:
        name: for the progress line.
        source: the folder or file that names them.
        folder: where they go, below --out.
        read: gives their manifest, from an earlier `prepare` where there is one.
        list: gives it from what is there without that.
        missing: gives the videos that an annotation names and the disk lacks, after reading.
        diagnose: gives what is to be said of annotations of boxes; None of other data.
    """

    name: str
    source: Path
    folder: str
    read: Callable[[], Any]
    list: Callable[[], Any]
    missing: Callable[[], Sequence[Any]] = tuple
    diagnose: Callable[[], Sequence[Any]] | None = None


def run(command: str, words: Sequence[str]) -> None:
    """Run one of the commands.

    Raises:
        UsageError: wrong usage or input (2), or the work failed or found faults (1).
    """
    try:
        {"prepare": _prepare, "check": _check, "doctor": _doctor}[command](words)
    except KeyboardInterrupt:
        raise UsageError("stopped; the same command goes on from here", 130) from None
    except Exception as error:
        explanation = _explained(error)
        if explanation is None or os.environ.get("HIERA_VIDEO_TRACEBACK"):
            raise
        raise explanation from error


def _explained(error: Exception) -> UsageError | None:
    from hiera_video.running.usage_errors import (
        written_for_users,  # not at the top: --help needs it not
    )

    if (explanation := written_for_users(error)) is not None:
        return explanation
    if isinstance(error, OSError):  # the disk, not the data
        where = f"{error.filename}: " if error.filename is not None else ""
        return UsageError(f"{where}{error.strerror or error}", 1)
    return None


def _prepare(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "hiera-video prepare",
        usage="%(prog)s (SOURCE | --config NAME [key=value ...] | --merge DIR ...) --out DIR [...]",
        description="Look at every file once, decoding it to its end, and write what was found to "
        "DIR/manifest.parquet (with --config: DIR/SPLIT/manifest.parquet), with summary.json and "
        "bad_videos.csv. A run that was stopped goes on when it is started again.",
    )
    _add_source(parser)
    add = parser.add_argument
    add("--merge", nargs="+", type=Path, metavar="DIR", help="join what --shard runs wrote")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--quick", action="store_true", help="decode the first frame only, read the rest")
    add("--retry-bad", action="store_true", help="look again at files that were found bad")
    add("--shard", type=_shard, metavar="I/N", help="do the I-th of N parts, 1 to N")
    add("--transcode", action="store_true", help="write every file anew, for fast random access")
    add("--short-side", type=int, metavar="PIXELS", help="of new files; default 256")
    add("--gop", type=int, metavar="FRAMES", help="between their keyframes; default 32")
    add("--crf", type=int, metavar="0-51", help="their quality, 0 is best; default 20")
    add("--pack", action="store_true", help="also pack the videos into tar files in DIR/packed")
    add("--pack-mib", type=int, default=1024, metavar="MIB", help="of a tar file; default 1024")
    add("--pack-url", default="", metavar="URL", help="where you will put them; default DIR/packed")
    _add_work(parser)
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
    manifests = [_prepare_split(split, arguments, encoding) for split in _splits(arguments)]
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


def _check(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "hiera-video check",
        usage="%(prog)s (SOURCE | --config NAME [key=value ...]) [...]",
        description="List the videos that are missing, changed or corrupt, one a line; exit code 1 "
        "if there are any. What was prepared is compared by size and time of change, other files "
        "are decoded to their end. Of data in AVA's format the annotation is checked, too, and "
        "compared with the person boxes: why mAP would be 0.",
    )
    _add_source(parser)
    parser.add_argument("--decode", action="store_true", help="decode prepared files, too")
    parser.add_argument(
        "--quick", action="store_true", help="where files are decoded: the first frame only"
    )
    _add_work(parser)
    arguments = parser.parse_intermixed_args(words)
    from datamodules.manifests.splits import DatasetError
    from datamodules.preparing.check import Fault, check

    faults = videos = 0
    wrong: list[Fault] = []
    lines: list[str] = []
    for split in _splits(arguments):
        manifest, found, annotation = (), [], []
        with progress_line(f"check {split.name}") as progress:
            try:
                manifest = split.read()
            except DatasetError as error:
                if split.diagnose is None:
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
        for diagnosis in split.diagnose() if split.diagnose else ():
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


def _doctor(words: Sequence[str]) -> None:
    from hiera_video.commands import doctor

    doctor.run(words)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="SOURCE", help="folder, list or manifest file")
    parser.add_argument(
        "--config", metavar="NAME", help="all splits of a configuration; key=value words may follow"
    )
    parser.add_argument(
        "--root", type=Path, help="folder that a list's paths start from; default: the list's"
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes", type=int, default=CORES, help=f"that decode; default {CORES}, the cores"
    )
    parser.add_argument(
        "--hang-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="without a frame after which a file is bad; default 60",
    )


def _shard(text: str) -> Any:
    from datamodules.preparing.parts import Part

    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N")
    return Part(int(part), int(parts))


def _splits(arguments: argparse.Namespace) -> list[Split]:
    """What SOURCE or --config stands for."""
    if arguments.processes < 1 or arguments.hang_seconds <= 0:
        raise UsageError("--processes and --hang-seconds must be positive")
    if not arguments.config:
        if len(arguments.words) != 1:
            raise UsageError("expected one SOURCE (a folder, list or manifest), or --config NAME")
        source = Path(arguments.words[0]).expanduser()
        root = arguments.root or (source if source.is_dir() else source.parent)
        from datamodules.manifests.splits import list_split, read_split

        read, list_ = (partial(f, source, root, None) for f in (read_split, list_split))
        return [Split(source.name, source, "", read, list_)]
    out = getattr(arguments, "out", None)
    data = data_module(arguments.config, arguments.words, out and out / "missing_videos.csv")
    data.prepare_data()
    data.find_class_names()
    names: dict[str, list[str]] = {}  # that a split is used by
    for name, split in data.splits.items():
        if split is not None:
            names.setdefault(split, []).append(name)
    diagnose = _diagnosis(data)
    found: dict[str, Split] = {}
    for name, split in data.splits.items():
        if split is not None and split not in found:
            found[split] = Split(
                name,
                data.source(name),
                data.prepared_name(name),
                partial(data.read_split, name),
                partial(data.list_split, split, data.class_names),
                partial(_missing, data, split),
                diagnose and partial(diagnose, data, names[split]),
            )
    return list(found.values())


def _diagnosis(data: Any) -> Callable[[Any, Sequence[str]], Sequence[Any]] | None:
    """What looks at the annotation of some data, if it is of boxes."""
    from datamodules.ava.data_module import AVADataModule

    if not isinstance(data, AVADataModule):
        return None
    from datamodules.ava.diagnosis import diagnose_all

    return diagnose_all


def _missing(data: Any, split: str) -> list[Any]:
    return [video for video in data.missing if video.split == split]


def data_module(config: str, words: Sequence[str], missing_videos: Path | None = None) -> Any:
    """The data module of a configuration.

    Args:
        config: its name or file.
        words: ``key=value``.
        missing_videos: file to write what it is that the disk lacks; None: any number may be
            missing.

    Raises:
        UsageError: there is no such configuration, or the words do not fit it.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.utils import instantiate

    from hiera_video.running.usage_errors import check_values, explain

    call = translate(["prepare", "--config", config, *words])
    if call.flags:
        raise UsageError(f"{call.flags[0]}: no flag of Hydra's can be used here")
    flags = dict(zip(call.config_flags[::2], call.config_flags[1::2], strict=True))
    try:
        check_values(call)
        GlobalHydra.instance().clear()
        folder = flags.get("--config-path", str(conf_dir()))
        with initialize_config_dir(folder, version_base="1.3"):
            data = compose(flags["--config-name"], call.overrides).data
        for name in ("bad_videos", "killed_videos", "missing_videos"):  # of trainings
            if name in data:
                data[name] = None
        if "missing_videos" in data:
            data.missing_videos = missing_videos and str(missing_videos)
            data.max_missing_share = data.max_missing_share if missing_videos else 1.0
        return instantiate(data, _convert_="all")
    except Exception as error:
        explanation = explain(error, call)
        if explanation is None or os.environ.get("HIERA_VIDEO_TRACEBACK"):
            raise
        raise explanation from error
