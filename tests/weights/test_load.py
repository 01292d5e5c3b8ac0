import argparse
import copy
import json
import urllib.error
import urllib.request

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from hiera_video import create_mae, create_model
from hiera_video.callbacks.averaging import ema
from hiera_video.errors import CheckpointError
from hiera_video.weights.description import Description
from hiera_video.weights.files import read_checkpoint
from hiera_video.weights.load import load_weights
from hiera_video.weights.portable import write_model
from hiera_video.weights.positions import resize_space
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


@pytest.mark.parametrize(
    "form",
    ["bare", "state_dict", "lightning", "compiled", "safetensors", "parallel", "parallel compiled",
     "model_state_dict", "sharded", "checkpointed"],
)  # fmt: skip
def test_forms_of_files(files, tmp_path, form):
    state = weights(files / "classifier.pth")
    path = tmp_path / {"safetensors": "w.safetensors", "bare": "w.pth"}.get(form, "w.ckpt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "bare":
        torch.save(state, path)
    elif form.startswith("parallel"):
        prefix = "module._orig_mod." if "compiled" in form else "module."
        torch.save({"model": {prefix + key: value for key, value in state.items()}}, path)
    elif form.endswith("state_dict"):
        torch.save({form: state, "epoch": 3}, path)
    elif form == "sharded":
        torch.save({f"_fsdp_wrapped_module.{name}": value for name, value in state.items()}, path)
    elif form == "checkpointed":
        inner = "blocks.1._checkpoint_wrapped_module."
        torch.save({n.replace("blocks.1.", inner): value for n, value in state.items()}, path)
    else:
        prefix = "model." if form == "lightning" else "model._orig_mod."
        task = {prefix + key: value for key, value in state.items()}
        task["normalize.mean"] = torch.zeros(3)
        torch.save({"state_dict": task, "epoch": 3, "hyper_parameters": {"lr": 0.1}}, path)
    model = new_model()
    load_weights(model, str(path))
    assert_equal(model, state)


def test_a_compiled_model_is_loaded(files):
    model = new_model()
    load_weights(torch.compile(model, backend="eager"), files / "classifier.pth", quiet=True)
    assert_equal(model, weights(files / "classifier.pth"))


def test_tensors_beside_the_network_are_reported(files, tmp_path, capsys):
    state = {f"model.{name}": value for name, value in weights(files / "classifier.pth").items()}
    more = {"fc.weight": torch.ones(2), "fc.bias": torch.ones(2), "n_averaged": torch.tensor(3)}
    teacher = {"a": torch.ones(1), "b": torch.ones(1)}
    torch.save({"state_dict": {**state, **more}, "teacher": teacher}, tmp_path / "w.ckpt")
    report = load_weights(new_model(), tmp_path / "w.ckpt")
    assert report.unexpected == ["fc.weight", "fc.bias"]
    out = capsys.readouterr().out
    assert "left out fc.weight, fc.bias" in out
    assert "other weights in the file are not read: teacher" in out


@pytest.mark.parametrize(
    "beside",
    [
        {"model": {"name": NAME, "depth": 3}},
        {"state": {"epoch": 3}, "model": {"name": NAME}},
        {"ema": {"decay": torch.tensor(0.9)}},
        {"model": {"name": NAME}, "ema": {"decay": 0.9}},
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_dicts_of_other_things_hold_no_weights(files, tmp_path, beside, within):
    state = weights(files / "classifier.pth")
    content = {"model_state_dict": state, **beside}
    torch.save({"state_dict": content} if within else content, tmp_path / "w.pth")
    model = new_model()
    load_weights(model, tmp_path / "w.pth", quiet=True)
    assert_equal(model, state)


@pytest.mark.parametrize("module", ["ema_model.module.", "model_ema.", "ema_model."])
def test_an_average_beside_the_trained_weights(files, tmp_path, module, capsys):
    average = weights(files / "classifier.pth")
    content = {f"model.{name}": torch.zeros_like(value) for name, value in average.items()}
    content |= {module + name: value for name, value in average.items()}
    torch.save({"state_dict": content, "epoch": 1}, tmp_path / "w.ckpt")
    model = new_model()
    assert load_weights(model, tmp_path / "w.ckpt").unexpected == []
    assert_equal(model, average)
    assert f"the average of a training ({module.split('.')[0]})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stages": (1, 1, 3, 1)}, "sizes differ: blocks.4.*missing: blocks.5"),
        (
            {"q_stride": (1, 1, 1), "mask_unit_size": (1, 6, 6), "input_size": (4, 48, 48)},
            "position embeddings of 16x16 tokens have no whole mask units of 6x6",
        ),
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
    assert "resized to the model's input: pos_embed_temporal" in capsys.readouterr().out
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
    model = new_model(patch_kernel=(3, 5, 5), patch_padding=(1, 2, 2))
    report = load_weights(model, files / "classifier.pth", strict=False)
    assert report.missing == ["patch_embed.proj.weight"]
    assert "patch_embed.proj.weight" in capsys.readouterr().out
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
    torch.save({"net": weights(files / "classifier.pth"), "epoch": 1}, tmp_path / "net.ckpt")
    torch.save({"model": {}, "best": np.float64(1)}, tmp_path / "numpy.pth")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors.index.json").write_text("{}")
    expected = {
        "cut.pth": "damaged",
        "cut.safetensors": "damaged",
        "empty.pth": "damaged",
        "text.ckpt": "damaged",
        "object.pth": r"objects other than tensors and plain values .*NotPlain.; save model.state",
        "numpy.pth": r"other than tensors and plain values \(numpy.*scalar\)",
        "net.ckpt": "holds no weights by a key that is known here; further keys hold some: net$",
        "folder": "weights in several files; save them in one",
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
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", offline)
    with pytest.raises(CheckpointError) as error:
        load_weights(new_model(), "hiera_base_16x224")
    text = str(error.value)
    assert "https://dl.fbaipublicfiles.com/hiera/hiera_base_16x224.pth" in text
    assert str(tmp_path / "checkpoints" / "hiera_base_16x224.pth") in text
    assert "CC-BY-NC" in text
    assert "no network" in text
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


def test_another_size_in_space_and_time(files):
    mae, model = tiny_mae(input_size=(8, 96, 128)), new_model(input_size=(8, 96, 128))
    assert load_weights(mae, files / "mae.pth").resized == [
        *("pos_embed_temporal", "pos_embed_spatial", "decoder_pos_embed")
    ]
    report = load_weights(model, files / "mae.pth")
    assert report.resized == ["pos_embed_temporal", "pos_embed_spatial"]
    video = torch.randn(1, 3, 8, 96, 128)
    assert mae(video).loss.isfinite()
    assert model(video).isfinite().all()


def write_export(folder, model, **description):
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(description))


def test_grid_of_an_export_of_as_many_tokens(tmp_path):
    size, saved = [4, 64, 128], new_model(input_size=(4, 64, 128))
    randomize(saved)
    write_export(tmp_path / "export", saved, name=NAME, arguments={"input_size": size})
    for source in ("export", "export/model.safetensors"):
        model = new_model(input_size=(4, 128, 64))
        assert load_weights(model, tmp_path / source).resized == ["pos_embed_spatial"]
        rows = saved.pos_embed_spatial.unflatten(1, (16, 32))
        expected = resize_space(rows.flatten(1, 2), (16, 32), (32, 16), (8, 8))
        torch.testing.assert_close(model.pos_embed_spatial, expected)
    assert load_weights(new_model(input_size=(4, 96, 192)), tmp_path / "export").resized
    assert load_weights(new_model(input_size=(4, 64, 128)), tmp_path / "export").resized == []


def test_an_export_is_made_for_another_size(tmp_path):
    description = Description(
        **{"kind": "classifier", "name": NAME, "clip": None, "source": "", "class_names": ()},
        **{"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        arguments={**TINY, "num_classes": 5, "input_size": (4, 64, 128)},
    )
    saved = create_model(NAME, **description.arguments)
    write_model(tmp_path, saved, description)
    for size in ((4, 128, 64), (4, 96, 192)):
        model = create_model(tmp_path, input_size=size)
        expected = new_model(input_size=size)
        torch.save(
            {
                "state_dict": saved.state_dict(),
                "config": {"model": {"name": NAME, "input_size": [4, 64, 128]}},
            },
            tmp_path / "run.ckpt",
        )
        load_weights(expected, tmp_path / "run.ckpt")
        assert torch.equal(model.pos_embed_spatial, expected.pos_embed_spatial)


def test_grid_of_the_name_of_an_export(tmp_path):
    """A size that is not among the arguments is that of the name."""
    write_export(tmp_path / "export", new_model(input_size=(16, 224, 224)), name=NAME)
    model = new_model(input_size=(16, 32, 1568))  # 56 * 56 tokens as well
    report = load_weights(model, tmp_path / "export")
    assert report.resized == ["pos_embed_spatial"]


def test_grid_of_a_published_name(tmp_path):
    state = new_model(input_size=(16, 224, 224)).state_dict()
    model = new_model(input_size=(16, 32, 1568))  # 56 * 56 tokens as well
    torch.save({"model_state": state}, tmp_path / "hiera_base_16x224.pth")
    assert load_weights(model, tmp_path / "hiera_base_16x224.pth").resized == ["pos_embed_spatial"]
    torch.save({"model_state": state}, tmp_path / "any.pth")
    with pytest.raises(
        CheckpointError, match="any.pth: .*3136 tokens, 56x56 or, .* 8x392"
    ) as error:
        load_weights(model, tmp_path / "any.pth")
    assert "\n" not in str(error.value)


def test_a_grid_that_may_be_two_keeps_initial_values_where_not_strict(files, tmp_path):
    for make, file in ((new_model, "classifier"), (tiny_mae, "mae")):
        model = make(input_size=(4, 32, 128))
        before = copy.deepcopy(model.state_dict())
        report = load_weights(model, files / f"{file}.pth", strict=False)
        kept = ["pos_embed_spatial", "decoder_pos_embed"][: 1 + (file == "mae")]
        assert sorted(report.missing) == sorted(kept)
        for name in kept:
            assert torch.equal(model.state_dict()[name], before[name])


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", "null", "[" * 100_000, '{"arguments": 3}', '{"name": ["a"]}', "\udc00"),
        *(f'{{"arguments": {{"input_size": {size}}}}}' for size in ("[4]", "[0, 64, 64]", '"abc"')),
        '{"arguments": {"input_size": [true, true, true]}}',
        '{"arguments": {"input_size": [4, 64, 999999999999999999999999]}}',
    ],
)
def test_a_description_that_says_no_grid(files, tmp_path, text):
    save_file(weights(files / "classifier.pth"), tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    assert load_weights(new_model(), tmp_path).resized == []
    with pytest.raises(CheckpointError, match="does not say which"):
        load_weights(new_model(input_size=(4, 32, 128)), tmp_path)


@pytest.mark.parametrize("size", [[224], [], "ab", [4, 64, 0], None])
def test_a_run_that_says_no_grid(files, tmp_path, size):
    content = {"state_dict": weights(files / "classifier.pth")}
    torch.save(content | {"config": {"model": {"input_size": size}}}, tmp_path / "run.ckpt")
    assert load_weights(new_model(), tmp_path / "run.ckpt").resized == []


def test_grid_of_a_file_that_is_not_square(tmp_path):
    saved = new_model(input_size=(4, 64, 96))
    torch.save({"state_dict": saved.state_dict()}, tmp_path / "plain.ckpt")
    config = {"model": {"name": NAME, "input_size": [4, 64, 96]}}
    torch.save({"state_dict": saved.state_dict(), "config": config}, tmp_path / "run.ckpt")
    model = new_model(input_size=(4, 128, 64))
    assert load_weights(model, tmp_path / "run.ckpt").resized == ["pos_embed_spatial"]
    with pytest.raises(CheckpointError, match="plain.ckpt: pos_embed_spatial has 384 tokens, "):
        load_weights(model, tmp_path / "plain.ckpt")
    report = load_weights(model, tmp_path / "plain.ckpt", strict=False)
    assert report.missing == ["pos_embed_spatial"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_none_are_refused(files, tmp_path, bad):
    state = weights(files / "classifier.pth")
    state["blocks.2.attn.qkv.bias"][3:5] = bad
    torch.save(state, tmp_path / "diverged.pth")
    model = new_model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=r"blocks.2.attn.qkv.bias has 2 of 192 val") as error:
        load_weights(model, tmp_path / "diverged.pth")
    assert "\n" not in str(error.value)
    assert_equal(model, before)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("norm.bias", torch.full((128,), 1e300, dtype=torch.float64), "has 128 of 128 values"),
        ("pos_embed_spatial", torch.ones(1, 0, 16), r"pos_embed_spatial is empty \(1x0x16\)"),
        ("pos_embed_temporal", torch.ones(1, 0, 16), r"pos_embed_temporal is empty"),
        ("norm.bias", torch.ones(128).to_sparse(), "norm.bias holds no floating.*sparse"),
        ("norm.bias", torch.ones(1).expand(10**6), "norm.bias repeats its values"),
        (
            *("norm.bias", torch.ones(128, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)),
            "norm.bias holds no floating.*float4",
        ),
    ],
)
# What torch says of its own checks and of its own loading.
@pytest.mark.filterwarnings("ignore:Validating sparse", "ignore:TypedStorage")
def test_values_that_cannot_be_computed_with(files, tmp_path, name, value, message, strict):
    torch.save(weights(files / "classifier.pth") | {name: value}, tmp_path / "bad.pth")
    model = new_model(input_size=(4, 96, 96))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, tmp_path / "bad.pth", strict=strict)
    assert_equal(model, before)


