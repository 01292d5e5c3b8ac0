"""``hiera-video hub`` with a hub on this machine."""

import os
import re
import subprocess
import sys

import pytest
import torch

from hiera_video import cli, create_mae, create_model
from hiera_video.weights.description import PUBLISHED_PICTURE, Description, read_description
from hiera_video.weights.portable import write_model
from tests.hub_server import TOKEN, hub_server
from tests.trained_models import write_mae_run, write_run

FILES = {"README.md", "model.json", "model.safetensors"}
PROGRESS = re.compile(": (under way|took [0-9:]+)$")  # of steps that take over two seconds


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub of the library, with a user who is logged in."""
    with hub_server() as (server, address):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        file = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", file)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs a command in an empty folder; returns its exit code and its output."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hiera-video", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code
        output = capsys.readouterr()
        errors = [line for line in output.err.splitlines() if not PROGRESS.search(line)]
        assert len(errors) == bool(code), output.err
        return code, "\n".join([output.out, *errors])

    return run


@pytest.fixture
def run(tmp_path):
    """A run of a classifier, which is returned."""
    return write_run(tmp_path / "run")


def test_a_process_of_its_own_finds_all_of_the_library(tmp_path):
    """Other tests may have imported its modules."""
    words = [sys.executable, "-m", "hiera_video", "hub", "pull", "me/none", "--out", tmp_path / "x"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == "hiera-video: me/none: the hub is switched off (HF_HUB_OFFLINE)\n"
    assert done.returncode == 1


def assert_same(a, b):
    for name, value in a.state_dict().items():
        assert torch.equal(b.state_dict()[name], value), name


def test_there_and_back(hub, command, run, tmp_path):
    code, text = command("hub", "push", "run", "me/model")
    assert code == 0, text
    assert "(private)" in text
    assert "licence: it is missing; name it before others get the model" in text
    repository = hub.repositories["me/model"]
    assert repository.private
    assert repository.files("main").keys() == FILES | {".gitattributes"}
    card = repository.files("main")["README.md"].decode()
    assert "# hiera-video hub pull me/model\n" in card
    assert 'load("model")' in card
    code, text = command("hub", "pull", "me/model")
    assert code == 0, text
    assert "-> model: a classifier, hiera_tiny_16x224" in text
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES
    assert_same(run, create_model("model"))
    # And on from there.
    assert command("hub", "push", "model", "me/again")[0] == 0
    assert hub.repositories["me/again"].files("main") == repository.files("main")
    code, text = command("hub", "pull", "me/model")
    assert (code, "model exists; name another folder with --out" in text) == (2, True)


def test_an_autoencoder_on_a_branch(hub, command, tmp_path):
    mae = write_mae_run(tmp_path / "run")
    hub.new("me/model", {"README.md": b"first"}, private=True)
    assert command("hub", "push", "run", "me/model", "--revision", "second")[0] == 0
    assert hub.repositories["me/model"].files("main") == {"README.md": b"first"}
    code, text = command("hub", "pull", "me/model", "--out", "out")
    assert (code, "me/model: not an export of this project" in text) == (2, True)
    assert command("hub", "pull", "me/model", "--out", "out", "--revision", "second")[0] == 0
    assert_same(mae, create_mae("out"))
    code, text = command("hub", "pull", "me/model", "--revision", "third")
    assert (code, "me/model: no such revision" in text) == (2, True)


def test_a_public_model_has_a_licence(hub, command, run, tmp_path):
    code, text = command("hub", "push", "run", "me/model", "--public")
    assert (code, "the licence is missing; name it with --license" in text) == (2, True)
    assert not hub.repositories
    code, text = command("hub", "push", "run", "me/model", "--public", "--license", "Apache-2.0")
    assert (code, "licence: apache-2.0" in text, "(public)" in text) == (0, True, True), text
    assert not hub.repositories["me/model"].private
    assert command("hub", "pull", "me/model")[0] == 0
    assert read_description(tmp_path / "model/model.json").licence == "apache-2.0"
    card = (tmp_path / "model/README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "## Licence\n\napache-2.0." in card
    # Weights that start from these have it, too.
    code, text = command("hub", "push", "model", "me/other", "--license", "mit")
    assert (
        code,
        "cannot be mit: by model.json the weights have apache-2.0" in text,
    ) == (2, True)
    code, text = command("hub", "push", "run", "me/model")
    assert (code, "me/model is public; push with --public if" in text) == (2, True)
    assert command("hub", "push", "run", "me/private")[0] == 0
    code, text = command("hub", "push", "model", "me/private", "--public")
    assert (code, "me/private is private; push without --public" in text) == (2, True)


def test_the_licence_of_the_first_weights_stays(hub, command, tmp_path):
    write_run(tmp_path / "run", init_from="hiera_base_16x224")
    code, text = command("hub", "push", "run", "me/model", "--public", "--license", "mit")
    assert (code, "the weights have CC-BY-NC-4.0" in text) == (2, True)
    code, text = command("hub", "push", "run", "me/model", "--public")
    assert (code, "CC-BY-NC-4.0, not for commercial use" in text) == (0, True), text
    # A card that was edited must say so.
    assert command("export", "run", "--format", "safetensors", "--out", "mine")[0] == 0
    card = tmp_path / "mine/README.md"
    stated = card.read_text()
    for text in (stated.replace("license: cc-by-nc-4.0\n", ""), "# No front matter"):
        card.write_text(text)
        assert command("hub", "push", "mine", "me/model", "--public")[0] == 2
    card.write_text(stated.replace("license: cc-by-nc-4.0", "license: mit"))
    code, text = command("hub", "push", "mine", "me/model", "--public")
    assert (code, "the licence cannot be mit" in text) == (2, True)
    card.write_text(f"{stated}\nMade by us.\n")
    assert command("hub", "push", "mine", "me/model", "--public")[0] == 0
    assert hub.repositories["me/model"].files("main")["README.md"].endswith(b"Made by us.\n")
    card.write_text(stated.replace("tags: [hiera]\n", ""))
    code, text = command("hub", "push", "mine", "me/model", "--public")
    assert (code, "me/model: Invalid metadata in README.md" in text) == (2, True), text


def test_an_unknown_licence_is_named_before_others_get_the_model(hub, command, tmp_path):
    write_run(tmp_path / "run", init_from="gone.pth")
    code, text = command("hub", "push", "run", "me/model", "--public")
    assert (code, "is not known (of the weights that training" in text) == (2, True), text
    assert command("hub", "push", "run", "me/model", "--public", "--license", "mit")[0] == 0


def test_only_what_is_safe_is_fetched(hub, command, run, tmp_path):
    assert command("export", "run", "--format", "safetensors", "--out", "made")[0] == 0
    files = {name: (tmp_path / "made" / name).read_bytes() for name in FILES}
    others = {"pytorch_model.bin": b"pickle", "../outside.txt": b"x", "sub/model.json": b"{}"}
    hub.new("you/model", {**files, **others})
    code, text = command("hub", "pull", "you/model", "--out", "out")
    assert code == 0, text
    assert "left on the hub: ../outside.txt, pytorch_model.bin, sub/model.json" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"run", "made", "out"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda files: files.pop("model.safetensors"), "there is no model.safetensors"),
        (
            lambda files: files.update({"model.json": b"{}"}),
            "me/model/model.json: schema is missing",
        ),
        (lambda files: files.update({"model.safetensors": b"\x80pickle" * 99_999}), "damaged or"),
    ],
)
def test_what_is_damaged_is_not_kept(hub, command, run, tmp_path, damage, message):
    assert command("export", "run", "--format", "safetensors", "--out", "made")[0] == 0
    files = {name: (tmp_path / "made" / name).read_bytes() for name in FILES}
    damage(files)
    hub.new("me/model", files)
    code, text = command("hub", "pull", "me/model", "--out", "out")
    assert (code, message in text) == (2, True), text
    assert {path.name for path in tmp_path.iterdir()} == {"run", "made"}


def test_a_wrong_hash_is_refused(hub, command, run, tmp_path):
    assert command("hub", "push", "run", "me/model")[0] == 0
    hub.hashes["model.safetensors"] = "0" * 64
    code, text = command("hub", "pull", "me/model", "--out", "out")
    assert (code, "not the file that the hub describes" in text) == (2, True), text


def test_a_model_of_pictures_without_a_card(hub, command, tmp_path):
    arguments = {"embed_dim": 16, "stages": [1, 1, 1, 1], "input_size": [64, 64], "num_classes": 3}
    model = create_model("hiera_tiny_224", **arguments)
    description = Description(
        kind="classifier",
        name="hiera_tiny_224",
        arguments=arguments,
        class_names=("cat", "dog", "owl"),
        clip={**PUBLISHED_PICTURE, "size": [64, 64]},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        source="test",
        licence="CC-BY-NC-4.0",
    )
    (tmp_path / "made").mkdir()
    write_model(tmp_path / "made", model, description)
    assert command("hub", "push", "made", "me/tiny", "--public")[0] == 0
    card = hub.repositories["me/tiny"].files("main")["README.md"].decode()
    assert re.match(r"---\nlicense: cc-by-nc-4.0\n(.*\n)*pipeline_tag: image-classification", card)
    assert 'load("tiny").predict("picture.jpg")' in card


def test_one_line_for_every_obstacle(hub, command, run, monkeypatch):
    for words, message in (
        (["pull", "me/none"], "me/none: no such repository on the hub"),
        (["pull", "none"], "none: not the name of a repository, which is owner/name"),
        (["pull", "../none"], "not the name of a repository"),
        (["push", "run", "me/a", "--license", "my own"], "not a name such as apache-2.0"),
        (["push", "gone", "me/a"], "gone: no such run, file or published model"),
    ):
        code, text = command("hub", *words)
        assert (code, message in text) == (2, True), text
    hub.read_only = True
    code, text = command("hub", "push", "run", "me/model")
    assert (code, "me/model: the token may not do this" in text) == (1, True), text
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, text = command("hub", "push", "run", "me/model")
    assert (code, "does not accept the token; set HF_TOKEN" in text) == (1, True), text
    monkeypatch.delenv("HF_TOKEN")
    code, text = command("hub", "push", "run", "me/model")
    assert (code, "not logged in to the hub: set HF_TOKEN, or run" in text) == (2, True), text
    code, text = command("hub", "pull", "me/none")
    assert (code, "or a private one; to log in, set HF_TOKEN" in text) == (2, True), text


def test_offline_and_without_the_library(hub, command, run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        code, text = command("hub", "pull", "me/model")
        assert (code, "me/model: the hub is switched off (HF_HUB_OFFLINE)" in text) == (1, True)
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        for words in (["pull", "me/model"], ["push", "run", "me/model"]):
            code, text = command("hub", *words)
            assert (code, "http://127.0.0.1:9 cannot be reached" in text) == (1, True), text
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, text = command("hub", "pull", "me/model")
    assert (code, "pip install '.[hub]'" in text) == (2, True), text
