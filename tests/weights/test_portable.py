import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.utils._pytree import tree_flatten

from hiera_video import create_detector, create_mae, create_model
from hiera_video.errors import CheckpointError
from hiera_video.weights.description import Description, from_record, read_description, to_record
from hiera_video.weights.portable import CREATE, build, write_model
from tests.models.reference import make_video, randomize
from tests.models.small import TINY, tiny_mae, tiny_model

CLIP = {
    "num_frames": 4,
    "stride": 2,
    "fps": 29.97,
    "size": [64, 64],
    "sampling": "clip",
    "interpolation": "bilinear",
    "eval_crop": 1.0,
    "test_views": [2, 3],
}
DESCRIPTION = Description(
    kind="classifier",
    name="hiera_tiny_16x224",
    arguments={**TINY, "num_classes": 5},
    class_names=("a", 'b"', "ü", "d", ""),
    clip=CLIP,
    mean=(0.4, 0.5, 0.6),
    std=(0.1, 0.2, 0.3),
    source="test",
    licence=None,
)
DECODER = {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4}


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path, tiny_model(), DESCRIPTION)
    return tmp_path


def test_read_back(folder):
    model = tiny_model().eval()
    video = make_video(model, 2)
    for source in (folder, folder / "model.json", str(folder)):
        assert torch.equal(create_model(source).eval()(video), model(video))
    back = read_description(folder / "model.json")
    lists = {key: list(DESCRIPTION.arguments[key]) for key in ("input_size", "stages")}
    assert back == DESCRIPTION._replace(arguments=DESCRIPTION.arguments | lists)


@pytest.mark.parametrize(
    "description",
    [
        DESCRIPTION,
        DESCRIPTION._replace(clip=None, licence="unknown", training={"recipe": {"lr": 0.1}}),
        DESCRIPTION._replace(
            kind="action_detector",
            class_names=("sit", "stand"),
            action_ids=(11, 12),
            arguments={"num_classes": 2},
            versions={"torch": "2.14.1"},
        ),
    ],
)
def test_a_record_is_plain_and_read_back(description):
    record = to_record(description)
    assert json.loads(json.dumps(record)) == record
    back = from_record(record, "file")
    assert to_record(back) == record
    assert type(back.class_names) is type(back.action_ids) is type(back.mean) is tuple


def test_a_record_of_the_first_schema(folder):
    changed(folder, schema=1, action_ids=..., versions=...)
    back = read_description(folder / "model.json")
    assert (back.action_ids, back.versions) == ((), {})
    assert create_model(folder).head.projection.out_features == 5


def test_read_back_in_order_to_train_on(folder, capsys):
    model = create_model(folder, num_classes=3, drop_path_rate=0.3)
    assert model.head.projection.out_features == 3
    assert model.blocks[-1].drop_path == pytest.approx(0.3)
    assert torch.equal(model.norm.weight, tiny_model().norm.weight)
    assert "new head" in capsys.readouterr().out


def test_a_masked_autoencoder(tmp_path):
    mae = tiny_mae()
    description = DESCRIPTION._replace(
        kind="masked_autoencoder", arguments={**TINY, **DECODER}, class_names=()
    )
    write_model(tmp_path, mae, description)
    video, kept = make_video(mae, 1), torch.tensor([[1, 5]])
    assert torch.equal(create_mae(tmp_path)(video, mask=kept).loss, mae(video, mask=kept).loss)
    with pytest.raises(CheckpointError, match="holds a masked autoencoder; use create_mae"):
        create_model(tmp_path)


