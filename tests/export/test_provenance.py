"""Where weights come from, and the model card that says it."""

import json
import os

import pytest
import torch
import yaml

from hiera_video.errors import CheckpointError
from hiera_video.export.model_card import model_card
from hiera_video.export.provenance import (
    Measured,
    licence,
    read_results,
    training_record,
    training_versions,
)
from hiera_video.metrics.multi_view import MultiViewAccuracy
from hiera_video.metrics.results import Results
from hiera_video.results.prediction_files import stamped
from hiera_video.weights.portable import write_model
from hiera_video.weights.trained import read_trained
from tests.metrics.results import ava_results, coco_results
from tests.models.small import tiny_model
from tests.trained_models import CLASSES, checkpoint, config, write_run
from tests.weights.test_portable import DESCRIPTION


def run_folder(folder, init_from=None, argv=()):
    """A run that says what it started from in its configuration, and in its command."""
    write_run(folder, init_from=init_from)
    (folder / "config.yaml").write_text(yaml.safe_dump({"task": {"init_from": init_from}}))
    (folder / "run.json").write_text(json.dumps([{"argv": ["fit", *argv]}, {"argv": ["fit"]}]))
    return folder


def licence_of(folder):
    trained = read_trained(folder)
    return licence(trained)


def test_a_licence_goes_down_a_chain_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    runs = tmp_path / "runs"
    run_folder(runs / "own")
    run_folder(runs / "from_own", init_from="runs/own")
    run_folder(runs / "published", init_from="mae_hiera_base_16x224")
    run_folder(runs / "second", init_from="runs/published/checkpoints/last.ckpt")
    run_folder(runs / "third", init_from=str(runs / "second"))
    run_folder(runs / "gone", init_from="runs/never/there")
    run_folder(runs / "after_gone", init_from="runs/gone")
    run_folder(runs / "loop", init_from="runs/loop")
    assert licence_of(runs / "own") is None
    assert licence_of(runs / "from_own") is None
    for name in ("published", "second", "third"):
        assert licence_of(runs / name) == "CC-BY-NC-4.0"
    for name in ("gone", "after_gone", "loop"):
        assert licence_of(runs / name) == "unknown"


def test_relative_weights_are_those_of_the_folder_in_which_a_run_was_started(tmp_path):
    run_folder(tmp_path / "work/weights", init_from="mae_hiera_base_16x224")
    run = run_folder(tmp_path / "disk/run", init_from="weights")
    (run / "run.json").write_text(json.dumps([{"argv": ["fit"], "cwd": str(tmp_path / "work")}]))
    assert licence_of(run) == "CC-BY-NC-4.0"


def test_a_resumed_run_says_in_its_first_command_what_it_started_from(tmp_path):
    run_folder(tmp_path / "run", argv=["task.init_from=/elsewhere/mae_hiera_base_16x224.pth"])
    assert licence_of(tmp_path / "run") == "CC-BY-NC-4.0"


def test_other_kinds_of_links(tmp_path):
    write_model_folder = tmp_path / "exported"
    write_model_folder.mkdir()
    write_model(write_model_folder, tiny_model(), DESCRIPTION._replace(licence="CC-BY-NC-4.0"))
    assert licence_of(run_folder(tmp_path / "a", str(write_model_folder))) == "CC-BY-NC-4.0"
    lone = tmp_path / "lone.ckpt"
    torch.save(checkpoint(tiny_model(), config(init_from="hiera_huge_224")), lone)
    assert licence_of(run_folder(tmp_path / "b", str(lone))) == "CC-BY-NC-4.0"
    foreign = tmp_path / "foreign.pth"
    torch.save(tiny_model().state_dict(), foreign)
    assert licence_of(run_folder(tmp_path / "c", str(foreign))) == "unknown"
    foreign.write_bytes(b"damaged")
    assert licence_of(tmp_path / "c") == "unknown"


METRICS = """epoch,step,train/loss,val/top1
0,5,2.0,
0,5,,0.1
1,11,1.5,
1,11,,0.25
2,17,,0.9
"""


