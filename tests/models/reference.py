"""The published code beside ours, with the same weights: how far apart are they?

`hiera-transformer` is the reference. Differences are ``max|a - b| / max|b|``.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.names import model_arguments
from hiera_video.models.zoo import create_mae, create_model

with warnings.catch_warnings():
    # It imports timm's layers from where they no longer live.
    warnings.filterwarnings("ignore", "Importing from timm", category=FutureWarning)
    from hiera.hiera import Hiera as ReferenceHiera
    from hiera.hiera_mae import MaskedAutoencoderHiera as ReferenceMae

# The published factories refuse to have these changed, so the class is used.
VIDEO = {
    "q_stride": (1, 2, 2),
    "mask_unit_size": (1, 8, 8),
    "patch_kernel": (3, 7, 7),
    "patch_stride": (2, 4, 4),
    "patch_padding": (1, 3, 3),
    "sep_pos_embed": True,
}


@contextmanager
def unset_weights() -> Iterator[None]:
    """Large networks are created in half the time, but their weights are yet to be set."""
    with ExitStack() as patches:
        for name in ("trunc_normal_", "kaiming_uniform_", "uniform_"):
            patches.enter_context(mock.patch.object(nn.init, name, lambda tensor, *_, **__: tensor))
        yield


def classifiers(name: str, **overrides: Any) -> tuple[Hiera, nn.Module]:
    """Ours and the reference, with the same random weights."""
    with unset_weights():
        models = create_model(name, **overrides), initial_classifier(name, **overrides)
    return _same_weights(*models)


def autoencoders(name: str, **overrides: Any) -> tuple[MaskedAutoencoderHiera, nn.Module]:
    """Ours and the reference, with the same random weights and the paper's decoder heads."""
    with unset_weights():
        models = create_mae(name, **overrides), initial_autoencoder(name, **overrides)
    return _same_weights(*models)


def initial_classifier(name: str, **overrides: Any) -> nn.Module:
    """The reference as it initialises itself."""
    arguments = {**model_arguments(name), **overrides}
    return ReferenceHiera(**_layout(arguments), **arguments)


def initial_autoencoder(name: str, **overrides: Any) -> nn.Module:
    """The reference as it initialises itself, with the paper's decoder heads."""
    arguments = {**model_arguments(name), "q_pool": 2, **overrides}
    arguments.setdefault("decoder_num_heads", 8 if len(arguments["input_size"]) == 3 else 16)
    return ReferenceMae(**_layout(arguments), **arguments)


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Weights at which every part of the model matters; the initial head is nearly zero."""
    kind = next(model.parameters()).device.type
    device = kind if kind == "cuda" else "cpu"  # also for weights on meta
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, device=device)
            if "pos_embed" in name or name == "mask_token":
                parameter.copy_(0.5 * noise)
            elif parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.1 * noise + ("norm" in name and name.endswith("weight")))


def difference(ours: Tensor, reference: Tensor) -> float:
    """``max|a - b| / max|b|``."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return ((ours - reference).abs().max() / reference.abs().max()).item()


def classifier_differences(
    name: str, batch: int = 1, gradients: bool = True, **overrides: Any
) -> dict[str, float]:
    """Of logits, of the worst of four stages, and of the worst parameter's gradient."""
    ours, reference = classifiers(name, **overrides)
    reference.train()  # in evaluation it gives probabilities; nothing in it is random here
    video = make_video(ours, batch)
    with torch.no_grad():
        logits, maps = reference(video, return_intermediates=True)
        stages = ours.forward_features(video, return_stages=True)
        differences = {
            "logits": difference(ours.eval()(video), logits),
            "stages": max(difference(a, b) for a, b in zip(stages, maps, strict=True)),
        }
    if gradients:
        weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        differences["gradients"] = gradient_difference(
            ours, reference, video, lambda model, video: (model(video) * weight).sum()
        )
    return differences


def mae_differences(
    name: str,
    batch: int = 1,
    gradients: bool = True,
    mask_ratio: float | None = None,
    **overrides: Any,
) -> dict[str, float]:
    """Of loss, prediction, target, and of the worst parameter's gradient, for one mask."""
    ours, reference = autoencoders(name, **overrides)
    video = make_video(ours, batch)
    with torch.no_grad():
        out = ours(video, mask_ratio, generator=torch.Generator().manual_seed(2))
        loss, prediction, target, mask = reference(video, mask=out.mask)
    assert torch.equal(mask, out.mask)
    differences = {
        "loss": difference(out.loss, loss),
        "prediction": difference(out.prediction.flatten(0, 1), prediction),
        "target": difference(out.target.flatten(0, 1), target),
    }
    if gradients:
        differences["gradients"] = gradient_difference(
            ours, reference, video, lambda model, video: model(video, mask=mask)[0]
        )
    return differences


def gradient_difference(
    ours: nn.Module,
    reference: nn.Module,
    video: Tensor,
    loss: Callable[[nn.Module, Tensor], Tensor],
) -> float:
    """Of the worst of all parameters.

    In float32 a rounding, which differs from one processor to another, may decide which of two
    nearly equal queries a pooling takes, and with it where the gradient goes. So a difference that
    is large is measured again in float64, where that does not happen.
    """
    error = _gradient_difference(ours, reference, video, loss)
    if error <= 1e-5:
        return error
    return _gradient_difference(ours.double(), reference.double(), video.double(), loss)


def _gradient_difference(
    ours: nn.Module,
    reference: nn.Module,
    video: Tensor,
    loss: Callable[[nn.Module, Tensor], Tensor],
) -> float:
    for model in (ours, reference):
        model.zero_grad()
        loss(model, video).backward()
    expected = dict(reference.named_parameters())
    errors = []
    for name, parameter in ours.named_parameters():
        a, b = parameter.grad, expected[name].grad
        assert a is not None, name
        assert b is not None, name
        errors.append(difference(a, b))
    return max(errors)


def make_video(model: Hiera, batch: int, seed: int = 3) -> Tensor:
    """Noise of the model's input size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, model.in_chans, *model.input_size, generator=generator)


def _layout(arguments: dict[str, Any]) -> dict[str, Any]:
    return VIDEO if len(arguments["input_size"]) == 3 else {}


def _same_weights(ours: Any, reference: nn.Module) -> tuple[Any, nn.Module]:
    randomize(reference)
    assert list(ours.state_dict()) == list(reference.state_dict())
    ours.load_state_dict(reference.state_dict(), strict=True)
    return ours, reference
