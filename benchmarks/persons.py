"""Action detection with one's own detector of persons: how good are its boxes, and the actions?

The shapes of `demo/detect` stand for persons. A small Mask R-CNN learns them from single pictures,
in COCO's format with exact masks; then `predict boxes=RUN` finds who is there and what they do. The
other row of the table has the boxes of the annotation. Trainings and predictions are commands that
a user would type; they are printed before they run.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.demo import command
from datamodules.clips.boxes import intersection_over_union
from datamodules.coco.rle import encode, to_text
from datamodules.manifests.splitting import SPLITS
from datamodules.synthetic_ava import OFFSET, SyntheticAVADataModule, render_shapes
from datamodules.video.decoding import VideoFile

VIDEOS, SECONDS, SIZE = (400, 40, 60), 4, 64  # as demo/detect has them
PERSON = {"id": 1, "name": "person"}


def write_persons(data: SyntheticAVADataModule, folder: Path) -> None:
    """Write the keyframes of all videos as pictures, with boxes and masks in COCO's format.

    Args:
        data: whose videos are written.
        folder: to write to.
    """
    (folder / "annotations").mkdir(parents=True)
    for number, split in enumerate(SPLITS):
        (folder / split).mkdir()
        images, annotations = [], []
        for i in range(data.description["videos"][number]):
            for name, picture, objects in _keyframes(data, number, i):
                Image.fromarray(picture).save(folder / split / name, quality=95)
                height, width = picture.shape[:2]
                image_id = len(images) + 1
                images.append({"id": image_id, "file_name": name, "height": height, "width": width})
                for found in objects:
                    annotations.append(
                        {"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0, **found}
                    )
        content = {"images": images, "annotations": annotations, "categories": [PERSON]}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _keyframes(
    data: SyntheticAVADataModule, split: int, number: int
) -> Iterator[tuple[str, np.ndarray, list[dict[str, Any]]]]:
    """Name, pixels and persons of each keyframe of a video."""
    facts = data.description
    video = f"{SPLITS[split]}_{number:04d}"
    shapes = render_shapes(
        np.random.default_rng((facts["seed"], split, number)), facts["seconds"], facts["size"]
    )
    seconds = range(1, facts["seconds"])
    with VideoFile(data.root / "videos" / f"{video}.mp4") as file:
        pictures = file.frames_at(seconds)
    for i, second in enumerate(seconds):
        pairs = zip(shapes.boxes[:, i], shapes.masks[:, i], strict=True)
        yield (
            f"{video}_{second}.jpg",
            pictures[i],
            [_person(*pair, facts["size"]) for pair in pairs],
        )


def _person(box: np.ndarray, mask: np.ndarray, size: int) -> dict[str, Any]:
    x1, y1, x2, y2 = (box * size).tolist()
    return {
        "category_id": PERSON["id"],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(mask.sum()),
        "segmentation": {"size": [size, size], "counts": to_text(encode(mask))},
    }


def found_and_right(
    truth: dict[Any, np.ndarray], detected: dict[Any, np.ndarray]
) -> tuple[float, float]:
    """Recall and precision of boxes at an IoU of at least 0.5, each box of the truth found once.

    Args:
        truth: boxes of each keyframe, float ``(N, 4)``.
        detected: the same; other keyframes do not count.
    """
    right = total = 0
    for key, boxes in truth.items():
        ours = detected.get(key, np.zeros((0, 4)))
        overlaps = intersection_over_union(ours[:, None], boxes[None])  # (ours, boxes)
        total += len(ours)
        for row in overlaps:
            best = int(row.argmax())
            if row[best] >= 0.5:
                right += 1
                overlaps[:, best] = 0
    return right / sum(map(len, truth.values())), right / max(1, total)


def boxes_of(file: Path, offset: int = 0) -> dict[tuple[str, int], np.ndarray]:
    """The different boxes of each keyframe in a csv of AVA's format."""
    rows: dict[tuple[str, int], dict[tuple[float, ...], None]] = defaultdict(dict)
    with open(file, newline="") as lines:
        for video, second, *rest in csv.reader(lines):
            rows[video, int(second) - offset][tuple(map(float, rest[:4]))] = None
    return {key: np.array(list(boxes)) for key, boxes in rows.items()}


