"""The page of a run: one HTML file that asks for nothing else."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from datamodules.loading.bad_videos import read_bad_videos
from datamodules.wording import counted
from hiera_video.reporting import facts
from hiera_video.reporting.curves import LEARNING, SPEED, charts, other_charts
from hiera_video.reporting.data_uris import picture_uri
from hiera_video.reporting.evaluations import WORST, Part, percent, summary_of, with_predictions
from hiera_video.reporting.run_files import (
    BAD_VIDEOS,
    Curve,
    Evaluation,
    curves_of,
    reconstructions_of,
)
from hiera_video.results.prediction_files import Progress
from hiera_video.results.run_files import starts_of

HERE = Path(__file__).parent  # has the template and the style sheet
GENERATOR = "hiera-video report"  # by which a page is known as one
MOST_PICTURES = 4  # reconstructions, from the first to the last
MOST_BAD = 10  # videos that could not be decoded
KINDS = {
    "PretrainingTask": "pretraining",
    "ClassificationTask": "classification",
    "ProbingTask": "classification",
    "DetectionTask": "action detection",
    "InstanceSegmentationTask": "instance segmentation",
}


def is_page(file: Path) -> bool:
    """Whether a file begins as a page of a run does."""
    with open(file, "rb") as opened:
        return f'<meta name="generator" content="{GENERATOR}">'.encode() in opened.read(4096)


def page(
    run: Path,
    config: Mapping[str, Any],
    config_text: str,
    evaluations: Sequence[Evaluation],
    clips: int,
    progress: Progress,
) -> str:
    """The page of a run as HTML.

    All names and numbers of the run are escaped. The page forbids the browser to load or run
    anything that is not in the page itself.

    Args:
        run: its folder.
        config: the sections of its configuration as plain values; empty if it has none.
        config_text: the configuration as its file has it.
        evaluations: see `evaluations_of`. The first one is shown in full, the others by their
            metrics.
        clips: wrongly classified videos to show, at most.
        progress: told how many rows of the predictions have been read, of how many.

    Raises:
        PredictionFileError: the predictions of the first evaluation are damaged.
    """
    curves, starts = curves_of(run), starts_of(run)
    folders = [Path.cwd(), *run.absolute().parents]
    parts = [summary_of(evaluation) for evaluation in evaluations]
    parts[:1] = [with_predictions(part, clips, folders, progress) for part in parts[:1]]
    pictures, bad = reconstructions_of(run), read_bad_videos(run / BAD_VIDEOS)
    return _template().render(
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        name=config.get("name") or run.absolute().name,
        folder=run,
        generator=GENERATOR,
        made=time.strftime("%Y-%m-%d %H:%M"),
        kind=KINDS.get(str(_target(config)), ""),
        tiles=_tiles(curves, parts[:1]),
        parts=parts,
        pictures=[(step, picture_uri(file)) for step, file in _spread(pictures)],
        num_pictures=len(pictures),
        learning=charts(curves, LEARNING),
        speed=charts(curves, SPEED),
        others=other_charts(curves),
        unseen=[(name, curve.left_out) for name, curve in curves.items() if not curve.steps],
        bad=bad[:MOST_BAD],
        more_bad=len(bad) > MOST_BAD,
        num_bad=counted(len(bad), "videos", ","),
        bad_file=run / BAD_VIDEOS,
        facts=facts.of_config(config),
        config_text=config_text,
        start=facts.of_start(starts[-1]) if starts else [],
        earlier=[(start.get("started"), facts.command_of(start)) for start in starts[:-1]],
        worst=WORST,
    )


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["quoted"] = lambda word: shlex.quote(str(word))
    return environment.get_template("page.html")


def _target(config: Mapping[str, Any]) -> str:
    task = config.get("task")
    return str(task.get("_target_")).rpartition(".")[2] if isinstance(task, dict) else ""


def _spread(pictures: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """At most 4 of the pictures, evenly spaced, the last one first."""
    last = len(pictures) - 1
    places = {round(last * i / (MOST_PICTURES - 1)) for i in range(MOST_PICTURES)}
    return [pictures[i] for i in sorted(places, reverse=True)] if pictures else []


def _tiles(curves: Mapping[str, Curve], shown: Sequence[Part]) -> list[tuple[str, str, str]]:
    """The numbers at the top of the page: a name, a value, and what it is of."""
    tiles = [(*part.metrics[0], part.source.kind) for part in shown if part.metrics]
    for name, text, best, words in (
        ("val/top1", "Top-1", max, "best validation"),
        ("val/mAP_official", "mAP", max, "best validation"),
        ("val/mask_AP", "Mask AP", max, "best validation"),
        ("val/box_AP", "Box AP", max, "best validation"),
        ("val/loss", "Loss", min, "best validation"),
    ):
        if (curve := curves.get(name)) and curve.values:
            value = best(curve.values)
            tiles.append((text, f"{value:.4g}" if name == "val/loss" else percent(value), words))
    if steps := max((curve.steps[-1] for curve in curves.values() if curve.steps), default=0):
        tiles.append(("Steps", f"{steps:,}", "of the optimiser"))
    if (rate := curves.get("speed/clips_per_second")) and rate.values:
        tiles.append(("Clips per second", f"{median(rate.values):.4g}", "median"))
    if (waits := curves.get("speed/waits_for_data")) and waits.values:
        tiles.append(("Waiting for data", percent(fmean(waits.values)), "mean share of the time"))
    return tiles
