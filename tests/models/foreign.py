"""Files as other projects write them, loaded into our model, beside the model they came from.

``python -m tests.models.foreign`` prints the table of docs/weights.md. Weights are random, and all
of them matter (`randomize`). Differences are ``max|a - b| / max|b|``, in single precision.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    HieraConfig,
    HieraForImageClassification,
    HieraForPreTraining,
    HieraModel,
)

from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.names import MODELS
from hiera_video.models.zoo import create_mae, create_model
from hiera_video.weights.load import load_weights
from tests.models.reference import difference, initial_autoencoder, initial_classifier, randomize

# Constructor arguments of a small image model, in our words; published names stand for themselves.
SMALL = {"embed_dim": 16, "num_heads": 1, "stages": (1, 2, 2, 1), "input_size": (64, 96)}


def published(
    folder: Path,
    name: str,
    saved: Callable[[dict[str, Tensor]], dict[str, Any]] = lambda weights: {"model_state": weights},
    **small: Any,
) -> float:
    """The classifier and the masked autoencoder of `hiera-transformer`: logits, predictions.

    `saved` makes the contents of a file from weights.
    """
    decoder = SMALL_DECODER if small else {}
    classifier = initial_classifier(name, **small)
    mae = initial_autoencoder(name, **small, **decoder)
    differences = []
    for i, reference in enumerate((classifier.train(), mae)):  # in evaluation: probabilities
        randomize(reference)
        torch.save(saved(reference.state_dict()), folder / f"{i}.pth")
        ours = create_mae(name, **small, **decoder) if i else create_model(name, **small)
        load_weights(ours, folder / f"{i}.pth", quiet=True)
        video = image(ours)
        if i:
            out = ours(video)
            expected = reference(video, mask=out.mask)[1]
            differences.append(difference(out.prediction.flatten(0, 1), expected))
        else:
            differences.append(difference(ours(video), reference(video)))
    return max(differences)


def from_timm(folder: Path, name: str, ours: str, **small: Any) -> float:
    """A model of timm's: logits."""
    arguments = {("img_size" if k == "input_size" else k): v for k, v in small.items()}
    model = timm.create_model(name, pretrained=False, **arguments)
    randomize(model)
    save_file(model.state_dict(), folder / "model.safetensors")
    size = tuple(4 * n for n in model.tokens_spatial_shape)  # pyright: ignore
    hiera = loaded(create_model(ours, **{**small, "input_size": size}), folder)
    return difference(hiera(image(hiera)), model.eval()(image(hiera)))


def from_transformers(folder: Path, ours: str, **small: Any) -> float:
    """The three models of transformers: last features, logits, predictions of the decoder."""
    config = transformers_config({**MODELS[ours], **small})
    differences = []
    for i, kind in enumerate((HieraModel, HieraForImageClassification, HieraForPreTraining)):
        pretraining = kind is HieraForPreTraining
        config.num_query_pool = 2 if pretraining else 3
        model = kind(config).eval()
        randomize_transformers(model)
        place = folder / str(i)
        model.save_pretrained(place)
        if pretraining:
            mae = loaded(create_mae(ours, **small, **SMALL_DECODER), place)
            differences.append(pretraining_difference(mae, model))
            continue
        hiera = loaded(create_model(ours, num_classes=config.num_labels, **small), place)
        picture = image(hiera)
        if kind is HieraModel:
            features = hiera.forward_features(picture).flatten(1, 2)
            differences.append(difference(features, model(picture).last_hidden_state))
        else:
            differences.append(difference(hiera(picture), model(picture).logits))
    return max(differences)


def from_birder(folder: Path, name: str, **small: Any) -> float:
    """As `published`, with files as birder saves them."""
    stages = small.get("stages") or MODELS[name]["stages"]
    return published(folder, name, lambda w: {"state": birder_names(w, stages)}, **small)