def predicted(run: str, boxes: Path | str, videos: Sequence[Path], out: Path, least: float) -> Path:
    """The csv of all actions in the videos of persons who score at least ``least``."""
    words = [f"boxes={boxes}", f"out={out}", f"persons.min_score={least}"]
    command("predict", run, *map(str, videos), *words)
    file = out / "all.csv"
    file.write_text("".join((out / f"{video.stem}.csv").read_text() for video in videos))
    return file


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actions", help="run of demo/detect; else one is trained from scratch")
    parser.add_argument("--persons", help="run that finds persons; else one is trained")
    parser.add_argument("--min-score", type=float, default=0.95, help="of persons")
    parser.add_argument("--data", default="data/synthetic", help="folder of synthetic data")
    arguments = parser.parse_args()
    folder = Path("runs/persons", time.strftime("%Y%m%d-%H%M%S"))
    folder.mkdir(parents=True)
    clip: dict[str, Any] = {"size": (SIZE, SIZE), "short_side": (SIZE, SIZE)}
    data = SyntheticAVADataModule(arguments.data, VIDEOS, SECONDS, SIZE, **clip)
    data.prepare_data()
    actions, persons = arguments.actions, arguments.persons
    if persons is None:
        write_persons(data, folder / "pictures")
        persons = str(folder / "detector")
        words = ["data=coco", f"data.root={folder / 'pictures'}", "data.train=train"]
        words += ["data.val=val", "data.size=[128,128]", "data.scale=[0.8,1.25]"]
        words += ["data.batch_size=4", "data.eval_batch_size=10", "data.num_workers=1"]
        words += ["task.epochs.count=1", "trainer.check_val_every_n_epoch=1"]
        command("fit", "--config", "demo/instances", f"run_dir={persons}", *words)
    if actions is None:
        actions = str(folder / "actions")
        where = f"data.root={arguments.data}"
        command("fit", "--config", "demo/detect", f"run_dir={actions}", where)
    annotations = data.root / "annotations"
    videos = sorted((data.root / "videos").glob("test_*.mp4"))
    truth = boxes_of(annotations / "ava_test_v2.2.csv", OFFSET)
    given, shifted = folder / "given.csv", folder / "truth.csv"
    with open(given, "w", newline="") as file:
        for (video, second), boxes in truth.items():
            csv.writer(file).writerows((video, second, *box, "", 1) for box in boxes)
    with open(annotations / "ava_test_v2.2.csv", newline="") as rows, open(shifted, "w") as file:
        for video, second, *rest in csv.reader(rows):
            csv.writer(file).writerow((video, int(second) - OFFSET, *rest))
    table = []
    for name, boxes in (("the annotation's", given), ("the detector's", persons)):
        result = predicted(
            actions, boxes, videos, folder / f"predicted-{len(table)}", arguments.min_score
        )
        words = ["evaluate", "--task", "ava", "--ground-truth", shifted, "--predictions", result]
        words += ["--labels", annotations / data.label_map, "--json"]
        program = [sys.executable, "-m", "hiera_video", *map(str, words)]
        text = subprocess.check_output(program, text=True)
        scores = json.loads(text[text.index("{") : text.rindex("}") + 1])
        table.append((name, *found_and_right(truth, boxes_of(result)), scores["mAP@0.5IOU"]))
    print(f"\n{'boxes':<18} {'recall':>8} {'precision':>10} {'mAP':>8}")
    for name, *numbers in table:
        print(f"{name:<18} {numbers[0]:8.3f} {numbers[1]:10.3f} {numbers[2]:8.4f}")
    print(f"\n{len(videos)} files, {len(truth)} keyframes; files in {folder}")


if __name__ == "__main__":
    main()
