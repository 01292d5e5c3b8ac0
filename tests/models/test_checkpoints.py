import urllib.request

import pytest
import torch
from safetensors.torch import save_file

import hiera_video.models.checkpoints as checkpoints
from hiera_video.models.checkpoints import CheckpointError, load_weights, read_checkpoint
from hiera_video.models.zoo import create_mae, create_model
from tests.models.reference import initial_autoencoder, initial_classifier, randomize
from tests.models.small import TINY, tiny_mae, tiny_model

NAME = "hiera_tiny_16x224"
DECODER = {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4}


class NotPlain:
    """What a checkpoint should not hold."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints of the reference, in the published form."""
    folder = tmp_path_factory.mktemp("published")
    models = {
        "classifier": initial_classifier(NAME, **TINY, num_classes=5),
        "mae": initial_autoencoder(NAME, **TINY, **DECODER),
    }
    for name, model in models.items():
        randomize(model)
        torch.save({"model_state": model.state_dict()}, folder / f"{name}.pth")
    return folder


def weights(path):
    return torch.load(path, weights_only=True)["model_state"]


def new_model(**kwargs):
    return create_model(NAME, **{**TINY, "num_classes": 5, **kwargs})


def assert_equal(model, expected):
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_published_files_load_strictly(files, capsys):
    model, mae = new_model(), create_mae(NAME, **TINY, **DECODER)
    report = load_weights(model, files / "classifier.pth")
    assert_equal(model, weights(files / "classifier.pth"))
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert not any([report.renamed, report.resized, report.missing, report.unexpected])
    assert capsys.readouterr().out.count("\n") == 1
    load_weights(mae, files / "mae.pth", quiet=True)
    assert_equal(mae, weights(files / "mae.pth"))
    assert not capsys.readouterr().out


def test_from_autoencoder_to_classifier(files, capsys):
    model = new_model()
    head = model.head.projection.weight.clone()
    report = load_weights(model, files / "mae.pth")
    source = weights(files / "mae.pth")
    assert report.renamed == {f"encoder_norm.{p}": f"norm.{p}" for p in ("weight", "bias")}
    assert report.missing == ["head.projection.weight", "head.projection.bias"]
    assert "mask_token" in report.unexpected
    assert set(report.unexpected) == {k for k in source if k not in model.state_dict()} - {
        "encoder_norm.weight",
        "encoder_norm.bias",
    }
    assert torch.equal(model.norm.weight, source["encoder_norm.weight"])
    assert torch.equal(model.head.projection.weight, head)
    assert torch.equal(model.blocks[3].attn.qkv.weight, source["blocks.3.attn.qkv.weight"])
    text = capsys.readouterr().out
    assert "encoder_norm -> norm" in text
    assert "left out the decoder" in text
    assert "new head" in text


def test_head_of_other_classes_is_new(files, capsys):
    model = new_model(num_classes=9)
    head = model.head.projection.weight.clone()
    report = load_weights(model, files / "classifier.pth")
    assert report.missing == ["head.projection.weight", "head.projection.bias"]
    assert report.unexpected == []
    assert torch.equal(model.head.projection.weight, head)
    assert "new head" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["bare", "state_dict", "lightning", "compiled", "safetensors"])
def test_forms_of_files(files, tmp_path, form):
    state = weights(files / "classifier.pth")
    path = tmp_path / {"safetensors": "w.safetensors", "bare": "w.pth"}.get(form, "w.ckpt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "bare":
        torch.save(state, path)
    elif form == "state_dict":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        prefix = "model." if form == "lightning" else "model._orig_mod."
        task = {prefix + key: value for key, value in state.items()}
        task["normalize.mean"] = torch.zeros(3)
        torch.save({"state_dict": task, "epoch": 3, "hyper_parameters": {"lr": 0.1}}, path)
    model = new_model()
    load_weights(model, str(path))
    assert_equal(model, state)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stages": (1, 1, 3, 1)}, "sizes differ: blocks.4.*missing: blocks.5"),
        ({"input_size": (4, 96, 64)}, "pos_embed_spatial is 1x256x16 in the file and 1x384x16 in"),
        ({"embed_dim": 32}, "sizes differ: pos_embed_spatial .* more"),
    ],
)
def test_other_gaps_are_errors(files, kwargs, message):
    model = new_model(**kwargs)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as error:
        load_weights(model, files / "classifier.pth")
    assert "\n" not in str(error.value)
    assert_equal(model, before)


