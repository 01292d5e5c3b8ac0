import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from hiera_video.models.architecture import BlockShape
from hiera_video.models.blocks import HieraBlock
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.zoo import create_mae, create_model
from tests.models.reference import make_video
from tests.models.small import TINY, tiny_mae, tiny_model

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_logits_in_training_and_evaluation():
    model = tiny_model()
    video = make_video(model, 2)
    logits = model.eval()(video)
    assert logits.shape == (2, 5)
    assert torch.equal(logits, model.train()(video))
    assert not torch.allclose(logits.sum(-1), torch.ones(2))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "hiera_base_16x224",
            [(8, 56, 56, 96), (8, 28, 28, 192), (8, 14, 14, 384), (8, 7, 7, 768)],
        ),
        ("hiera_tiny_224", [(56, 56, 96), (28, 28, 192), (14, 14, 384), (7, 7, 768)]),
    ],
)
def test_stage_maps(name, shapes):
    with torch.device("meta"):
        model = create_model(name)
        maps = model.forward_features(torch.empty(2, 3, *model.input_size), return_stages=True)
    assert [tuple(m.shape) for m in maps] == [(2, *shape) for shape in shapes]


def test_last_map_is_what_the_head_averages():
    model = tiny_model()
    video = make_video(model, 2)
    last = model.forward_features(video)
    assert torch.equal(last, model.forward_features(video, return_stages=True)[-1])
    logits = model.head(model.norm(last.mean(dim=(1, 2, 3))))
    torch.testing.assert_close(logits, model(video))


def test_maps_follow_the_picture():
    """What moves in the video by one mask unit moves in the map, but for positions and borders."""
    model = tiny_model(input_size=(4, 128, 128), mask_unit_attn=(True,) * 4)
    with torch.no_grad():
        for parameter in (model.pos_embed_spatial, model.pos_embed_temporal):
            parameter.zero_()
    video = torch.zeros(1, 3, 4, 128, 128)
    video[..., 40:60, 40:60] = 1
    maps, moved = (model.forward_features(v) for v in (video, video.roll((32, 64), (-2, -1))))
    torch.testing.assert_close(maps[:, :, 1, 1], moved[:, :, 2, 3])
    assert not torch.allclose(maps[:, :, 1, 1], maps[:, :, 2, 2])


