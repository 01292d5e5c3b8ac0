"""The command ``embed``: features of videos or pictures as files."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from datamodules.wording import counted
from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line


def run(words: Sequence[str]) -> None:
    """Write the features of videos or pictures.

    Raises:
        UserError: wrong usage or input (exit code 2), or no file can be read (1).
    """
    arguments = _parser().parse_intermixed_args(_with_flag(words))
    if len(arguments.words) < 2:
        raise UsageError("expected a RUN and files: hiera-video embed RUN FILE... --out DIR")
    if arguments.out is None:
        raise UsageError("where to? Add --out DIR")
    options = {"--processes": arguments.processes, "--hang-seconds": arguments.hang_seconds}
    for option, number in options.items():
        if number is not None and number <= 0:
            raise UsageError(f"{option} must be positive, not {number:g}")
    from datamodules.manifests.predicted_lists import list_to_predict
    from datamodules.manifests.splits import list_videos
    from datamodules.suffixes import PICTURES, VIDEOS
    from hiera_video.predicting.embed_files import embed_files
    from hiera_video.predicting.embedding import EmbeddingOptions
    from hiera_video.weights.trained import read_trained

    model, *sources = arguments.words
    media = PICTURES if read_trained(model).description.is_of_images else VIDEOS
    videos = list_videos(sources, lambda file: list_to_predict(file, [file.parent]), media)
    options = EmbeddingOptions(
        arguments.stride, arguments.window, arguments.views, arguments.stage, not arguments.map
    )
    with progress_line("embed", media.noun) as progress:
        target, done, bad = embed_files(
            model,
            videos,
            arguments.out,
            options,
            format=arguments.format,
            dtype=arguments.dtype,
            processes=arguments.processes,
            device=arguments.device,
            patience=arguments.hang_seconds,
            progress=progress,
        )
    print(f"{done} of {counted(done + bad, media.noun)} -> {target}")
    if bad:
        print(f"{bad} cannot be read: {arguments.out / 'bad_videos.csv'}")


def _with_flag(words: Sequence[str]) -> list[str]:
    """The words with ``--out=DIR`` for ``out=DIR``, as `predict` has it."""
    return [f"--{word}" if word.startswith("out=") else word for word in words]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video embed",
        usage="%(prog)s RUN FILE_OR_FOLDER_OR_LIST... --out DIR [...]",
        description="Write features of videos or pictures: DIR/embeddings.parquet with the columns "
        "path, start, end and vector, or DIR/NAME.npz for each file. RUN is a run, a checkpoint, "
        "an exported folder or a published name. In folders, a model of images finds pictures, any "
        "other finds videos. A picture has one vector, and so has a video without --stride: the "
        "mean over its test views (autoencoders and detectors: of the clip in the middle). An "
        "interrupted command continues when it is started again.",
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="RUN FILE", help="the model, then files, folders and lists")
    add("--out", type=Path, metavar="DIR", help="folder to write to")
    add("--stride", type=float, metavar="S", help="one vector for every S seconds")
    add("--window", type=float, metavar="S", help="seconds that each sees; default: as trained")
    add("--views", type=int, nargs=2, metavar="N", help="views in time and space, averaged")
    add("--stage", type=int, metavar="1-4", help="of the network; default: the last")
    add("--map", action="store_true", help="maps (T', H', W', C) of the stage, not vectors")
    add("--format", choices=("parquet", "npz"), default="parquet", help="default parquet")
    add("--dtype", choices=("float32", "float16"), default="float32", help="default float32")
    add("--processes", type=int, metavar="N", help="default: one a GPU, one without GPUs")
    add("--device", help="of all processes, such as cpu or cuda:1; default: the GPUs in turn")
    add(
        "--hang-seconds",
        type=float,
        default=300.0,
        metavar="S",
        help="seconds without a clip after which a file is bad; default 300",
    )
    return parser