@pytest.mark.parametrize("file", ["classifier.pth", "mae.pth"])
def test_positions_in_time_are_resized_to_other_frames(files, file, capsys):
    model = new_model(input_size=(8, 64, 64))
    report = load_weights(model, files / file)
    assert report.resized == ["pos_embed_temporal"]
    assert "resized to the number of frames" in capsys.readouterr().out
    content = torch.load(files / file, weights_only=True)
    first, second = content["model_state"]["pos_embed_temporal"][0]
    # Steps of half the length: their middles are a quarter of a step beside the old ones.
    expected = torch.stack(
        [first, first * 0.75 + second * 0.25, first * 0.25 + second * 0.75, second]
    )
    torch.testing.assert_close(model.pos_embed_temporal[0], expected)


def test_smaller_network_is_an_error_for_what_is_left_over(files):
    with pytest.raises(CheckpointError, match="not in the model: decoder_blocks.0"):
        load_weights(tiny_mae(decoder_depth=0), files / "mae.pth")


def test_classifier_does_not_fill_an_autoencoder(files):
    with pytest.raises(CheckpointError, match="missing: mask_token, decoder_pos_embed, .* more"):
        load_weights(tiny_mae(), files / "classifier.pth")


def test_not_strict(files, capsys):
    model = new_model(input_size=(4, 96, 64))
    report = load_weights(model, files / "classifier.pth", strict=False)
    assert report.missing == ["pos_embed_spatial"]
    assert "pos_embed_spatial" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(torch.nn.Linear(2, 2), files / "classifier.pth", strict=False)


def test_files_that_are_none(files, tmp_path):
    whole = (files / "classifier.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.ckpt").write_text("no weights here")
    torch.save({"model_state": {"a": NotPlain()}}, tmp_path / "object.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "nothing.ckpt")
    expected = {
        "cut.pth": "damaged",
        "cut.safetensors": "damaged",
        "empty.pth": "damaged",
        "text.ckpt": "damaged",
        "object.pth": "objects other than tensors",
        "tensor.pth": "holds a Tensor, not",
        "nothing.ckpt": "holds no weights",
        "absent.pth": "no such file",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=f"{name}: .*{message}") as error:
            load_weights(new_model(), tmp_path / name)
        assert "\n" not in str(error.value)


def test_unknown_published_name():
    with pytest.raises(CheckpointError, match="did you mean .*mae_hiera_base_16x224"):
        load_weights(new_model(), "mae_hiera_base_16x22")


def test_published_name_from_the_cache(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    cached = tmp_path / "checkpoints" / "mae_hiera_base_16x224.pth"
    cached.write_bytes((files / "mae.pth").read_bytes())
    load_weights(new_model(), "mae_hiera_base_16x224")
    assert "CC-BY-NC" in capsys.readouterr().out


def test_published_name_without_a_network(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(CheckpointError) as error:
        load_weights(new_model(), "hiera_base_16x224")
    text = str(error.value)
    assert "https://dl.fbaipublicfiles.com/hiera/hiera_base_16x224.pth" in text
    assert str(tmp_path / "checkpoints" / "hiera_base_16x224.pth") in text
    assert "CC-BY-NC" in text
    assert "\n" not in text


def test_whole_checkpoint(tmp_path):
    torch.save(
        {"state_dict": {"a": torch.ones(2)}, "epoch": 4, "names": ["x"]}, tmp_path / "c.ckpt"
    )
    content = read_checkpoint(tmp_path / "c.ckpt")
    assert (content["epoch"], content["names"]) == (4, ["x"])


def test_loading_works_for_half_precision_models(files):
    model = tiny_model().bfloat16()
    load_weights(model, files / "classifier.pth")
    assert model.norm.weight.dtype == torch.bfloat16
    assert checkpoints.LICENCE
