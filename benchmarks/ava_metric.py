"""Time and memory of AVA's metric on as many boxes as a detector finds in the validation split.

57,000 keyframes with about 16 boxes each, as arrays with a score for each of 60 classes, or as a
csv with a given number of rows. There are a fifth as many rows of ground truth.

    python benchmarks/ava_metric.py arrays --protocol official
    python benchmarks/ava_metric.py csv --rows 6300000
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from datamodules.ava.box_table import keyframe_keys
from hiera_video.metrics.ava import AVAMeanAveragePrecision
from hiera_video.metrics.ava_boxes import sorted_boxes
from hiera_video.results.ava import evaluate_files
from hiera_video.results.ava_csv import write_ava_csv

VIDEOS, SECONDS, CLASSES = 64, 897, 60
IDS = tuple(range(1, CLASSES + 1))


def truth_and_boxes(rng: np.random.Generator, count: int) -> tuple[tuple, tuple]:
    """Arrays for `set_ground_truth` and for `update`; most boxes are right.

    Args:
        rng: source of randomness.
        count: number of boxes; a fifth of it is the number of ground-truth rows.
    """
    keyframe = np.sort(rng.integers(0, VIDEOS * SECONDS, count))
    video, second = keyframe // SECONDS, 902.0 + keyframe % SECONDS
    corner, size = rng.uniform(0, 0.6, (count, 2)), rng.uniform(0.1, 0.4, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1).round(3)
    true = rng.choice(count, count // 5)
    # A few classes have most of the boxes, as in AVA.
    action = np.minimum(rng.zipf(1.5, len(true)), CLASSES)
    truth = video[true], second[true], boxes[true], action, np.zeros(len(true))
    near = (boxes + rng.normal(0, 0.02, boxes.shape)).clip(0, 1).astype(np.float32)
    scores = rng.beta(0.2, 8, (count, CLASSES)).astype(np.float32)
    right = rng.random(len(true)) < 0.7
    scores[true[right], action[right] - 1] = rng.beta(2, 3, right.sum())
    return truth, (near, scores, video, second)


def arrays(count: int, protocol: str) -> None:
    """The metric as a test uses it, in batches of 64 keyframes or so."""
    truth, rows = truth_and_boxes(np.random.default_rng(0), count)
    metric = AVAMeanAveragePrecision([str(i) for i in IDS], IDS, protocol)
    batches = [torch.from_numpy(values).split(1024) for values in rows]
    before, started = peak(), time.perf_counter()
    metric.set_ground_truth(*truth)
    for batch in zip(*batches, strict=True):
        metric.update(*batch)
    results = metric.results()
    tell(f"{count:,} boxes x {CLASSES} classes", protocol, results, started, before)


def csv(count: int, protocol: str) -> None:
    """``evaluate --task ava`` on a file of ``count`` rows."""
    # All boxes are kept, each with as many classes as give the number of rows.
    boxes = min(900_000, count)
    truth, (near, scores, video, second) = truth_and_boxes(np.random.default_rng(0), boxes)
    kept = max(1, count // boxes)
    detected = sorted_boxes(keyframe_keys(video, second), near, scores[:, :kept])
    names = [f"video-{i:02}" for i in range(VIDEOS)]
    with tempfile.TemporaryDirectory() as folder:
        predictions, annotation = Path(folder, "predictions.csv"), Path(folder, "truth.csv")
        started = time.perf_counter()
        with open(predictions, "wb") as file:
            write_ava_csv(file, names, detected, IDS[:kept])
        written = time.perf_counter() - started
        with annotation.open("w") as file:
            for v, s, box, action, person in zip(*truth, strict=True):
                sides = ",".join(f"{side:.3f}" for side in box)
                file.write(f"{names[v]},{s:04.0f},{sides},{action},{person:.0f}\n")
        size, rows = predictions.stat().st_size / 2**20, kept * len(detected.video)
        del detected, near, scores, truth
        before, started = peak(), time.perf_counter()
        results, _ = evaluate_files(
            annotation, predictions, {i: str(i) for i in IDS}, None, protocol
        )
        print(f"{rows:,} rows, {size:.0f} MiB, written in {written:.1f} s")
        tell("read and evaluated", protocol, results, started, before)


def tell(what: str, protocol: str, results, started: float, before: float) -> None:
    """Print the mAP, the time since ``started`` and the memory."""
    seconds = time.perf_counter() - started
    print(f"{what}, {protocol} protocol: mAP@0.5IOU {results.mean():.4f}")
    print(f"| {seconds:.1f} s | peak {peak():.0f} MiB, {before:.0f} MiB of it before |")


def peak() -> float:
    """Peak resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(description="Time and memory of AVA's metric.")
    parser.add_argument("what", choices=("arrays", "csv"))
    parser.add_argument("--boxes", type=int, default=900_000)
    parser.add_argument("--rows", type=int, default=6_300_000)
    parser.add_argument("--protocol", default="official")
    arguments = parser.parse_args()
    if arguments.what == "arrays":
        arrays(arguments.boxes, arguments.protocol)
    else:
        csv(arguments.rows, arguments.protocol)


if __name__ == "__main__":
    main()
