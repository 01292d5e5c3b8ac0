"""What is exported from a run, and used from Python, says what ``predict`` says."""

import json

import numpy as np
import onnxruntime

from datamodules.clips.format import ClipFormat
from datamodules.clips.videos import clips_of_views
from datamodules.video.decoding import VideoFile
from hiera_video import load
from hiera_video.commands import export as export_command
from tests.integration.conftest import TINY_DATA, TINY_MODEL, TINY_RUN
from tests.integration.forked import run


def test_python_and_exports_agree_with_predict(finetuned, workspace):
    run_dir, _ = finetuned
    videos = sorted((workspace / "data/synthetic").rglob("test/*/*.mp4"))[:3]
    run(
        *("predict", "--config", "demo/finetune", f"ckpt_path={run_dir}", "out=served.jsonl"),
        *(*TINY_MODEL, *TINY_DATA, *TINY_RUN, *videos),
        cwd=workspace,
    )
    lines = [json.loads(line) for line in (workspace / "served.jsonl").read_text().splitlines()]
    answers = {line["path"]: line["predictions"] for line in lines}
    assert len(answers) == len(videos)

    words = [run_dir, "--format", "safetensors", "--out", workspace / "exported"]
    export_command.run([str(word) for word in words])
    for predictor in (load(run_dir, "cpu"), load(workspace / "exported", "cpu")):
        for video in videos:
            predictions = predictor.predict(video)
            wanted = answers[str(video)]
            assert [p.label for p in predictions] == [p["label"] for p in wanted]
            for a, b in zip(predictions, wanted, strict=True):
                assert abs(a.probability - b["probability"]) < 1e-5
    card = (workspace / "exported/README.md").read_text()
    assert "val/top1" in card
    assert "Configuration `demo/finetune`" in card

    words = ["export", "exported", "--format", "onnx", "--uint8", "--out", "graph"]
    output = run(*words, cwd=workspace)
    assert "of the largest logit" in output
    predictor = load(run_dir, "cpu")
    session = onnxruntime.InferenceSession(workspace / "graph/model.onnx")
    with VideoFile(videos[0]) as file:
        clips = clips_of_views(file, ClipFormat(4, 4, 30, 64, 64), *predictor.views)
    (logits,) = session.run(None, {"video": np.ascontiguousarray(clips.transpose(0, 4, 1, 2, 3))})
    shares = np.exp(logits - logits.max(1, keepdims=True))
    mean = (shares / shares.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(mean, predictor.probabilities(videos[0]), atol=1e-5)


def test_an_export_has_class_names_as_its_run_has(finetuned, workspace):
    run_dir, _ = finetuned
    export_command.run([str(run_dir), "--format", "safetensors", "--out", str(workspace / "named")])
    words = [
        "--config",
        "demo/finetune",
        "task.init_from=named",
        *TINY_MODEL,
        *TINY_DATA,
        *TINY_RUN,
    ]
    videos = sorted((workspace / "data/synthetic").rglob("test/*/*.mp4"))[:1]
    run("predict", *words, "out=named.jsonl", *videos, cwd=workspace)
    line = json.loads((workspace / "named.jsonl").read_text())
    assert [p["label"] for p in line["predictions"]] == [
        p.label for p in load(run_dir, "cpu").predict(videos[0])
    ]
    run("test", *words, "run_dir=runs/named", cwd=workspace)
    results = json.loads((workspace / "runs/named/results.json").read_text())
    words_ = ["named", "--format", "safetensors", "--results", "runs/named", "--out", "again"]
    run("export", *words_, cwd=workspace)
    assert f"| top1 | {results['top1']:.4f} |" in (workspace / "again/README.md").read_text()

    description = json.loads((workspace / "named/model.json").read_text())
    description["class_names"][3] = "yet another"
    (workspace / "named/model.json").write_text(json.dumps(description))
    output = run("test", *words, "run_dir=runs/others", cwd=workspace, code=2)
    assert "not one of the 8 known classes" in output.splitlines()[-1]