def birder_names(weights: Mapping[str, Tensor], stages: Sequence[int]) -> dict[str, Tensor]:
    """Published weights under birder's names; birder itself is not among the tests' packages.

    Args:
        weights: of a classifier, or of a masked autoencoder, whose encoder is a part there.
        stages: number of blocks of each stage.
    """
    places = [(s, i) for s, depth in enumerate(stages, 1) for i in range(depth)]
    names = {f"blocks.{n}.": f"body.stage{s}.{i}." for n, (s, i) in enumerate(places)}
    names |= {"patch_embed.": "stem.", "norm.": "features.1.", "head.projection.": "classifier."}
    names |= {"pos_embed": "pos_embed"}
    encoder, renamed = "", {}
    if "mask_token" in weights:  # its encoder keeps what it does not use
        encoder = "encoder."
        renamed = {f"encoder.{n}": torch.ones(7) for n in ("features.1.weight", "classifier.bias")}
    for name, value in weights.items():
        if start := next((start for start in names if name.startswith(start)), None):
            name = encoder + names[start] + name.removeprefix(start)
        renamed[name.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.3.")] = value
    return renamed


def from_sam2(folder: Path, name: str, ours: str, **small: Any) -> float:
    """SAM 2's trunk, in timm's port, under SAM 2's names: the features of all stages."""
    arguments = {k: v for k, v in small.items() if k != "input_size"}
    if "stages" in arguments:  # the rest of stage 3
        start, depth = sum(arguments["stages"][:2]), arguments["stages"][2]
        arguments["global_att_blocks"] = tuple(range(start + 1, start + depth))
    trunk = timm.create_model(name, pretrained=False, **arguments)
    randomize(trunk)
    torch.save({"model": sam2_names(trunk)}, folder / "sam2.pt")
    hiera = create_model(ours, **small)
    load_weights(hiera, folder / "sam2.pt", quiet=True)
    picture = image(hiera)
    maps = hiera.forward_features(picture, return_stages=True)
    expected = trunk.eval().forward_intermediates(
        picture, output_fmt="NHWC", intermediates_only=True
    )
    return max(difference(a, b) for a, b in zip(maps, expected, strict=True))


SMALL_DECODER = {"decoder_embed_dim": 32, "decoder_depth": 2, "decoder_num_heads": 4}


def image(model: Hiera, batch: int = 2, seed: int = 3) -> Tensor:
    """Noise of the model's input size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *model.input_size, generator=generator)


def loaded(model: Any, folder: Path) -> Any:
    """Our model with the weights of a folder."""
    load_weights(model, folder, quiet=True)
    return model.eval()


def sam2_names(trunk: nn.Module) -> dict[str, Tensor]:
    """The weights of timm's port as SAM 2 saves them, with others of SAM 2 beside them."""
    weights = {
        "image_encoder.trunk."
        + k.replace(".mlp.fc1.", ".mlp.layers.0.").replace(".mlp.fc2.", ".mlp.layers.1."): v
        for k, v in trunk.state_dict().items()
        if not k.startswith("head.")
    }
    other = {"image_encoder.neck.convs.0.conv.weight": torch.ones(4), "no_mem_embed": torch.ones(3)}
    return weights | other


def transformers_config(arguments: dict[str, Any]) -> HieraConfig:
    """Our arguments in transformers' words."""
    heads = arguments["num_heads"]
    return HieraConfig(
        embed_dim=arguments["embed_dim"],
        image_size=list(arguments["input_size"]),
        depths=list(arguments["stages"]),
        num_heads=[heads * 2**i for i in range(4)],
        decoder_hidden_size=SMALL_DECODER["decoder_embed_dim"],
        decoder_depth=SMALL_DECODER["decoder_depth"],
        decoder_num_heads=SMALL_DECODER["decoder_num_heads"],
        num_labels=7,
    )


def randomize_transformers(model: nn.Module) -> None:
    """As `randomize`, also for what is named otherwise there."""
    randomize(model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position_embeddings" in name or "mask_token" in name:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


def pretraining_difference(
    mae: MaskedAutoencoderHiera, model: nn.Module, mask_ratio: float | None = None
) -> float:
    """Of loss and predictions, for one random mask; `mask_ratio` is that of `model`."""
    picture = image(mae)
    noise = torch.rand(len(picture), mae.num_units, generator=torch.Generator().manual_seed(1))
    kept = noise.argsort(dim=1)[:, : mae.num_kept(mask_ratio)]
    out, expected = mae(picture, mask=kept), model(picture, noise=noise)
    predictions = expected.logits[out.predicted].unflatten(0, out.prediction.shape[:2])
    return max(difference(out.loss, expected.loss), difference(out.prediction, predictions))


LINES: list[tuple[str, str, Callable[[Path], float]]] = [
    ("published, images", "tiny_224", lambda f: published(f, "hiera_tiny_224")),
    ("published, videos", "base_16x224", lambda f: published(f, "hiera_base_16x224")),
    ("timm", "tiny_224", lambda f: from_timm(f, "hiera_tiny_224", "hiera_tiny_224")),
    ("timm", "base_plus_224", lambda f: from_timm(f, "hiera_base_plus_224", "hiera_base_plus_224")),
    (
        "timm, absolute windows and LayerScale",
        "base at 256x256",
        lambda f: from_timm(f, "hiera_base_abswin_256", "hiera_base_224"),
    ),
    ("transformers", "tiny_224", lambda f: from_transformers(f, "hiera_tiny_224")),
    ("transformers", "base_224", lambda f: from_transformers(f, "hiera_base_224")),
    ("SAM 2", "tiny_224", lambda f: from_sam2(f, "sam2_hiera_tiny", "hiera_tiny_224")),
    ("SAM 2", "small_224", lambda f: from_sam2(f, "sam2_hiera_small", "hiera_small_224")),
    (
        "SAM 2",
        "base_plus_224",
        lambda f: from_sam2(f, "sam2_hiera_base_plus", "hiera_base_plus_224"),
    ),
    (
        "SAM 2",
        "large at 256x256",
        lambda f: from_sam2(f, "sam2_hiera_large", "hiera_large_224", input_size=(256, 256)),
    ),
]


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    print("| format | model | largest difference |\n|---|---|---|")
    for form, name, measure in LINES:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            print(f"| {form} | {name} | {measure(Path(folder)):.1e} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
