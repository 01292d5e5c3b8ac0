"""Pictures through the commands: the same road as videos."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hiera_video import create_model, load
from tests.integration.conftest import TINY_RUN
from tests.integration.forked import run

DATA = ["data.images=[24,8,16]", "data.batch_size=8", "data.eval_batch_size=8"]
DATA += ["data.image_size=64", "data.size=[64,64]"]
MODEL = ["model.input_size=[64,64]", "model.embed_dim=8", "model.stages=[1,1,1,1]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def pretrained(folder):
    run(
        *("fit", "--config", "demo/images_pretrain", "run_dir=runs/pretrained"),
        *("model.decoder_embed_dim=16", "model.decoder_depth=1", *MODEL, *DATA, *TINY_RUN),
        cwd=folder,
    )
    return folder / "runs/pretrained"


@pytest.fixture(scope="module")
def finetuned(folder, pretrained):
    run(
        *("fit", "--config", "demo/images_finetune", "run_dir=runs/finetuned"),
        *(f"task.init_from={pretrained}", *MODEL, *DATA, *TINY_RUN),
        cwd=folder,
    )
    return folder / "runs/finetuned"


def pictures(folder, split="test"):
    return sorted(folder.glob(f"data/synthetic/shapes-*/{split}/*/*.jpg"))


def test_pretraining_shows_reconstructions(pretrained):
    (picture, *_) = sorted((pretrained / "reconstructions").glob("*.png"))
    with Image.open(picture) as image:
        assert image.size == (100 + 64 + 4, (64 + 4) * 4 * 4)  # one frame, four pictures, four rows
    painted = load(pretrained, "cpu").reconstruct(pictures(pretrained.parents[1])[0])
    assert painted.rows.shape == (4, 1, 64, 64, 3)


def test_a_test_writes_probabilities_that_load_repeats(folder, finetuned):
    run("test", "runs/finetuned", "run_dir=runs/tested", cwd=folder)
    results = json.loads((folder / "runs/tested/results.json").read_text())
    assert {"top1", "top5", "mean_class_accuracy"} <= results.keys()
    assert len(results["per_class"]) == 8
    table = pq.read_table(folder / "runs/tested/predictions.parquet").to_pydict()
    predictor = load(finetuned, "cpu")
    assert predictor.clip[:1] + predictor.clip[-2:] == (1, "bicubic", 1.0)
    for path in pictures(folder)[:3]:
        row = next(i for i, name in enumerate(table["path"]) if name.endswith(path.name))
        np.testing.assert_allclose(
            predictor.probabilities(path), table["probabilities"][row], atol=1e-5
        )


def test_pictures_and_folders_are_predicted(folder, finetuned):
    first, *_ = pictures(folder)
    run(
        *("predict", "runs/finetuned", f"data.predict=[{first},{first.parent}]", "out=out.jsonl"),
        cwd=folder,
    )
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines][:2] == [str(first)] * 2
    assert len(lines) == 3  # the named one, and the two of its class
    expected = load(finetuned, "cpu").predict(first, top=1)[0]
    assert lines[0]["predictions"][0]["label"] == expected.label


def test_features_saliency_and_the_probe_work(folder, pretrained, finetuned):
    first = pictures(folder)[0]
    predictor = load(finetuned, "cpu")
    assert predictor.embed(first).features.shape == (1, 64)
    assert predictor.embed(first, pool=False).features.shape == (1, 1, 4, 4, 64)
    with pytest.raises(ValueError, match="a picture has one vector"):
        predictor.embed(first, stride=1.0)
    for method in ("grad_cam", "occlusion"):
        assert predictor.saliency(first, method=method).map.shape == (1, 64, 64)
    output = run(
        *("test", "--config", "imagenet/probe", "data=shapes", f"task.init_from={pretrained}"),
        *("+model.mask_unit_size=[4,4]", "+model.q_pool=2"),
        *(f"+{word}" for word in MODEL),
        *("+model.num_heads=1", "model.name=hiera_tiny_224", "run_dir=runs/probed"),
        *("trainer.accelerator=cpu", "trainer.precision=32-true", "task.k=3", *DATA),
        cwd=folder,
    )
    assert "test/knn_top1" in output


def test_another_size_at_test_time(folder, finetuned):
    run(
        *("test", "--config", "demo/images_finetune", f"task.init_from={finetuned}"),
        *(*MODEL, *DATA, "model.input_size=[96,96]", "data.size=[96,96]"),
        *("run_dir=runs/larger", "trainer.accelerator=cpu"),
        cwd=folder,
    )
    assert json.loads((folder / "runs/larger/results.json").read_text())["videos"] == 16


def test_pictures_are_checked_and_prepared(folder, finetuned):
    source = pictures(folder)[0].parents[2]
    words = ("--config", "images/finetune", f"data.root={source}")
    assert "48 images, no faults" in run("check", *words, cwd=folder)
    output = run(
        *("prepare", *words, "--out", "small", "--transcode", "--short-side", "32"), cwd=folder
    )
    assert "24 images, 24 ok, 0 bad; " in output
    assert "hours" not in output
    assert "32x32" in output


def test_a_folder_of_pictures_without_a_configuration(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), np.uint8)
    for i, name in enumerate(("cat/0.jpg", "cat/1.PNG", "dog/0.webp", "dog/bad.jpg")):
        file = tmp_path / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise[i]).save(file)
    file.write_bytes(file.read_bytes()[:-500])
    output = run("check", "pictures", "--processes", "1", cwd=tmp_path, code=1)
    assert f"corrupt  {file}: image file is truncated" in output
    assert "pictures: 4 images of 2 classes: first 'cat' 2, last 'dog' 2" in output
    assert output.endswith("1 of 4 images has faults\n")
    words = ("prepare", "pictures", "--out", "out", "--transcode", "--processes", "1")
    output = run(*words, "--short-side", "30", "--pack", cwd=tmp_path)
    assert "out/manifest.parquet: 4 images, 3 ok, 1 bad; " in output
    assert "; jpeg; 40x30\n" in output
    assert (tmp_path / "out/cat/1.PNG.jpg").exists()
    table = pq.read_table(tmp_path / "out/packed/manifest.parquet").to_pydict()
    assert table["ok"] == [True, True, True, False]
    assert (table["width"][:3], table["height"][:3]) == ([40] * 3, [30] * 3)
    output = run("check", "out/packed", cwd=tmp_path, code=1)
    assert output.endswith("1 of 4 images has faults\n")
    output = run(*words[:-2], "--crf", "20", cwd=tmp_path, code=2)
    assert output.endswith("--crf is for videos; images are written as JPEG of quality 95\n")


@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_an_export_opens_in_another_library_and_comes_back(folder, finetuned, layout):
    """The demo's network has small mask units, which other libraries' cannot have."""
    out = folder / f"out-{layout}"
    words = ("model.mask_unit_size=[8,8]", "model.q_pool=3", "model.head_init_scale=1")
    run(
        *(
            "fit",
            "--config",
            "demo/images_finetune",
            f"run_dir=runs/{layout}",
            "task.init_from=null",
        ),
        *(*words, *MODEL, *DATA, *TINY_RUN, "trainer.max_epochs=1"),
        cwd=folder,
    )
    run("export", f"runs/{layout}", "--format", layout, "--out", out, cwd=folder)
    ours, path = load(folder / "runs" / layout, "cpu"), pictures(folder)[0]
    if layout == "transformers":
        from transformers import pipeline

        names = pipeline("image-classification", model=str(out), device="cpu", top_k=8)(str(path))
        theirs = {answer["label"]: answer["score"] for answer in names}
        for label, probability in ours.predict(path, top=8):
            assert theirs[label] == pytest.approx(probability, abs=2e-3)
    back = create_model(
        "hiera_tiny_224", input_size=(64, 64), embed_dim=8, stages=(1, 1, 1, 1), num_classes=8
    )
    from hiera_video import load_weights

    load_weights(back, out)
    for name, value in back.state_dict().items():
        assert torch.equal(value, ours.model.state_dict()[name]), name
