import pytest

from hiera_video.errors import UsageError
from hiera_video.running.words import translate


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("data.root=~/videos", "data.root=/home/ann/videos"),
        ("run_dir=~", "run_dir=/home/ann"),
        ("+data.cache_dir=~/cache", "+data.cache_dir=/home/ann/cache"),
        ("data.train=a~/b", 'data.train="a~/b"'),
        ("~callbacks.speed", "~callbacks.speed"),
        ("~callbacks/x=y", "~callbacks/x=y"),
        ("data.root='~/videos'", "data.root='~/videos'"),
    ],
)
def test_a_tilde_at_the_start_of_a_value_is_the_home_folder(monkeypatch, word, expanded):
    monkeypatch.setenv("HOME", "/home/ann")
    assert translate(["fit", "--config", "demo/pretrain", word]).overrides == [expanded]


def test_what_predict_was_given_in_place_of_a_run_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported").mkdir()
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UsageError, match="and exported is neither a run nor a checkpoint; "):
        translate(["predict", "exported", "clip.mp4"])


@pytest.mark.parametrize("weights", ["exported", "hiera_base_16x224"])
@pytest.mark.parametrize("command", ["predict", "test"])
def test_weights_without_a_configuration_are_said_to_be(tmp_path, monkeypatch, command, weights):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported").mkdir()
    for name in ("model.json", "model.safetensors"):
        (tmp_path / "exported" / name).touch()
    with pytest.raises(UsageError) as error:
        translate([command, weights])
    line = f"use {command} --config NAME task.init_from={weights}"
    assert f"{weights}: weights without the configuration of a run; {line}" in str(error.value)
    assert ("hiera_video.load" in str(error.value)) == (command == "predict")


def test_a_pattern_in_quotes_is_for_the_shell():
    with pytest.raises(
        UsageError, match=r"raw/\*.mp4: no such .*; without quotes, the shell finds"
    ):
        translate(["predict", "raw/*.mp4"])


def test_an_address_that_is_no_stream_is_told_what_one_is():
    with pytest.raises(
        UsageError, match=r"udp://1: no such .*; a stream has an rtsp:// or http://"
    ):
        translate(["predict", "udp://1"])


@pytest.mark.parametrize("name", ["mine.yml", "mine.txt"])
def test_a_configuration_that_hydra_would_not_find_is_named(tmp_path, name):
    (tmp_path / name).write_text("name: mine\n")
    with pytest.raises(UsageError, match=rf"{name}: the name of a configuration must end in .yaml"):
        translate(["fit", "--config", str(tmp_path / name)])
