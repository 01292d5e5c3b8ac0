"""A saliency map as files: a sheet of frames, and a film."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.files import atomic_file
from datamodules.video.playback import Shown, VideoWriter
from hiera_video.predicting.saliency import Saliency
from hiera_video.visualize.heat import enlarged, heat_over, heat_sheet, outlined, with_legend

NAMES = {"grad_cam": "Grad-CAM", "occlusion": "occlusion"}
SHEET_SIDE, FILM_SIDE = 160, 320  # pixels to which smaller clips are enlarged


def saliency_sheet(saliency: Saliency) -> Image.Image:
    """All frames of a clip above the same with heat, with a title, times and a legend.

    A person's box is drawn into the frames with heat. Small clips are enlarged.
    """
    clip, painted = _clips(saliency, SHEET_SIDE)
    return heat_sheet(clip, painted, _title(saliency), _scale(saliency), saliency.shown_times)


def write_saliency(saliency: Saliency, stem: Path) -> list[Path]:
    """Write ``STEM.png``, all frames without and with heat, and ``STEM.mp4``, both side by side.

    The film is as fast as the video. A person's box is drawn into the frames with heat.

    Args:
        saliency: a map and its clip.
        stem: path of the files without their suffixes; the folder must exist.

    Returns:
        The paths of the two files.

    Raises:
        OSError: a file cannot be written.
    """
    picture, film = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".mp4"))
    with atomic_file(picture) as file:
        saliency_sheet(saliency).save(file, "PNG")
    with atomic_file(film) as file:
        _write_film(saliency, file)
    return [picture, film]


def _write_film(saliency: Saliency, path: Path) -> None:
    starts = saliency.times - saliency.times[0]
    step = float(np.diff(starts).mean()) if len(starts) > 1 else 1.0
    edges = [Fraction(float(time)) for time in (*starts, starts[-1] + step)]
    with VideoWriter(path, 1 / Fraction(step)) as writer:
        for pair, start, end in zip(
            np.concatenate(_clips(saliency, FILM_SIDE), axis=2), edges[:-1], edges[1:], strict=True
        ):
            picture = with_legend(Image.fromarray(pair), _title(saliency), _scale(saliency))
            writer.write(Shown(np.asarray(picture), start, end))


def _clips(saliency: Saliency, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The clip without and with heat, uint8 ``(T, height, width, 3)``, enlarged to ``side``."""
    clip = enlarged(saliency.clip, side)
    painted = heat_over(clip, enlarged(saliency.map, side))
    if saliency.box is not None:
        painted = outlined(painted, saliency.box)
    return clip, painted


def _title(saliency: Saliency) -> str:
    # What comes first stays where a narrow picture cuts a long name.
    return f"{saliency.probability:.2f}  {saliency.label}  ({NAMES[saliency.method]})"


def _scale(saliency: Saliency) -> str:
    """What a 1 in the map stands for."""
    if saliency.peak == 0:
        return "nothing speaks for it"
    if saliency.method == "occlusion":
        return f"hiding this place lowers the probability by {saliency.peak:.2g}"
    return "the place that speaks most for it"
