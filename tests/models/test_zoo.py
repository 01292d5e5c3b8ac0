import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hiera_video.models.action_detector import HieraActionDetector
from hiera_video.models.complexity import complexity, complexity_table
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.names import CHECKPOINTS, MODELS, list_models
from hiera_video.models.zoo import create_detector, create_mae, create_mask_rcnn, create_model
from tests.models.reference import make_video

# Millions of parameters and giga multiply-adds as printed in tables 2 and 4 of the paper.
PAPER = {
    "hiera_tiny_224": (28, 5),
    "hiera_small_224": (35, 6),
    "hiera_base_224": (52, 9),
    "hiera_base_plus_224": (70, 13),
    "hiera_large_224": (214, 40),
    "hiera_huge_224": (673, 125),
    "hiera_base_16x224": (51, 102),
    "hiera_base_plus_16x224": (69, 133),
    "hiera_large_16x224": (213, 413),
    "hiera_huge_16x224": (672, 1159),
}
SMALL = [
    {"stages": (1, 2, 2, 1), "embed_dim": 16},
    {"stages": (1, 1, 1), "q_pool": 1, "embed_dim": 8, "dim_mul": 3.0, "head_mul": 2.0},
    {"stages": (2, 1, 1, 1), "embed_dim": 16, "mask_unit_attn": (True, False, True, False)},
    {"stages": (1, 1, 1, 1), "embed_dim": 8, "num_heads": 2, "mlp_ratio": 2.5, "num_classes": 7},
    {"stages": (1, 1, 1, 1), "embed_dim": 8, "sep_pos_embed": False, "in_chans": 1},
]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_names():
    assert len(list_models()) == 12
    assert list_models()[0] == "hiera_tiny_224"
    assert len(CHECKPOINTS) == 20
    assert "mae_hiera_huge_16x224" in CHECKPOINTS
    assert "mae_hiera_tiny_16x224" not in CHECKPOINTS


@pytest.mark.parametrize("create", [create_model, create_mae])
@pytest.mark.parametrize(
    ("name", "nearest"),
    [("hiera_bass_16x224", "hiera_base_16x224"), ("hiera-large-224", "hiera_large_224")],
)
def test_unknown_name_is_answered_with_the_nearest(create, name, nearest):
    with pytest.raises(ValueError, match=f"no model '{name}'; did you mean .*{nearest}"):
        create(name)


@pytest.mark.parametrize(
    ("create", "arguments", "message"),
    [
        (create_model, {"num_classes": 10.0}, "num_classes must be a whole number, not 10.0"),
        (create_model, {"embed_dim": "96"}, "embed_dim must be a whole number, not '96'"),
        (create_model, {"input_size": 224}, r"input_size must be \(height, width\) or .* not 224"),
        (create_mask_rcnn, {"num_classes": 8.0}, "num_classes must be a whole number, not 8.0"),
        (create_mae, {"decoder_depth": 1.5}, "decoder_depth must be a whole number, not 1.5"),
        (create_model, {"pretrained": True}, r"load_weights\(model, NAME\) then reads published"),
        (create_mae, {"num_classes": 10}, "num_classes: a masked autoencoder has no classifier"),
        (create_mae, {"head_dropout": 0.5}, "head_dropout: a masked autoencoder has no classifier"),
    ],
)
def test_arguments_of_wrong_types_and_without_effect(create, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        create("hiera_tiny_224", **arguments)


def test_overrides():
    model = create_model(
        "hiera_tiny_16x224",
        embed_dim=48,
        num_heads=1,
        stages=(1, 2, 3, 1),
        input_size=(8, 96, 96),
        num_classes=8,
        drop_path_rate=0.2,
        head_init_scale=1.0,
    )
    assert model(make_video(model, 2)).shape == (2, 8)
    lists = create_model("hiera_tiny_16x224", input_size=[4, 64, 64], stages=[1, 1, 1, 1])
    assert lists.input_size == (4, 64, 64)
    with pytest.raises(TypeError, match="embed_dims"):
        create_model("hiera_tiny_16x224", embed_dims=48)


def test_table_is_that_of_the_page_and_rounds_to_the_papers():
    rows = [line.split() for line in complexity_table().splitlines()[1:]]
    numbers = {name: (parameters, multiply_adds) for name, _, parameters, multiply_adds in rows}
    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    columns = re.findall(r"^\| (\w+) \| ([\d.]+) \| \S+ \| ([\d.]+) \| \S+ \|$", page, re.MULTILINE)
    assert numbers == {name: tuple(values) for name, *values in columns}
    assert list(numbers) == list_models()
    for name, printed in PAPER.items():
        assert tuple(round(float(number)) for number in numbers[name]) == printed


def test_multiply_adds_by_hand():
    model = {"stages": (1, 1), "q_pool": 1, "embed_dim": 8, "dim_mul": 2.0, "num_classes": 7}
    cost = complexity(**model, input_size=(64, 32), mask_unit_size=(8, 8))  # 2 units of 64 tokens
    first = 128 * 8 * (3 * 8 + 8 + 2 * 4 * 8) + 2 * 128 * 64 * 8  # linear maps, attention in units
    second = 128 * 8 * (3 * 16 + 16) + 32 * 16 * 16 + 2 * 32 * 64 * 16 + 32 * 16 * 2 * 4 * 16
    norms = 5 * (2 * 128 * 8 + 128 * 8 + 32 * 16 + 16)
    assert cost.layer_norms == norms
    assert cost.multiply_adds == 128 * 3 * 49 * 8 + first + second + 16 * 7 + norms


@pytest.mark.parametrize("size", [(64, 96), (4, 64, 96)])
@pytest.mark.parametrize("arguments", SMALL)
def test_meta_device_counts_what_a_cpu_computes(arguments, size):
    arguments = {**arguments, "input_size": size}
    if len(size) == 2:
        arguments.pop("sep_pos_embed", None)
    name = "hiera_tiny_224" if len(size) == 2 else "hiera_tiny_16x224"
    model = create_model(name, **arguments)
    elements = []
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(lambda m, args, out: elements.append(out.numel()))
    # The counter does not know fused attention on a CPU.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(make_video(model, 1))
    cost = complexity(**{**MODELS[name], **arguments})
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.layer_norms == 5 * sum(elements)
    assert cost.multiply_adds == counter.get_total_flops() // 2 + cost.layer_norms


@pytest.mark.parametrize(
    ("create", "network"),
    [
        (create_model, Hiera),
        (create_mae, MaskedAutoencoderHiera),
        (create_detector, HieraActionDetector),
    ],
)
def test_functions_say_which_network_takes_their_keywords(create, network):
    assert inspect.signature(create, eval_str=True).return_annotation is network


def test_names_need_no_torch():
    code = "import sys, hiera_video; hiera_video.list_models();assert 'torch' not in sys.modules"
    run_python(code)


def test_models_need_torch_alone():
    code = (
        "import sys, hiera_video as h; h.load_weights, h.create_mae, h.create_detector;"
        "h.create_model('hiera_tiny_224', stages=(1, 1, 1, 1));"
        "found = {'torchvision', 'timm', 'lightning', 'hydra', 'triton', 'torch._dynamo'};"
        "found &= set(sys.modules);"
        "assert not found, found"
    )
    run_python(code)