def test_names_cannot_command_a_terminal(files, tmp_path, capsys):
    name = "\x1b[31mred\nnext\u202e"
    state = {**weights(files / "classifier.pth"), name: torch.ones(3)}
    others = {name: {"a": torch.ones(1), "b": torch.ones(1)}}
    torch.save({"model": state, **others}, tmp_path / "names.pth")
    with pytest.raises(CheckpointError, match=r"model: .x1b.31mred next.u202e$"):
        load_weights(new_model(), tmp_path / "names.pth")
    load_weights(new_model(), tmp_path / "names.pth", strict=False)
    out = capsys.readouterr().out
    assert "other weights in the file are not read: \\x1b[31mred next\\u202e\n" in out
    assert "left out \\x1b[31mred next\\u202e\n" in out


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float64])
def test_other_floating_point_types(files, tmp_path, dtype):
    state = {key: value.to(dtype) for key, value in weights(files / "classifier.pth").items()}
    torch.save(state, tmp_path / "other.pth")
    for size in ((4, 64, 64), (8, 96, 96)):
        load_weights(model := new_model(input_size=size), tmp_path / "other.pth")
        assert torch.equal(model.norm.weight, state["norm.weight"].float())
    state["norm.weight"] = torch.full((128,), float("nan")).to(dtype)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="norm.weight has 128 of 128 values"):
        load_weights(model, tmp_path / "other.pth")


