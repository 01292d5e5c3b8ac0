"""``evaluate``: the numbers of a test again from its files, without model or videos."""

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiera_video.errors import UsageError

TASKS = ("classification", "ava")
PROTOCOLS = ("official", "pyslowfast")


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: wrong usage, or files that cannot be used.
    """
    if _task(words) == "ava":
        _evaluate_ava(_ava_parser().parse_args(words))
        return
    arguments = _parser().parse_args(words)
    from hiera_video.results.classification import (
        evaluate_ensemble,
        evaluate_file,
        paired_difference,
    )
    from hiera_video.results.prediction_files import PredictionFile

    def opened(paths: Sequence[Path]) -> list[PredictionFile]:
        return [PredictionFile(_file(path)) for path in paths]

    def evaluated(files: list[PredictionFile], weights: Sequence[float] | None) -> Any:
        if len(files) == 1:
            return evaluate_file(files[0], arguments.views)
        return evaluate_ensemble(files, weights or [1.0] * len(files), arguments.views)

    if arguments.weights and len(arguments.weights) != len(arguments.results):
        raise UsageError(
            f"--weights has {len(arguments.weights)} numbers for {len(arguments.results)} files"
        )
    files = opened(arguments.results)
    results = evaluated(files, arguments.weights)
    compared = evaluated(opened(arguments.compare), None) if arguments.compare else None
    differences = {
        f"top{k}": paired_difference(results, compared, k)
        for k in (1, 5)
        if compared is not None and k <= min(r.outcomes.num_classes for r in (results, compared))
    }
    if arguments.json:
        tested = [file.header.source.get("weights") for file in files]
        summary = results.summary() | {"weights": tested if len(files) > 1 else tested[0]}
        if compared is not None:
            other = {key: compared.summary()[key] for key in differences}
            summary["compared"] = {
                k: d._asdict() | {"of": other[k]} for k, d in differences.items()
            }
        print(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    print(results.describe())
    for name, found in differences.items():
        print(
            f"{name} {found.difference:+.2%} against {' + '.join(map(str, arguments.compare))}: "
            f"95% interval {found.low:+.2%} to {found.high:+.2%}; right in this one only "
            f"{found.first_only} videos, in that one only {found.second_only}"
        )


def _evaluate_ava(arguments: argparse.Namespace) -> None:
    from datamodules.ava.label_map import read_label_map
    from hiera_video.results.ava import evaluate_files

    results, fit = evaluate_files(
        arguments.ground_truth,
        arguments.predictions,
        read_label_map(arguments.labels),
        arguments.excluded,
        arguments.protocol,
    )
    if arguments.json:
        summary = results.summary() | {"files": fit._asdict()}
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print(f"{results.describe()}\n\n{fit.describe()}")


def _task(words: Sequence[str]) -> str | None:
    """What comes after ``--task``."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--task", nargs="?")
    return parser.parse_known_args(words)[0].task


def _ava_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video evaluate",
        description="Mean average precision of detected actions from csv files, and what of them "
        "fits.",
    )
    add = parser.add_argument
    add("--task", choices=TASKS, required=True)
    add("--ground-truth", type=Path, required=True, metavar="FILE.csv")
    add("--predictions", type=Path, required=True, metavar="FILE.csv")
    add("--labels", type=Path, required=True, metavar="LIST.pbtxt", help="classes that count")
    add("--excluded", type=Path, metavar="FILE.csv", help="keyframes that do not: video,second")
    add("--protocol", choices=PROTOCOLS, default="official")
    add("--json", action="store_true", help="print one object")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video evaluate",
        description="Accuracy from the predictions.parquet of one test; of several, that of their "
        "averaged probabilities.",
        epilog="Detected actions: see hiera-video evaluate --task ava --help",
    )
    add = parser.add_argument
    add("--task", choices=TASKS, required=True)
    add("results", nargs="+", type=Path, metavar="RESULTS.parquet", help="or a test's run folder")
    add("--weights", type=_weights, metavar="W,...", help="of the files; default: all equal")
    add("--views", type=_views, default=(), metavar="TxS,...", help="such as 1x1,5x1,5x3")
    add(
        *("--compare",),
        nargs="+",
        type=Path,
        default=(),
        metavar="RESULTS.parquet",
        help="of another run: the difference with a paired bootstrap interval",
    )
    add("--json", action="store_true", help="print one object")
    return parser


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    file = path / "predictions.parquet"
    if not file.exists() and file.with_name(file.name + ".parts").exists():
        raise UsageError(f"{path}: its test was cut off; test ... resume={path} goes on")
    return file


def _weights(text: str) -> list[float]:
    try:
        weights = [float(word) for word in text.split(",")]
    except ValueError:
        weights = []
    if not weights or not all(w > 0 and math.isfinite(w) for w in weights):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of positive numbers such as 2,1")
    return weights


def _views(text: str) -> list[tuple[int, int]]:
    words = text.split(",")
    if not all(re.fullmatch(r"[1-9]\d*x[1-9]\d*", word) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of views such as 1x1,5x3")
    return [(int(t), int(s)) for t, s in (word.split("x") for word in dict.fromkeys(words))]
