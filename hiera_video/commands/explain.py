"""The command ``explain``: where in videos a trained model sees a class or an action."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: wrong usage or input (exit code 2), or no video could be used (1).
    """
    parser = argparse.ArgumentParser(
        "hiera-video explain",
        description="Show where in a clip of each video a classifier sees a class, or an action "
        "detector an action of one person: a sheet of frames and a film with heat. "
        "docs/saliency.md says what the maps mean.",
    )
    add = parser.add_argument
    add("source", metavar="RUN", help="run folder, checkpoint, exported folder, or published name")
    add("videos", nargs="+", metavar="VIDEO")
    add("--out", type=Path, required=True, metavar="DIR", help="VIDEO-METHOD.png and .mp4 go here")
    add("--method", default="grad_cam", help="grad_cam (default), or occlusion, which is slow")
    add("--label", help="class or action; default: the one with the highest score")
    add("--stage", type=int, metavar="N", help="grad_cam: 1 for the first; default: the last")
    add("--cuboid", type=int, nargs=3, metavar=("FRAMES", "HEIGHT", "WIDTH"),
        help="occlusion: what hides a place; default: half of the frames, a quarter of height "
        "and width")  # fmt: skip
    add("--second", type=float, metavar="S", help="middle of the clip; default: of the video")
    add("--boxes", metavar="WHERE", help="actions: detector (default), full_frame, a csv or a run, "
        "as in predict")  # fmt: skip
    add("--person", type=int, metavar="N", help="actions: 0 for the first in what predict writes; "
        "default: whose score is the highest")  # fmt: skip
    _explain(parser.parse_intermixed_args(words))


def _explain(arguments: argparse.Namespace) -> None:
    from datamodules.errors import VideoDecodeError
    from hiera_video.predicting.actions import ActionPredictor
    from hiera_video.predicting.autoencoder import Reconstructor
    from hiera_video.predicting.instances import InstancePredictor
    from hiera_video.predicting.load import load
    from hiera_video.predicting.result_files import check_folder
    from hiera_video.predicting.saliency import check_method
    from hiera_video.predicting.saliency_files import write_saliency

    check_method(arguments.method, arguments.stage, arguments.cuboid)
    ending = f"-{arguments.method}"
    check_folder(arguments.videos, arguments.out, f"{ending}.mp4")
    model = load(arguments.source)
    if isinstance(model, Reconstructor):
        raise UsageError(f"{arguments.source}: a masked autoencoder knows no classes")
    if isinstance(model, InstancePredictor):
        raise UsageError(
            f"{arguments.source}: an instance segmentation; `explain` takes classifiers and action "
            "detectors"
        )
    of_persons = {
        name: value
        for name in ("boxes", "person")
        if (value := getattr(arguments, name)) is not None
    }
    if of_persons and not isinstance(model, ActionPredictor):
        raise UsageError(f"--{min(of_persons)} is for action detectors")
    arguments.out.mkdir(parents=True, exist_ok=True)
    done = 0
    for video in arguments.videos:
        slow = arguments.method == "occlusion"
        try:
            with progress_line(Path(video).name, "clips" if slow else None) as show:
                saliency = model.saliency(
                    video,
                    arguments.label,
                    arguments.method,
                    arguments.second,
                    stage=arguments.stage,
                    cuboid=arguments.cuboid,
                    show=show,
                    **of_persons,
                )
        except VideoDecodeError as error:
            print(f"hiera-video: {error}", file=sys.stderr)
            continue
        files = write_saliency(saliency, arguments.out / f"{Path(video).stem}{ending}")
        names = " ".join(map(str, files))
        print(f"{video}  {saliency.label}  {saliency.probability:.4f}  -> {names}", flush=True)
        done += 1
    if not done:
        raise UsageError("none of the videos could be used", 1)