def test_what_is_infinite_in_the_models_own_type_is_refused(files, tmp_path):
    state = weights(files / "classifier.pth") | {"norm.bias": torch.full((128,), 1e5)}
    torch.save(state, tmp_path / "large.pth")
    load_weights(tiny_model().bfloat16(), tmp_path / "large.pth")
    with pytest.raises(CheckpointError, match="norm.bias would have infinite .*torch.float16"):
        load_weights(tiny_model().half(), tmp_path / "large.pth")


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_state_dict"])
def test_average_of_timms_training(files, tmp_path, key, capsys):
    average = weights(files / "classifier.pth")
    trained = {name: torch.zeros_like(value) for name, value in average.items()}
    arguments = argparse.Namespace(model=NAME, lr=0.1)
    content = {"epoch": 3, "args": arguments, "state_dict": trained, key: average}
    torch.save(content, tmp_path / "last.pth.tar")
    model = new_model()
    load_weights(model, tmp_path / "last.pth.tar")
    assert_equal(model, average)
    assert f"the average of a training ({key})" in capsys.readouterr().out
    torch.save(content | {key: None}, tmp_path / "last.pth.tar")
    load_weights(model, tmp_path / "last.pth.tar")
    assert_equal(model, trained)
    assert "the average of" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda v: v.to(torch.int8), "int8"),
        (lambda v: v.to("meta"), "meta"),
    ],
)
def test_tensors_that_hold_no_weights_are_refused(files, tmp_path, change, kind):
    state = weights(files / "classifier.pth")
    state["norm.weight"] = change(state["norm.weight"])
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=f"norm.weight holds no floating.*{kind}"):
        load_weights(new_model(), tmp_path / "other.pth")