@pytest.mark.parametrize("size", [(8, 224, 224), (32, 224, 224), (16, 256, 320), (16, 64, 64)])
def test_legal_input_sizes(size):
    with torch.device("meta"):
        model = create_model("hiera_base_16x224", input_size=size)
        maps = model.forward_features(torch.empty(1, 3, *size))
    assert maps.shape == (1, size[0] // 2, size[1] // 32, size[2] // 32, 768)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("16x224", {"input_size": (16, 240, 224)}, "height 240 must be a multiple of 32"),
        ("16x224", {"input_size": (16, 224, 100)}, "width 100 must be a multiple of 32"),
        ("16x224", {"input_size": (15, 224, 224)}, "frames 15 must be a multiple of 2"),
        ("16x224", {"input_size": (0, 224, 224)}, "frames 0 must be a multiple of 2"),
        ("16x224", {"input_size": (224,)}, "must be .height, width. or .frames"),
        ("16x224", {"q_stride": (2, 2)}, "q_stride .* must have 3 numbers"),
        ("16x224", {"mask_unit_size": (1, 4, 4)}, "mask_unit_size .* multiple of .1, 8, 8."),
        ("16x224", {"patch_padding": (1, 0, 0)}, "patch_kernel"),
        ("16x224", {"embed_dim": 50, "num_heads": 4}, "50 channels do not divide into 4 heads"),
        ("16x224", {"stages": (2, 3)}, "q_pool must be in .0, 1. for 2 stages"),
        ("16x224", {"stages": (2, 3, 0, 3)}, "at least one block"),
        ("16x224", {"mask_unit_attn": (True,)}, "mask_unit_attn"),
        ("16x224", {"drop_path_rate": 1.0}, "drop_path_rate must be in"),
        ("224", {"sep_pos_embed": True}, "sep_pos_embed is for video"),
    ],
)
def test_illegal_arguments(name, kwargs, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(f"hiera_base_{name}", **kwargs)


@pytest.mark.parametrize("call", ["forward", "forward_features"])
def test_wrong_input_is_named(call):
    model = tiny_model()
    with pytest.raises(
        ValueError, match=r"expected .* \(B, 3, 4, 64, 64\), got \(2, 3, 8, 64, 64\)"
    ):
        getattr(model, call)(torch.zeros(2, 3, 8, 64, 64))
    with pytest.raises(ValueError, match=r"got \(3, 4, 64, 64\)"):
        getattr(model, call)(torch.zeros(3, 4, 64, 64))
    with pytest.raises(ValueError, match=r"normalised float input, got torch\.uint8"):
        getattr(model, call)(torch.zeros(1, 3, 4, 64, 64, dtype=torch.uint8))


def test_positional_arguments():
    strides = ((1, 2, 2), (1, 8, 8), (True, True, False, False))
    patches = ((3, 7, 7), (2, 4, 4), (1, 3, 3))
    model = Hiera((4, 64, 64), 1, 16, 2, 7, (1, 1, 1, 1), 3, *strides, 2.0, 2.0, *patches, 2.0)
    assert model(torch.zeros(1, 1, 4, 64, 64)).shape == (1, 7)
    assert model.blocks[0].mlp.fc1.weight.shape == (32, 16)
    assert Hiera((4, 64, 64), 3, 16).pos_embed_temporal.shape == (1, 2, 16)


def test_other_shapes_of_the_network():
    """Three stages, and units that the pools do not use up."""
    kwargs = {"stages": (1, 1, 1), "q_pool": 1, "mask_unit_size": (2, 8, 8)}
    model = tiny_model(input_size=(8, 64, 64), **kwargs)
    maps = model.forward_features(make_video(model, 1), return_stages=True)
    assert [tuple(m.shape[1:4]) for m in maps] == [(4, 16, 16), (4, 8, 8), (4, 8, 8)]


@pytest.mark.parametrize("build", [tiny_model, tiny_mae])
def test_fused_attention_alone(build):
    """With windows in the batch, no attention falls back to the slow path."""
    model = build(head_mul=2.0)
    with sdpa_kernel(FUSED):
        out = model(make_video(model, 2), *([0.5] if build is tiny_mae else []))
        (out.loss if build is tiny_mae else out.sum()).backward()


def test_rows_beyond_a_cuda_grid_are_split(monkeypatch):
    from hiera_video.models import blocks

    q, k, v = torch.randn(3, 7, 2, 5, 4).unbind()
    expected = blocks.attend(q, k, v)
    monkeypatch.setattr(blocks, "CUDA_GRID", 3)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    torch.testing.assert_close(blocks.attend(q, k, v), expected)


@pytest.mark.parametrize("build", [tiny_model, tiny_mae])
def test_gradient_checkpointing_changes_no_gradient(build):
    results = []
    for switch in (False, True):
        model = build(grad_checkpointing=switch, drop_path_rate=0.5).train()
        torch.manual_seed(0)
        out = model(make_video(model, 4), *([0.5] if build is tiny_mae else []))
        (out.loss if build is tiny_mae else out.square().sum()).backward()
        results.append(gradients(model))
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected, msg=name)


def test_gradient_checkpointing_saves_memory():
    def saved(switch):
        model, sizes = tiny_model(grad_checkpointing=switch), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            model(make_video(model, 1))
        return sum(sizes)

    assert saved(True) < 0.5 * saved(False)


def test_drop_path():
    model = tiny_model(drop_path_rate=0.4)
    rates = [block.drop_path for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    video = make_video(model, 1).expand(64, -1, -1, -1, -1)
    assert torch.equal(model.eval()(video), tiny_model()(video))
    torch.manual_seed(0)
    assert len(model.train()(video).unique(dim=0)) > 8  # each sample for itself


def test_drop_path_is_right_without_first_weights():
    """As a model is when weights are loaded into it whose shapes alone were made before."""
    model = tiny_model(drop_path_rate=0.4)
    with torch.device("meta"):
        empty = tiny_model(drop_path_rate=0.4)
    empty.to_empty(device="cpu").load_state_dict(model.state_dict())
    assert [block.keep_rate for block in empty.blocks] == [b.keep_rate for b in model.blocks]
    for block in empty.double().blocks:
        assert block.keep_rate == 1 - block.drop_path


def test_drop_path_scales_what_it_keeps():
    shape = BlockShape(stage=0, dim=4, dim_out=4, heads=1, q_stride=1, windowed=True)
    block = HieraBlock(shape, drop_path=0.4).train()
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(block.attn.proj.bias)  # attention is 1, all else 0
    torch.manual_seed(0)
    out = block(torch.zeros(4000, 1, 1, 4))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)


