"""Image classifiers in the layouts of timm and transformers: names of tensors, and files."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from hiera_video.errors import LayoutError
from hiera_video.models.architecture import block_shapes
from hiera_video.models.hiera import Hiera
from hiera_video.models.names import model_arguments
from hiera_video.weights.description import Description
from hiera_video.weights.portable import WEIGHTS
from hiera_video.weights.trained import PUBLISHED_PICTURE


def write_timm(folder: Path, model: Hiera, description: Description) -> None:
    """Write what ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads.

    Args:
        folder: where to write.
        model: the classifier; weights are written as float32.
        description: describes the classifier.

    Raises:
        LayoutError: timm has no such model.
    """
    shape = _shape(model, description, "timm")
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
    interpolation, share = _scaling(description)
    config = {
        "architecture": description.name,
        "num_classes": shape.num_classes,
        "num_features": shape.dims[-1],
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": size,
            "fixed_input_size": True,
            "interpolation": interpolation,
            "crop_pct": share,
            "mean": description.mean,
            "std": description.std,
            "num_classes": shape.num_classes,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
            "license": (description.licence or "unknown").lower(),
        },
    }
    if description.class_names:
        config["label_names"] = list(description.class_names)
    _write(folder, weights, {"config.json": config})


def write_transformers(folder: Path, model: Hiera, description: Description) -> None:
    """Write what ``HieraForImageClassification.from_pretrained(FOLDER)`` reads.

    Args:
        folder: where to write.
        model: the classifier; weights are written as float32.
        description: describes the classifier.

    Raises:
        LayoutError: transformers has no such model.
    """
    shape = _shape(model, description, "transformers")
    ends = model.stage_ends
    weights = {_transformers_name(name, ends): value for name, value in model.state_dict().items()}
    geometry = shape.geometry
    names = description.class_names or [f"LABEL_{i}" for i in range(shape.num_classes)]
    config = {
        "architectures": ["HieraForImageClassification"],
        "model_type": "hiera",
        "image_size": shape.image_size,
        "num_channels": model.in_chans,
        "embed_dim": shape.dims[0],
        "depths": shape.depths,
        "num_heads": shape.heads,
        "embed_dim_multiplier": shape.dim_mul,
        "mlp_ratio": shape.mlp_ratio,
        "num_query_pool": model.q_pool,
        "query_stride": geometry["q_stride"],
        "masked_unit_size": geometry["mask_unit_size"],
        "masked_unit_attention": shape.windowed,
        "patch_size": geometry["patch_kernel"],
        "patch_stride": geometry["patch_stride"],
        "patch_padding": geometry["patch_padding"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    height, width = shape.image_size
    interpolation, share = _scaling(description)
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": round(max(height, width) / share)},
        "resample": int(Image.Resampling[interpolation.upper()]),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": description.mean,
        "image_std": description.std,
        "do_convert_rgb": True,
    }
    _write(folder, weights, {"config.json": config, "preprocessor_config.json": processor})


def _scaling(description: Description) -> tuple[str, float]:
    """How tests scale pictures, and the share of the short side that they crop."""
    clip = description.clip or PUBLISHED_PICTURE
    return clip["interpolation"], clip["eval_crop"]


class _Shape(NamedTuple):
    """The arguments of an image classifier that both layouts hold."""

    image_size: list[int]
    num_classes: int
    depths: list[int]
    dims: list[int]
    heads: list[int]
    windowed: list[bool]
    dim_mul: float
    head_mul: float
    mlp_ratio: float
    geometry: dict[str, list[int]]


def _shape(model: Hiera, description: Description, library: str) -> _Shape:
    """The arguments of a model, if the library's Hiera computes the same.

    Both libraries unroll tokens once for each stage but the first, whatever is pooled. In the first
    block of a stage, transformers attends within mask units if this stage or the one before does.

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
    unit = tuple(stride ** (len(depths) - 1) for stride in model.geometry.q_stride)
    windowed = [bool(w) for w in windowed[: len(depths)]]
    obstacles = {
        f"q_pool {model.q_pool} for {len(depths)} stages": model.q_pool != len(depths) - 1,
        f"mask_unit_size {model.geometry.unit}, not {unit}": model.geometry.unit != unit,
        f"mask_unit_attn {windowed}": windowed != sorted(windowed, reverse=True),
        f"dim_mul {dim_mul}": dims != [dims[0] * dim_mul**i for i in range(len(dims))],
    }
    if present := [words for words, obstacle in obstacles.items() if obstacle]:
        raise LayoutError(f"{library}'s Hiera cannot have {present[0]}; use --format safetensors")
    geometry = {
        "q_stride": model.geometry.q_stride,
        "mask_unit_size": model.geometry.unit,
        "patch_kernel": model.geometry.patch_kernel,
        "patch_stride": model.geometry.patch_stride,
        "patch_padding": model.geometry.patch_padding,
    }
    return _Shape(
        image_size=list(model.input_size),
        num_classes=model.head.projection.out_features,
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


def _transformers_name(name: str, stage_ends: Sequence[int]) -> str:
    top = {
        "pos_embed": "hiera.embeddings.position_embeddings",
        "patch_embed.proj": "hiera.embeddings.patch_embeddings.projection",
        "norm": "hiera.pooler.layernorm",
        "head.projection": "classifier",
    }
    if not name.startswith("blocks."):
        module, dot, parameter = name.rpartition(".") if name not in top else (name, "", "")
        return f"{top[module]}{dot}{parameter}"
    _, index, rest = name.split(".", 2)
    stage = next(i for i, end in enumerate(stage_ends) if int(index) <= end)
    layer = int(index) - (stage_ends[stage - 1] + 1 if stage else 0)
    rest = re.sub(r"^norm1\.", "layernorm_before.", rest)
    rest = re.sub(r"^norm2\.", "layernorm_after.", rest)
    return f"hiera.encoder.stages.{stage}.layers.{layer}.{rest}"


def _write(folder: Path, weights: dict[str, Tensor], files: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    tensors = {name: value.to(torch.float32).contiguous() for name, value in weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