def image_model(**kwargs):
    model = new_model(input_size=(64, 64), **kwargs)
    randomize(model)
    return model.eval()


def test_image_weights_become_weights_of_videos(tmp_path, capsys):
    image = image_model()
    torch.save(image.state_dict(), tmp_path / "image.pth")
    model = new_model(input_size=(2, 64, 64)).eval()
    report = load_weights(model, tmp_path / "image.pth", inflate=True)
    assert report.resized == ["patch_embed.proj.weight", "pos_embed_temporal"]
    assert report.renamed == {"pos_embed": "pos_embed_spatial"}
    assert "patch_embed.proj.weight" in capsys.readouterr().out
    video = torch.randn(3, 3, 2, 64, 64)
    with torch.no_grad():
        expected = image(video[:, :, 0])
        torch.testing.assert_close(model(video), expected, rtol=1e-5, atol=1e-5)
        video[:, :, 1] = torch.randn(3, 3, 64, 64)
        torch.testing.assert_close(model(video), expected, rtol=1e-5, atol=1e-5)


def test_image_autoencoder_becomes_a_video_classifier_of_another_size(tmp_path, capsys):
    mae = create_mae(NAME, **{**TINY, **DECODER, "input_size": (64, 64)})
    torch.save(mae.state_dict(), tmp_path / "mae.pth")
    model = new_model(input_size=(4, 96, 96))
    report = load_weights(model, tmp_path / "mae.pth", inflate=True)
    assert "pos_embed_spatial" in report.resized
    assert report.renamed["encoder_norm.weight"] == "norm.weight"
    assert report.missing == ["head.projection.weight", "head.projection.bias"]
    assert "left out the decoder" in capsys.readouterr().out
    images = load_weights(image_model(), tmp_path / "mae.pth")
    assert "mask_token" in report.unexpected
    assert report.unexpected == images.unexpected