def test_an_action_detector(tmp_path, capsys):
    detector = create_detector("hiera_tiny_16x224", **TINY, num_classes=3, multi_scale=True)
    randomize(detector)
    description = DESCRIPTION._replace(
        kind="action_detector",
        arguments={**TINY, "num_classes": 3, "multi_scale": True},
        class_names=("sit", "stand", "run"),
        action_ids=(11, 12, 10),
    )
    write_model(tmp_path, detector, description)
    video, boxes, box_clip = make_video(detector, 1), torch.rand(2, 4), torch.zeros(2).long()
    back = create_detector(tmp_path).eval()
    assert torch.equal(back(video, boxes, box_clip), detector.eval()(video, boxes, box_clip))
    with pytest.raises(CheckpointError, match="holds an action detector; use create_detector"):
        create_model(tmp_path)
    assert create_detector(tmp_path, 7).head.projection.out_features == 7
    assert "new head" in capsys.readouterr().out


@pytest.mark.parametrize("kind", CREATE)
def test_what_no_file_holds_is_as_in_a_new_model(tmp_path, kind):
    heads = DECODER if kind == "masked_autoencoder" else {"num_classes": 5}
    arguments = {**TINY, **heads, "drop_path_rate": 0.4}
    if kind == "mask_rcnn":
        arguments |= {"input_size": (64, 64), "width": 8}
    name = "hiera_tiny_224" if kind == "mask_rcnn" else "hiera_tiny_16x224"
    new = CREATE[kind](name, **arguments)
    description = DESCRIPTION._replace(kind=kind, name=name, arguments=arguments, clip=None)
    write_model(tmp_path, new, description)
    back = build(description, tmp_path / "model.safetensors")
    buffers = dict(new.named_buffers())
    assert buffers
    assert all(torch.equal(value, buffers[name]) for name, value in back.named_buffers())
    for module in back.modules():  # such as torchvision's anchors, a list of tensors
        tensors = tree_flatten(vars(module))[0]
        assert not any(torch.is_tensor(value) and value.is_meta for value in tensors)


def changed(folder, **fields):
    record = json.loads((folder / "model.json").read_text())
    record |= fields
    record = {name: value for name, value in record.items() if value is not ...}
    (folder / "model.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": ...}, "kind is missing"),
        ({"kind": "detector"}, "kind must be classifier or masked_autoencoder or action_detector"),
        ({"class_nams": []}, "no field class_nams; did you mean class_names"),
        ({"class_names": ["a", 3]}, "class_names must be a list of text"),
        ({"class_names": ["a", "b"]}, "2 class_names for num_classes 5"),
        ({"name": "hiera_tiny"}, "of no model; did you mean hiera_tiny_224"),
        ({"name": "."}, "of no model"),
        ({"arguments": []}, "arguments must be an object"),
        ({"arguments": {"embed_dims": 3}}, "model.json: .*embed_dims"),
        ({"arguments": {"embed_dim": 10**9}}, "arguments must be an object of numbers below"),
        ({"arguments": {"embed_dim": {"a": 1}}}, "arguments must be an object of numbers below"),
        ({"arguments": {"stages": [1, 1, 10**5, 1]}}, "name 100003 blocks and poolings"),
        ({"arguments": {"stages": [-1], "decoder_depth": 1000}}, "name 1001 blocks"),
        ({"arguments": {"q_pool": 900_000}}, "blocks and poolings"),
        ({"arguments": {**TINY, "embed_dim": 99_999}}, "cannot be the weights of the model that"),
        ({"arguments": {**TINY, "mlp_ratio": 999_999}}, "cannot be the weights of the model that"),
        ({"arguments": {**TINY, "dim_mul": 999_999}}, "model.json: Storage size"),
        ({"arguments": {**TINY, "dim_mul": -1}}, "model.json: "),
        ({"arguments": {"head_mul": 0}}, "model.json: "),
        ({"arguments": {"head_init_scale": "x"}}, "model.json: "),
        ({"arguments": {"stages": [1, "\n\n", 1]}}, "model.json: "),
        ({"arguments": {"a\nb\u2028c": 1}}, "model.json: "),
        ({"a\nb\u2028c": 1}, "no field a b c"),
        ({"arguments": {"input_size": [4, 60, 64]}}, "multiple of 32"),
        ({"arguments": {**TINY, "stages": [1, 1, 1, 1], "num_classes": 5}}, "blocks.4"),
        ({"clip": {**CLIP, "stride": 0}}, "clip.stride must be a whole number above 0, not 0"),
        ({"clip": {**CLIP, "size": [64]}}, "clip.size must be two whole numbers"),
        ({"clip": {**CLIP, "sampling": "any"}}, "clip.sampling must be clip or spread or"),
        ({"clip": {**CLIP, "speed": 1}}, "no field clip.speed"),
        ({"clip": 3}, "clip must be an object or null"),
        ({"mean": [0.5, 0.5]}, "mean must be three numbers"),
        ({"mean": [0.5, 0.5, math.nan]}, "mean must be three numbers"),
        ({"std": [0.5, 0.5, 0]}, "std must be three numbers above 0"),
        ({"licence": 4}, "licence must be text or null"),
        ({"schema": 3}, "schema is 3 and this version reads 1 and 2"),
        ({"schema": ...}, "schema is missing"),
        ({"schema": 1, "class_names": ...}, "class_names is missing"),
        ({"weights": "onnx"}, "describes onnx, which runs in other programs"),
        ({"action_ids": [1, 0]}, "action_ids must be a list of whole numbers"),
        ({"action_ids": [1, 2]}, "2 action_ids for num_classes 5"),
        ({"action_ids": [1, 2], "arguments": {}}, "2 action_ids for 5 class_names"),
        ({"versions": {"torch": 2}}, "versions must be an object of text, not {'torch': 2}"),
    ],
)
def test_a_wrong_file_is_one_line(folder, fields, message):
    changed(folder, **fields)
    with pytest.raises(CheckpointError, match=message) as error:
        create_model(folder)
    assert len(str(error.value).splitlines()) == 1
    if fields.keys() == {"arguments"}:  # nor does it help to have one's own in their place
        with pytest.raises(CheckpointError):
            create_model(folder, drop_path_rate=0.1)


