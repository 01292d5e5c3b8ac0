"""The command ``evaluate``: recompute a test's results from its files, without model or videos."""

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line

if TYPE_CHECKING:
    from hiera_video.metrics.results import Results
    from hiera_video.results.prediction_files import PredictionFile

TASKS = ("classification", "ava", "coco")
PROTOCOLS = ("official", "pyslowfast")


def run(words: Sequence[str]) -> None:
    """Print the results of a test, recomputed from its files.

    Raises:
        UserError: wrong usage, or files that cannot be used.
    """
    match _task(words):
        case "ava":
            _evaluate_ava(_ava_parser().parse_args(words))
        case "coco":
            _evaluate_coco(_coco_parser().parse_args(words))
        case _:
            _evaluate_classification(_parser().parse_args(words))


def _evaluate_classification(arguments: argparse.Namespace) -> None:
    from hiera_video.results.classification import paired_difference
    from hiera_video.results.several_labels import accuracy_with_several_labels

    weights = arguments.weights or [1.0] * len(arguments.results)
    if len(weights) != len(arguments.results):
        raise UsageError(f"--weights has {len(weights)} numbers for {len(arguments.results)} files")
    files, results = _evaluated(arguments.results, weights, arguments.views)
    compared = {}  # top-k: difference from the other run, and that run's accuracy
    if arguments.compare:
        equal_weights = [1.0] * len(arguments.compare)
        _, other = _evaluated(arguments.compare, equal_weights, arguments.views)
        for k in (1, 5):
            if k <= min(results.outcomes.num_classes, other.outcomes.num_classes):
                difference = paired_difference(results, other, k)
                compared[f"top{k}"] = difference, other.outcomes.accuracy(k)
    real = arguments.real and accuracy_with_several_labels(results, arguments.real)
    if arguments.json:
        tested = [file.header.source.get("weights") for file in files]
        summary = results.summary() | {"weights": tested if len(files) > 1 else tested[0]}
        if real:
            summary["real"] = real._asdict()
        if compared:
            summary["compared"] = {
                name: difference._asdict() | {"of": accuracy}
                for name, (difference, accuracy) in compared.items()
            }
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    print(results.describe())
    if real:
        print(f"top1 {real.top1:.2%} by {arguments.real} ({real.images} images)")
    for name, (difference, _) in compared.items():
        print(
            f"{name} {difference.difference:+.2%} against "
            f"{' + '.join(map(str, arguments.compare))}: 95% interval {difference.low:+.2%} to "
            f"{difference.high:+.2%}; right in this one only {difference.first_only} videos, in "
            f"that one only {difference.second_only}"
        )


def _evaluated(
    paths: Sequence[Path], weights: Sequence[float], views: Sequence[tuple[int, int]]
) -> "tuple[list[PredictionFile], Results]":
    """Open the files of one run or of an ensemble, and evaluate them."""
    from hiera_video.results.classification import evaluate_ensemble, evaluate_file
    from hiera_video.results.prediction_files import PredictionFile

    with progress_line("evaluate", "rows") as progress:  # of one file after the other
        files = [PredictionFile(_file(path), progress) for path in paths]
        if len(files) == 1:
            return files, evaluate_file(files[0], views)
        return files, evaluate_ensemble(files, weights, views)


def _evaluate_ava(arguments: argparse.Namespace) -> None:
    from datamodules.ava.label_map import read_label_map
    from hiera_video.results.ava import evaluate_files

    results, fit = evaluate_files(
        arguments.ground_truth,
        arguments.predictions,
        read_label_map(arguments.labels),
        arguments.excluded,
        arguments.protocol,
        progress_line,
        arguments.errors,
    )
    if arguments.json:
        summary = results.summary() | {"files": fit._asdict()}
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print(f"{results.describe()}\n\n{fit.describe()}")


def _evaluate_coco(arguments: argparse.Namespace) -> None:
    from hiera_video.results.coco import evaluate_files

    results, fit = evaluate_files(arguments.ground_truth, arguments.predictions, progress_line)
    if arguments.json:
        summary = results.summary() | {"files": fit._asdict()}
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print(f"{results.describe()}\n\n{fit.describe()}")


def _task(words: Sequence[str]) -> str | None:
    """The value of ``--task``, which decides on the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--task", nargs="?")
    return parser.parse_known_args(words)[0].task


def _ava_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video evaluate",
        description="Compute the mean average precision of detected actions from csv files, and "
        "report how well the two files match.",
    )
    add = parser.add_argument
    add("--task", choices=TASKS, required=True)
    add("--ground-truth", type=Path, required=True, metavar="FILE.csv")
    add("--predictions", type=Path, required=True, metavar="FILE.csv")
    add("--labels", type=Path, required=True, metavar="LIST.pbtxt", help="classes that count")
    add("--excluded", type=Path, metavar="FILE.csv", help="keyframes to leave out: video,second")
    add("--protocol", choices=PROTOCOLS, default="official")
    add("--errors", action="store_true", help="count kinds of errors: confusion, localisation, ...")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _coco_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video evaluate",
        description="Compute COCO's average precision of boxes and masks from json files, and "
        "report how well the two files match.",
    )
    add = parser.add_argument
    add("--task", choices=TASKS, required=True)
    add("--ground-truth", type=Path, required=True, metavar="FILE.json", help="as instances_*.json")
    add("--predictions", type=Path, required=True, metavar="FILE.json", help="list of detections")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video evaluate",
        description="Compute the accuracy from the predictions.parquet of one test; for several, "
        "of their averaged probabilities.",
        epilog="For detected actions see hiera-video evaluate --task ava --help, for objects in "
        "pictures --task coco --help.",
    )
    add = parser.add_argument
    add("--task", choices=TASKS, required=True)
    add("results", nargs="+", type=Path, metavar="RESULTS.parquet", help="or a test's run folder")
    add("--weights", type=_weights, metavar="W,...", help="weights of the files; default: equal")
    add(
        "--views",
        type=_views,
        default=(),
        metavar="TxS,...",
        help="numbers of views, such as 1x1,5x1,5x3",
    )
    add(
        "--compare",
        nargs="+",
        type=Path,
        default=(),
        metavar="RESULTS.parquet",
        help="another run: print the difference with its paired bootstrap interval",
    )
    add(
        "--real",
        type=Path,
        metavar="real.json",
        help="ImageNet-ReaL's labels: also count any of several classes as right",
    )
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    file = path / "predictions.parquet"
    if not file.exists() and file.with_name(file.name + ".parts").exists():
        raise UsageError(f"{path}: its test was cut off; continue it with test ... resume={path}")
    return file


def _weights(text: str) -> list[float]:
    try:
        weights = [float(word) for word in text.split(",")]
    except ValueError:
        weights = []
    if not weights or not all(w > 0 and math.isfinite(w) for w in weights):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positive numbers such as 2,1")
    return weights


def _views(text: str) -> list[tuple[int, int]]:
    words = text.split(",")
    if not all(re.fullmatch(r"[1-9]\d*x[1-9]\d*", word) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of views such as 1x1,5x3")
    return [(int(t), int(s)) for t, s in (word.split("x") for word in dict.fromkeys(words))]