def test_image_autoencoder_becomes_a_video_autoencoder_with_a_new_decoder(tmp_path, capsys):
    small = {key: TINY[key] for key in ("embed_dim", "num_heads", "stages")}
    image = create_mae("hiera_tiny_224", **small, **DECODER, input_size=(64, 64))
    randomize(image)
    torch.save(image.state_dict(), tmp_path / "mae.pth")
    video = create_mae(NAME, **TINY, **DECODER)
    before = copy.deepcopy(video.state_dict())
    report = load_weights(video, tmp_path / "mae.pth", inflate=True)
    assert torch.equal(video.encoder_norm.weight, image.encoder_norm.weight)
    assert set(report.missing) == {
        n for n in before if n.startswith(("decoder_", "mask_token", "multi_scale"))
    }
    assert all(torch.equal(video.state_dict()[name], before[name]) for name in report.missing)
    assert f"new decoder, {len(report.missing)} tensors" in capsys.readouterr().out


def test_a_head_that_was_not_asked_for(files, tmp_path, capsys):
    load_weights(new_model(), files / "classifier.pth", head=False)
    out = capsys.readouterr().out
    assert "new head: head=False" in out
    assert "none for these classes" not in out
    torch.save({"norm.bias": torch.ones(128)}, tmp_path / "one.pth")
    load_weights(new_model(), tmp_path / "one.pth", strict=False)
    assert "loaded 1 tensor\n" in capsys.readouterr().out


def test_images_and_videos_are_not_mixed_up(tmp_path):
    image, video = image_model(), tiny_model()
    for name, model in {"image": image, "video": video}.items():
        torch.save(model.state_dict(), tmp_path / f"{name}.pth")
    with pytest.raises(CheckpointError, match=r"image.pth: weights of an image .*inflate=True"):
        load_weights(video, tmp_path / "image.pth")
    with pytest.raises(CheckpointError, match="weights of a video model, and this one takes im"):
        load_weights(image, tmp_path / "video.pth")
    before = copy.deepcopy(video.state_dict())
    load_weights(video, tmp_path / "video.pth", inflate=True)
    assert_equal(video, before)


def test_folder_of_a_run(tmp_path):
    state = tiny_model().state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": state}, tmp_path / "checkpoints" / "last.ckpt")
    model = new_model()
    load_weights(model, tmp_path)
    assert_equal(model, state)
    best = tiny_model().state_dict()
    torch.save({"state_dict": best}, tmp_path / "checkpoints" / "best.ckpt")
    load_weights(model, tmp_path)
    assert_equal(model, best)
    with pytest.raises(CheckpointError, match="a folder without weights"):
        load_weights(model, tmp_path / "checkpoints")


# Lightning 2.6 with torch >= 2.13, and what it says to everyone.
@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*num_workers", "ignore:.*WeightAverag")
def test_average_of_a_run(tmp_path):
    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = tiny_model()

        def training_step(self, video):
            return self.model(video).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.model.parameters(), lr=0.01)

    task = Task()
    trainer = lightning.Trainer(
        **{"accelerator": "cpu", "devices": 1, "max_steps": 3, "logger": False},
        **{"enable_progress_bar": False, "enable_model_summary": False},
        # While it trains: in the end the average takes the place of the model.
        callbacks=[ema(0.5), ModelCheckpoint(tmp_path, every_n_train_steps=3, save_last=True)],
    )
    clips = torch.randn(3, 1, *(3, 4, 64, 64))
    trainer.fit(task, DataLoader(clips, batch_size=None))
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    model = new_model()
    load_weights(model, tmp_path / "last.ckpt")
    average = {k.removeprefix("model."): v for k, v in content["state_dict"].items()}
    assert_equal(model, average)
    trained = content["current_model_state"]["model.head.projection.weight"]
    assert not torch.equal(model.head.projection.weight, trained)