def test_the_record_is_of_this_checkpoint(tmp_path):
    run_folder(tmp_path)
    (tmp_path / "metrics/version_0").mkdir(parents=True)
    (tmp_path / "metrics/version_0/metrics.csv").write_text(METRICS)
    trained = read_trained(tmp_path)
    record = training_record(trained)
    assert (record["epochs"], record["steps"]) == (2, 12)
    assert record["validation"] == {"val/top1": 0.25}
    assert record["recipe"]["lr"] == 1e-3
    assert "/secret" not in json.dumps(record)
    alone = trained._replace(home=None)
    assert training_record(alone)["validation"] == {}
    assert training_versions(alone) == {"lightning": "2.6.4"}


def card(**fields):
    return model_card(DESCRIPTION._replace(**fields), "load()")


def test_the_card_says_no_more_than_is_known(tmp_path):
    text = card()
    assert "Not measured." in text
    assert "## Data\n\nUnknown." in text
    assert "license:" not in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["pipeline_tag"] == "video-classification"
    assert "not for commercial use" in card(licence="CC-BY-NC-4.0")
    assert "license: cc-by-nc-4.0" in card(licence="CC-BY-NC-4.0")
    assert "could not be determined" in card(licence="unknown")
    names = tuple(f"class {i}" for i in range(400))
    assert "400 classes" in card(class_names=names)
    assert "and 380 more" in card(class_names=names)
    assert "class 20" not in card(class_names=names)


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ("clip", "one of every 4 at 30 frames per second"),
        ("spread", "at equal steps over 64 at 30 frames per second"),
        ("segments", "one from each of 16 equal parts of a video"),
    ],
)
def test_the_card_says_which_frames_a_clip_has(sampling, words):
    clip = {"num_frames": 16, "stride": 4, "fps": 30, "size": [64, 64], "test_views": [2, 3]}
    assert f"16 frames of 64 x 64 pixels, {words}." in card(clip=clip | {"sampling": sampling})


def test_the_card_of_a_run(tmp_path):
    run_folder(tmp_path, init_from="mae_hiera_base_16x224")
    trained = read_trained(tmp_path)
    description = trained.description._replace(
        training=training_record(trained), licence="CC-BY-NC-4.0"
    )
    results = Measured({"test/top1": 0.5}, weights_known=True)
    text = model_card(description, "load()", results=results, checked="Compared.")
    for words in ("`any/tiny`", "epoch 2", "12 steps", "`mae_hiera_base_16x224`", "| lr | 0.001 |",
                  "| test/top1 | 0.5000 |", "Compared.", "red", "2 x 3 views"):  # fmt: skip
        assert words in text, words
    assert len(CLASSES) == 5


def test_the_newest_validation_counts_and_versions_are_numbers(tmp_path):
    for version, top1 in ((2, 0.2), (10, 0.7)):
        (tmp_path / f"metrics/version_{version}").mkdir(parents=True)
        text = f"epoch,val/top1,val/loss\n1,{top1},\n1,,nonsense\n"
        (tmp_path / f"metrics/version_{version}/metrics.csv").write_text(text)
    (tmp_path / "metrics/version_x").mkdir()
    (tmp_path / "metrics/version_x/metrics.csv").write_text("epoch,val/top1\n1,0.9\n")
    write_run(tmp_path)
    assert training_record(read_trained(tmp_path))["validation"] == {"val/top1": 0.7}


def without(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("epoch"),
        without("global_step"),
        without("pytorch-lightning_version"),
        without("config", "trainer"),
        without("config", "callbacks"),
        without("config", "name"),
        without("config", "task", "lr"),
        lambda c: c.update(epoch="1", global_step=None),
        lambda c: c["config"]["task"].update(
            epochs=5, optimizer=3, batch="x", mixing=torch.ones(1)
        ),
        lambda c: c["config"]["task"].update(init_from=["a", "b"]),
        lambda c: c["config"].update(callbacks=[1], trainer="x", name=None),
        lambda c: c["config"]["data"].update({("a", "b"): {1}}),
    ],
)
@pytest.mark.parametrize("starts", ["{}", "5", '[{"argv": 3, "versions": [1]}]', "["])
def test_what_a_checkpoint_does_not_say_is_unknown(tmp_path, change, starts):
    content = checkpoint(tiny_model(), config(), class_names=CLASSES)
    change(content)
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints/last.ckpt")
    (tmp_path / "run.json").write_text(starts)
    trained = read_trained(tmp_path)
    record = training_record(trained)
    licence(trained)
    text = card(training=record, versions=training_versions(trained))
    assert "None" not in text.partition("## Recipe")[2].partition("## Licence")[0]
    assert ("from epoch 2" in text) == (content.get("epoch") == 1)
    # It comes back from the file as it is.
    description = trained.description._replace(training=record, versions=training_versions(trained))
    write_model(tmp_path, tiny_model(), description)
    assert read_trained(tmp_path).description == description


