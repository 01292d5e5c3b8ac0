"""``hiera-video export`` in this process."""

import json
import os
import re
import sys
from contextlib import contextmanager

import pytest
import torch

from hiera_video import cli, create_mae, create_model
from hiera_video.commands import export as export_command
from hiera_video.export import graph
from hiera_video.results.prediction_files import stamped
from hiera_video.weights.description import read_description
from tests.models.reference import make_video, randomize
from tests.trained_models import write_mae_run, write_run

PROGRESS = re.compile(": (under way|took [0-9:]+)$")  # of steps that take over two seconds


@pytest.fixture
def export(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder; returns its exit code and its last line."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hiera-video", "export", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code
        output = capsys.readouterr()
        errors = [line for line in output.err.splitlines() if not PROGRESS.search(line)]
        assert len(errors) <= 1, output.err
        return code, "".join([output.out, *errors]).strip()

    return run


def test_safetensors_are_read_back_and_exported_again(export, tmp_path):
    model = write_run(tmp_path / "run")
    assert export("run", "--format", "safetensors")[0] == 0
    folder = tmp_path / "run/export-safetensors"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "model.json",
        "README.md",
    }
    umask = os.umask(0)
    os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    video = make_video(model, 1)
    assert torch.equal(create_model(folder).eval()(video), model(video))
    assert export(folder, "--format", "safetensors", "--out", "again")[0] == 0
    assert torch.equal(create_model("again").eval()(video), model(video))
    # What is known of the training goes along.
    again = read_description(tmp_path / "again/model.json")
    assert again.training == read_description(folder / "model.json").training
    assert again.training["config"] == "any/tiny"


def test_a_masked_autoencoder(export, tmp_path):
    mae = write_mae_run(tmp_path / "run")
    assert export("run", "--format", "safetensors", "--out", "mae")[0] == 0
    assert 'load("mae").reconstruct("video.mp4")' in (tmp_path / "mae/README.md").read_text()
    back = create_mae("mae")
    for name, value in mae.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
    for kind in ("pt2", "onnx", "timm"):
        code, line = export("run", "--format", kind)
        assert code == 2
        assert "a masked autoencoder has no" in line
    code, line = export("run", "--format", "transformers")
    assert (code, "transformers has no Hiera for video" in line) == (2, True)


def test_every_step_can_be_seen(export, tmp_path, monkeypatch):
    steps = []

    @contextmanager
    def line(name, unit):
        assert unit is None
        steps.append(name)
        yield

    monkeypatch.setattr(export_command, "progress_line", line)
    write_run(tmp_path / "run")
    assert export("run", "--format", "pt2")[0] == 0
    first = ["read run", "build the model"]
    assert steps == [*first, "trace the graph", "write pt2", "compare with PyTorch"]
    steps.clear()
    assert export("run", "--format", "safetensors")[0] == 0
    assert steps == [*first, "write safetensors"]


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_graphs_are_compared(export, tmp_path, kind):
    write_run(tmp_path / "run")
    code, text = export("run", "--format", kind, "--uint8", "--out", "graph")
    assert code == 0
    assert "of the largest logit" in text
    card = (tmp_path / "graph/README.md").read_text()
    assert text.splitlines()[-1] in card
    description = read_description(tmp_path / "graph/model.json")
    assert (description.weights, description.input) == (kind, "uint8")
    code, line = export("graph", "--format", "pt2")
    assert code == 2
    assert "runs in other programs" in line


def test_a_graph_that_computes_something_else_is_not_left_behind(export, tmp_path, monkeypatch):
    write_run(tmp_path / "run")

    def doubled(file):
        run = graph_run_pt2(file)
        return lambda video: run(video) * 1.01

    graph_run_pt2 = graph.run_pt2
    monkeypatch.setattr(graph, "run_pt2", doubled)
    code, line = export("run", "--format", "pt2", "--out", "graph")
    assert code == 1
    assert "0.01 of the largest logit" in line
    assert "nothing was written" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_images_for_timm_and_transformers(export, tmp_path, monkeypatch):
    model = create_model("hiera_tiny_224")
    randomize(model)
    torch.save({"model_state": model.state_dict()}, tmp_path / "hiera_tiny_224.pth")
    for kind in ("timm", "transformers"):
        code, _ = export("hiera_tiny_224.pth", "--format", kind, "--out", kind)
        assert code == 0
        card = (tmp_path / kind / "README.md").read_text()
        assert "image-classification" in card
        assert "cc-by-nc-4.0" in card
        assert "config.json" in os.listdir(tmp_path / kind)
    write_run(tmp_path / "run")
    code, line = export("run", "--format", "timm")
    assert (code, "no Hiera for video" in line) == (2, True)
    assert not (tmp_path / "run/export-timm").exists()


def test_published_weights_have_a_folder_of_their_name(export, tmp_path, monkeypatch):
    model = create_model("hiera_tiny_224")
    (tmp_path / "weights").mkdir()
    (tmp_path / "here").mkdir()
    torch.save({"model_state": model.state_dict()}, tmp_path / "weights/hiera_tiny_224.pth")
    for folder, file in (
        ("weights", "hiera_tiny_224.pth"),
        ("here", "../weights/hiera_tiny_224.pth"),
    ):
        monkeypatch.chdir(tmp_path / folder)
        code, text = export(file, "--format", "safetensors")
        assert code == 0, text
        new = {path.name for path in (tmp_path / folder).iterdir()} - {"hiera_tiny_224.pth"}
        assert new == {"hiera_tiny_224"}
        card = tmp_path / folder / "hiera_tiny_224/export-safetensors/README.md"
        assert "export-safetensors" in card.read_text()


def test_results_of_other_weights_are_refused(export, tmp_path):
    write_run(tmp_path / "run")
    results = {"top1": 0.25, "videos": 8, "weights": stamped("run/checkpoints/last.ckpt")}
    (tmp_path / "results.json").write_text(json.dumps(results))
    words = ["run", "--format", "safetensors", "--results", "results.json"]
    assert export(*words, "--out", "one")[0] == 0
    assert "| top1 | 0.2500 |" in (tmp_path / "one/README.md").read_text()
    write_run(tmp_path / "run", name="best")
    code, line = export(*words, "--out", "two")
    assert code == 2
    assert "last.ckpt, not of run/checkpoints/best.ckpt" in line
    assert not (tmp_path / "two").exists()


def test_wrong_usage(export, tmp_path, monkeypatch):
    write_run(tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "linked").symlink_to("empty")
    for words, message in (
        (["run", "--format", "safetensors", "--out", "full"], "full exists"),
        (["run", "--format", "safetensors", "--out", "full/file"], "exists"),
        (["run", "--format", "safetensors", "--out", "dangling"], "dangling is a link"),
        (["run", "--format", "safetensors", "--out", "linked"], "linked is a link"),
        (["run", "--format", "safetensors", "--uint8"], "--uint8 is for pt2 and onnx"),
        (["run", "--format", "safetensors", "--results", "run"], "results.json"),
        (["gone", "--format", "pt2"], "gone: no such run, file or published model"),
    ):
        code, line = export(*words)
        assert (code, message in line) == (2, True), line
    assert export("run", "--format", "safetensors", "--out", "empty")[0] == 0
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, line = export("run", "--format", "onnx")
    assert (code, "pip install '.[export]'" in line) == (2, True), line
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert export_command.LIMIT == 1e-3
