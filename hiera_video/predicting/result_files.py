"""What all predictions in files share: a folder with some files for each video."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.errors import DatasetError, VideoDecodeError

log = logging.getLogger(__name__)


def check_folder(videos: Sequence[str], out: Path, *endings: str) -> None:
    """Check that a folder can take files of each video.

    Args:
        videos: the video files.
        out: the folder, which need not exist.
        *endings: what follows a video's name, less its suffix, in the names of its files that
            could be the video itself; none: ``.mp4``.

    Raises:
        DatasetError: ``out`` is a file, two videos have the same name, or a video would be
            overwritten.
    """
    if out.exists() and not out.is_dir():
        raise DatasetError(f"out={out} is a file; name a folder")
    named: dict[str, str] = {}
    for video in videos:
        other = named.setdefault(Path(video).stem, video)
        if other != video:
            raise DatasetError(f"{other} and {video} have the same name; use two folders")
        targets = [out / f"{Path(video).stem}{ending}" for ending in endings or (".mp4",)]
        if any(t.exists() and os.path.exists(video) and t.samefile(video) for t in targets):
            raise DatasetError(f"out={out} holds {video} itself; name another folder")


def write_each(videos: Sequence[str], out: Path, write: Callable[[str], None]) -> list[str]:
    """Write the files of each video; a video that fails is reported and left out.

    Args:
        videos: the video files.
        out: the folder, created if it does not exist.
        write: writes the files of a video, among them ``NAME.jsonl``.

    Returns:
        The videos that did not fail.
    """
    out.mkdir(parents=True, exist_ok=True)
    if old := [name for video in videos if (out / (name := f"{Path(video).stem}.jsonl")).exists()]:
        log.info(f"{out} holds earlier predictions, such as {old[0]}; {len(old)} are overwritten")
    done = []
    for video in videos:
        try:
            write(video)
        except (VideoDecodeError, DatasetError) as error:
            log.error(str(error))
        else:
            done.append(video)
    return done