def test_head_arguments():
    arguments = {**TINY, "num_classes": 5}
    torch.manual_seed(0)
    whole = create_model("hiera_tiny_16x224", **arguments, head_init_scale=1.0)
    torch.manual_seed(0)
    scaled = create_model("hiera_tiny_16x224", **arguments, head_init_scale=0.25)
    for part in ("weight", "bias"):
        big, little = (getattr(m.head.projection, part) for m in (whole, scaled))
        torch.testing.assert_close(little, 0.25 * big)
    model = tiny_model(head_dropout=0.9).train()
    video = make_video(model, 1)
    assert not torch.equal(model(video), model(video))


@pytest.mark.parametrize("name", ["hiera_huge_224", "hiera_huge_16x224"])
@pytest.mark.parametrize("create", [create_model, create_mae])
def test_builds_on_the_meta_device(name, create):
    with torch.device("meta"):
        model = create(name, drop_path_rate=0.3)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_layers_for_layer_wise_decay():
    model, mae = tiny_model(), tiny_mae()
    depth = len(model.blocks)
    assert model.num_layers == depth + 2
    ids = {name: model.layer_id(name) for name, _ in model.named_parameters()}
    assert ids["patch_embed.proj.weight"] == ids["pos_embed_temporal"] == 0
    assert ids["blocks.0.norm1.weight"] == 1
    assert ids["blocks.4.mlp.fc2.bias"] == depth
    assert ids["norm.weight"] == ids["head.projection.weight"] == depth + 1
    assert mae.layer_id("decoder_pos_embed") == mae.layer_id("encoder_norm.bias") == depth + 1
    assert model.no_weight_decay() == {"pos_embed_spatial", "pos_embed_temporal"}
    assert mae.no_weight_decay() == model.no_weight_decay() | {"mask_token", "decoder_pos_embed"}
    assert create_model("hiera_tiny_224", stages=(1, 1, 1, 1)).no_weight_decay() == {"pos_embed"}


@pytest.mark.parametrize("build", [tiny_model, tiny_mae])
def test_half_precision(build):
    model = build()
    video = make_video(model, 2)
    keywords = {"mask": torch.tensor([[0, 3], [6, 2]])} if build is tiny_mae else {}
    expected = model(video, **keywords)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(video, **keywords)
    half = model.bfloat16()(video, **keywords)
    if isinstance(model, MaskedAutoencoderHiera):
        assert mixed.target.dtype == half.target.dtype == torch.float32
        assert mixed.loss.dtype == half.loss.dtype == torch.float32
        assert half.prediction.dtype == torch.bfloat16
        expected, mixed, half = expected.loss, mixed.loss, half.loss
    for out in (mixed, half):
        torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.1)


def test_evaluation_does_not_round_logits_under_autocast():
    """Equal logits are ties, which count as wrong: the head is computed in the weights' type."""
    model = tiny_model(num_classes=400).eval()
    video = make_video(model, 2)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.encode(video, [3])[0]
        logits = model(video)
        in_training = model.train()(video)
    pooled = model.norm(tokens.float().mean(dim=(1, 2)))
    assert tokens.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model.head.projection(pooled))
    assert not torch.equal(logits, logits.bfloat16().float())
    assert in_training.dtype == torch.bfloat16
    assert model.eval().bfloat16()(video.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("build", [tiny_model, tiny_mae])
def test_any_memory_order_of_the_input(build):
    model = build()
    video = make_video(model, 2)
    strided = video.to(memory_format=torch.channels_last_3d)
    if build is tiny_mae:
        kept = torch.tensor([[0, 3], [6, 2]])
        out, other = model(video, mask=kept), model(strided, mask=kept)
        torch.testing.assert_close(other.prediction, out.prediction)
        assert torch.equal(other.target, out.target)
        painted = model.reconstruct(strided, other)
        torch.testing.assert_close(painted, model.reconstruct(video, out))
    else:
        torch.testing.assert_close(model(strided), model(video))
