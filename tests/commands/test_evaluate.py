import json
import subprocess
import sys
from pathlib import Path

import pytest

AVA = Path(__file__).parents[1] / "metrics" / "ava_fixture"


def coco_files(folder):
    """Ground truth with one object, and the detection of it."""
    objects = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
    ]
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": objects,
    }
    detections = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 0.9}]
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "detections.json").write_text(json.dumps(detections))
    return folder / "truth.json", folder / "detections.json"


@pytest.mark.parametrize("task", ["ava", "coco"])
def test_files_are_evaluated_without_torch(task, tmp_path):
    """Importing torch and torchmetrics would take most of the time."""
    if task == "ava":
        truth, predictions = AVA / "ground_truth.csv", AVA / "predictions.csv"
        more = ["--labels", AVA / "actions.pbtxt"]
    else:
        truth, predictions = coco_files(tmp_path)
        more = []
    words = ["evaluate", "--task", task, "--ground-truth", truth, "--predictions", predictions]
    code = "import sys; from hiera_video import cli; cli.main(); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, *map(str, [*words, *more])]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ("mAP@0.5IOU" if task == "ava" else "box: AP 1.0000") in output
    assert output.endswith("False\n")