@pytest.mark.parametrize("create", [create_model, create_mae])
def test_no_memory_is_taken_for_what_a_file_says(folder, create, monkeypatch):
    kind = "classifier" if create is create_model else "masked_autoencoder"
    changed(folder, kind=kind, arguments={**TINY, "embed_dim": 4096})  # 70 GiB
    monkeypatch.setattr(torch.nn.Module, "to_empty", None)
    with pytest.raises(
        CheckpointError, match=r"model.safetensors: 1\.\d+ MiB cannot be the weights"
    ) as error:
        create(folder)
    assert str(folder / "model.json") in str(error.value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        create(folder)


def test_weights_in_half_precision_are_read(folder):
    weights = {name: value.half() for name, value in tiny_model().state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    assert torch.equal(create_model(folder).norm.weight, tiny_model().norm.weight.half().float())


def test_missing_or_damaged_files(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors: no such file"):
        create_model(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        create_model(folder)
    (folder / "model.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="not valid JSON"):
        create_model(folder)
    (folder / "model.json").unlink()
    with pytest.raises(
        CheckpointError, match=f"{folder}: not an exported model .there is no model.json, "
    ):
        create_model(folder)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("value", [torch.ones(2), b"raw", {1: object()}])
def test_a_checkpoints_record_of_other_objects_is_refused(value):
    for field in ("schema", "kind", "training"):
        with pytest.raises(CheckpointError, match="last.ckpt: its description"):
            from_record({**to_record(DESCRIPTION), field: value}, "last.ckpt")


@given(field=st.sampled_from(["schema", *DESCRIPTION._fields, "other"]), value=JSON_VALUES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_is_read_or_refused(tmp_path, field, value):
    record = {**to_record(DESCRIPTION), field: value}
    file = tmp_path / "model.json"
    file.write_text(json.dumps(record))
    message = ""
    try:
        read_description(file)
    except CheckpointError as error:
        message = str(error)
    assert "\n" not in message
