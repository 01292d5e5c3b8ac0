"""Image classifiers in timm's layout, and what it shares with that of transformers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.files import write_json
from hiera_video.errors import LayoutError
from hiera_video.models.architecture import block_shapes
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.names import model_arguments
from hiera_video.weights.description import PUBLISHED_PICTURE, Description
from hiera_video.weights.portable import WEIGHTS
from hiera_video.weights.restrictions import obstacle


def write_timm(folder: Path, model: Hiera, description: Description) -> None:
    """Write what ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads.

    Args:
        folder: where to write.
        model: the classifier; weights are written as float32.
        description: describes the classifier.

    Raises:
        LayoutError: timm has no such model.
    """
    shape = architecture_for(model, description, "timm")
    num_classes = model.head.projection.out_features
    weights = {_timm_name(name): value for name, value in model.state_dict().items()}
    arguments = {
        "img_size": shape.image_size,
        "in_chans": model.in_chans,
        "embed_dim": shape.dims[0],
        "num_heads": shape.heads[0],
        "stages": shape.depths,
        "q_pool": model.q_pool,
        **shape.geometry,
        "mask_unit_attn": shape.windowed,
        "dim_mul": shape.dim_mul,
        "head_mul": shape.head_mul,
        "mlp_ratio": shape.mlp_ratio,
    }
    size = [model.in_chans, *shape.image_size]
    interpolation, share = scaling(description)
    config = {
        "architecture": description.name,
        "num_classes": num_classes,
        "num_features": shape.dims[-1],
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": size,
            "fixed_input_size": True,
            "interpolation": interpolation,
            "crop_pct": share,
            "mean": description.mean,
            "std": description.std,
            "num_classes": num_classes,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
            "license": (description.licence or "unknown").lower(),
        },
    }
    if description.class_names:
        config["label_names"] = list(description.class_names)
    write_files(folder, weights, {"config.json": config})


def scaling(description: Description) -> tuple[str, float]:
    """How tests scale pictures, and the share of the short side that they crop."""
    clip = description.clip or PUBLISHED_PICTURE
    return clip["interpolation"], clip["eval_crop"]


class Architecture(NamedTuple):
    """The arguments of an image model that both layouts hold."""

    image_size: list[int]
    depths: list[int]
    dims: list[int]
    heads: list[int]
    windowed: list[bool]
    dim_mul: float
    head_mul: float
    mlp_ratio: float
    geometry: dict[str, list[int]]


def architecture_for(model: Hiera, description: Description, library: str) -> Architecture:
    """The arguments of a model, if the library's Hiera computes the same.

    Args:
        model: a classifier or a masked autoencoder.
        description: describes it.
        library: its name, for messages.

    Raises:
        LayoutError: the library computes something else.
    """
    if len(model.input_size) != 2:
        raise LayoutError(f"{library} has no Hiera for video; use --format safetensors")
    arguments = {**model_arguments(description.name), **description.arguments}
    depths = list(arguments["stages"])
    blocks = block_shapes(
        depths,
        arguments["embed_dim"],
        arguments["num_heads"],
        model.q_pool,
        model.geometry.q_stride,
        windowed := list(arguments.get("mask_unit_attn", (True, True, False, False))),
        dim_mul := arguments.get("dim_mul", 2.0),
        head_mul := arguments.get("head_mul", 2.0),
    )
    ends = [blocks[i] for i in model.stage_ends]
    dims, heads = [b.dim_out for b in ends], [b.heads for b in ends]
    windowed = [bool(w) for w in windowed[: len(depths)]]
    words = obstacle(
        depths,
        dims,
        model.q_pool,
        model.geometry.q_stride,
        model.geometry.unit,
        windowed,
        dim_mul,
        pools_less=isinstance(model, MaskedAutoencoderHiera),
    )
    if words:
        raise LayoutError(f"{library}'s Hiera cannot have {words}; use --format safetensors")
    geometry = {
        "q_stride": model.geometry.q_stride,
        "mask_unit_size": model.geometry.unit,
        "patch_kernel": model.geometry.patch_kernel,
        "patch_stride": model.geometry.patch_stride,
        "patch_padding": model.geometry.patch_padding,
    }
    return Architecture(
        image_size=list(model.input_size),
        depths=depths,
        dims=dims,
        heads=heads,
        windowed=windowed,
        dim_mul=dim_mul,
        head_mul=head_mul,
        mlp_ratio=arguments.get("mlp_ratio", 4.0),
        geometry={name: list(axes) for name, axes in geometry.items()},
    )


def _timm_name(name: str) -> str:
    name = re.sub(r"^norm\.", "head.norm.", name)
    return re.sub(r"^head\.projection\.", "head.fc.", name)


def write_files(folder: Path, weights: Mapping[str, Tensor], files: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` in float32, and files of JSON.

    Args:
        folder: an existing folder.
        weights: tensors by their names in the library.
        files: what each file holds, by its name.
    """
    from safetensors.torch import save_file

    tensors = {name: value.to(torch.float32).contiguous() for name, value in weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for name, content in files.items():
        write_json(folder / name, content)