@pytest.mark.parametrize("training", [{"data": 3}, {"validation": [1]}, {"started_from": 5}])
def test_the_card_of_another_ones_export(training):
    assert "## Recipe" in card(training=training)


def summary():
    """What a test writes, of four videos, one of them without a label."""
    metric = MultiViewAccuracy(4, 5)
    label = torch.tensor([0, 1, 2, -1])
    metric.update(torch.eye(5)[[0, 1, 3, 4]], label, torch.arange(4), torch.zeros(4).long())
    return Results(metric.outcomes(), CLASSES, ["a", "b", "c", "d"]).summary()


def test_metrics_are_no_counts(tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(summary()))
    results = read_results(tmp_path, "hiera_base_16x224")
    third = pytest.approx(2 / 3)
    assert results.metrics == {"top1": third, "top5": 1, "mean_class_accuracy": third}
    text = model_card(DESCRIPTION, "load()", results=results)
    assert "| top1 | 0.6667 |" in text
    for words in ("videos", "unlabelled", "missing"):
        assert words not in text.partition("## Metrics")[2].partition("## Licence")[0]
    file.write_text('{"test/top1": 0.5, "per_class": {"a": 1}, "val/x": NaN, "videos": 7}')
    assert read_results(file, "any").metrics == {"test/top1": 0.5}
    for text, message in (
        ("[1]", "not an object of JSON"),
        ("{", "not valid JSON"),
        ('{"videos": 3, "unlabelled": 0}', "holds no metrics"),
        ('{"top1": true}', "holds no metrics"),
    ):
        file.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_results(tmp_path, "any")
    with pytest.raises(CheckpointError, match="No such file"):
        read_results(tmp_path / "gone", "any")


@pytest.mark.parametrize(
    ("results", "first", "number"),
    [
        (ava_results(), {"mAP@0.5IOU (official protocol)": 0.5}, 1),
        (coco_results(), {"mask_AP": 0.4, "mask_AP50": 0.4}, 10),
    ],
)
def test_metrics_of_detections(tmp_path, results, first, number):
    (tmp_path / "results.json").write_text(json.dumps(results.summary()))
    measured = read_results(tmp_path, "any")
    assert dict(list(measured.metrics.items())[: len(first)]) == first
    assert len(measured.metrics) == number
    name, value = next(iter(first.items()))
    assert f"| {name} | {value:.4f} |" in model_card(DESCRIPTION, "load()", results=measured)


def test_results_are_of_these_weights(tmp_path):
    weights = tmp_path / "last.ckpt"
    weights.write_bytes(b"weights")

    def write(tested):
        (tmp_path / "results.json").write_text(json.dumps(summary() | {"weights": tested}))

    write(stamped(weights))
    results = read_results(tmp_path, weights)
    assert results.weights_known
    assert "do not say" not in model_card(DESCRIPTION, "load()", results=results)
    moved = weights.rename(tmp_path / "a b.ckpt")
    assert read_results(tmp_path, moved).weights_known
    os.utime(moved, (1, 1))
    with pytest.raises(
        CheckpointError, match=r"a test of .*last.ckpt, not of .*a b.ckpt as it is now"
    ):
        read_results(tmp_path, moved)
    write("hiera_base_16x224")
    assert read_results(tmp_path, "hiera_base_16x224").weights_known
    for other in (moved, "hiera_large_16x224"):
        with pytest.raises(CheckpointError, match="a test of hiera_base_16x224, not of"):
            read_results(tmp_path, other)
    (tmp_path / "results.json").write_text(json.dumps(summary()))
    results = read_results(tmp_path, moved)
    assert not results.weights_known
    words = "do not say which weights gave `top1`, `top5`, `mean_class_accuracy`"
    assert words in model_card(DESCRIPTION, "load()", results=results)
