"""Videos and pictures side by side in a notebook, inside the page itself."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from datamodules.errors import VideoDecodeError
from hiera_video.reporting.clips import existing, is_picture_uri, small_uri, worst_mistakes
from hiera_video.reporting.run_files import PREDICTIONS
from hiera_video.results.classification import evaluate_file
from hiera_video.results.prediction_files import PredictionFile

MOST = 24  # videos of a gallery, as a notebook holds all of them


class Gallery:
    """Videos that play in a notebook, each with a caption below it.

    A notebook shows it as the result of a cell. The first seconds of each video are inside the page
    as a small H.264 file, so they also play where the notebook was exported to HTML. Pictures are
    shown as they are, only smaller.

    Args:
        videos: paths of videos or pictures; those beyond the first 24 are left out.
        captions: a line for each; none: the folder and the name of each file.
        width: pixels of a video on the page.

    Raises:
        ValueError: another number of captions than of videos.
    """

    def __init__(
        self, videos: Sequence[str | Path], captions: Sequence[str] = (), width: int = 150
    ) -> None:
        paths = [Path(video) for video in videos]
        if captions and len(captions) != len(paths):
            raise ValueError(f"{len(captions)} captions for {len(paths)} videos")
        self.videos, self.width = paths[:MOST], width
        self.captions = list(captions or (f"{p.parent.name}/{p.name}" for p in paths))[:MOST]

    def __repr__(self) -> str:
        return "\n".join(self.captions)

    def _repr_html_(self) -> str:
        figures = "".join(
            f'<figure style="margin:0;width:{self.width}px">{_element(video)}'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for video, caption in zip(self.videos, self.captions, strict=True)
        )
        style = "display:flex;flex-wrap:wrap;gap:10px;font:13px sans-serif"
        return f'<div style="{style}">{figures}</div>'


def mistakes(test: str | Path, count: int = 8) -> Gallery:
    """The wrongly classified videos whose predicted class is the most probable, to play.

    Args:
        test: the folder of a test, which holds ``predictions.parquet``. Relative paths of videos
            start in the current folder, or in one above the test's.
        count: how many videos, at most.

    Raises:
        PredictionFileError: there are no predictions, they are damaged, or no video has a label.
    """
    test = Path(test)
    results = evaluate_file(PredictionFile(test / PREDICTIONS))
    wrong = worst_mistakes(PredictionFile(test / PREDICTIONS), results, count)
    folders = [Path.cwd(), *test.absolute().parents]
    return Gallery(
        [existing(mistake.path, folders) or mistake.path for mistake in wrong],
        [f"{m.label}, predicted: {m.predicted} ({m.probability:.0%})" for m in wrong],
    )


def _element(video: Path) -> str:
    try:
        uri = small_uri(video)
    except (VideoDecodeError, OSError):
        return f"<p>{escape(str(video))} cannot be read.</p>"
    if is_picture_uri(uri):
        return f'<img src="{uri}" style="width:100%">'
    return f'<video src="{uri}" style="width:100%" controls muted autoplay loop></video>'
