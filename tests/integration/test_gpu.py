"""The commands on a GPU: what they train, and that what they find is what a CPU finds."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from hiera_video import load
from tests.integration import test_detection as detection
from tests.integration import test_images as images
from tests.integration import test_instance_segmentation as instances
from tests.integration.conftest import TINY_DATA, TINY_MAE, TINY_MODEL, TINY_RUN
from tests.integration.forked import run

pytestmark = pytest.mark.gpu

MAE = ["model.decoder_embed_dim=16", "model.decoder_depth=1"]
KINDS = {
    "pretrain": [*TINY_MAE, *TINY_DATA],
    "finetune": [*TINY_MODEL, *TINY_DATA],
    "detect": [*detection.MODEL, *detection.DATA],
    "instances": [*instances.MODEL, *instances.DATA],
    "images_pretrain": [*images.MODEL, *MAE, *images.DATA],
    "images_finetune": [*images.MODEL, *images.DATA],
}
TRAINING = [word for word in TINY_RUN if "accelerator" not in word]


def on_gpu(*words, cwd, **kwargs):
    return run(*words, cwd=cwd, CUDA_VISIBLE_DEVICES="0", **kwargs)


def words_of(kind):
    return ["--config", f"demo/{kind}", *KINDS[kind]]


def results(folder):
    return json.loads((folder / "results.json").read_text())


def numbers(value, name=""):
    """All fractions in a file of results, however deep, by the path to them."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in numbers(value[key], f"{name}/{key}").items()}
    return {name: value} if isinstance(value, float) else {}


def rows(run_dir):
    """Names and numbers that `test` wrote: of the views of videos, or of boxes and actions."""
    if (run_dir / "predictions.parquet").exists():
        table = pq.read_table(run_dir / "predictions.parquet").to_pylist()
        return [r["video_id"] for r in table], np.array([r["probabilities"] for r in table])
    if (run_dir / "predictions.csv").exists():
        table = np.loadtxt(run_dir / "predictions.csv", delimiter=",", dtype=str)
        return table[:, :-1].tolist(), table[:, -1].astype(float)
    return [], []  # objects: their order depends on scores that may be almost equal


@pytest.mark.parametrize(
    "options",
    [
        ["trainer.precision=16-mixed"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.precision=bf16-mixed", "task.compile=default"],
    ],
    ids=["fp16", "bf16", "compiled"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_training_and_its_test(kind, options, tmp_path):
    words = [*words_of(kind), "trainer.accelerator=gpu", *options]
    on_gpu("fit", *words, *TRAINING, "run_dir=runs/fit", cwd=tmp_path)
    assert (tmp_path / "runs/fit/checkpoints/last.ckpt").exists()
    assert json.loads((tmp_path / "runs/fit/run.json").read_text())[0]["gpus"]
    if "pretrain" not in kind:
        on_gpu("test", "runs/fit", "run_dir=runs/test", cwd=tmp_path)
        assert results(tmp_path / "runs/test")


@pytest.mark.parametrize("kind", ["finetune", "detect", "instances", "images_finetune"])
def test_a_test_finds_what_a_cpu_finds(kind, tmp_path):
    run("fit", *words_of(kind), *TINY_RUN, "run_dir=runs/fit", cwd=tmp_path)
    words = ["test", "runs/fit", "trainer.precision=32-true"]
    run(*words, "trainer.accelerator=cpu", "run_dir=runs/cpu", cwd=tmp_path)
    on_gpu(*words, "trainer.accelerator=gpu", "run_dir=runs/gpu", cwd=tmp_path)
    folders = [tmp_path / f"runs/{name}" for name in ("cpu", "gpu")]
    expected, found = (numbers(results(folder)) for folder in folders)
    assert expected
    assert found == pytest.approx(expected, abs=0.02, nan_ok=True)
    (names, scores), (found_names, found_scores) = map(rows, folders)
    assert (len(names) > 0) == (kind != "instances")
    assert found_names == names
    np.testing.assert_allclose(found_scores, scores, atol=2e-3)


def test_features_and_predictions_are_those_of_a_cpu(tmp_path):
    run("fit", *words_of("finetune"), *TINY_RUN, "run_dir=runs/fit", cwd=tmp_path)
    (videos,) = tmp_path.glob("data/synthetic/*/test")
    for name, command in (("cpu", run), ("gpu", on_gpu)):
        command("embed", "runs/fit", videos, "--out", name, cwd=tmp_path)
    tables = [pq.read_table(tmp_path / n / "embeddings.parquet") for n in ("cpu", "gpu")]
    vectors = [np.stack(table["vector"].to_numpy()) for table in tables]
    assert len(vectors[0]) == 16
    np.testing.assert_allclose(*vectors, atol=2e-3 * np.abs(vectors[0]).max())
    video = sorted(videos.rglob("*.mp4"))[0]
    models = [load(tmp_path / "runs/fit", device) for device in ("cpu", "cuda")]
    expected, found = (
        {p.label: p.probability for p in model.predict(video, top=8)} for model in models
    )
    assert found == pytest.approx(expected, abs=2e-3)
