"""Image models in the layout of transformers: names of tensors, and files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image

from hiera_video.errors import LayoutError
from hiera_video.export.layouts import Architecture, architecture_for, scaling, write_files
from hiera_video.models.blocks import HieraBlock
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.targets import PixelTarget
from hiera_video.weights.description import Description
from hiera_video.weights.image_processor import PROCESSOR
from hiera_video.weights.transformers_folder import CONFIG

# The published names of modules and tensors, and what they begin with in transformers.
NAMES = {
    "pos_embed": "hiera.embeddings.position_embeddings",
    "patch_embed.proj": "hiera.embeddings.patch_embeddings.projection",
    "norm": "hiera.pooler.layernorm",
    "head.projection": "classifier",
    "encoder_norm": "encoder_norm",
    "multi_scale_fusion_heads": "multiscale_fusion.multi_scale_fusion_heads",
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.decoder_position_embeddings",
    "decoder_embed": "decoder.decoder_embeddings",
    "decoder_blocks": "decoder.decoder_block.layers",
    "decoder_norm": "decoder.decoder_norm",
    "decoder_pred": "decoder.decoder_pred",
}


def write_transformers(folder: Path, model: Hiera, description: Description) -> None:
    """Write what ``from_pretrained(FOLDER)`` of transformers reads.

    The class is `HieraForImageClassification` for a classifier and `HieraForPreTraining` for a
    masked autoencoder; `HieraModel` takes the encoder of both.

    Args:
        folder: where to write.
        model: a classifier or a masked autoencoder; weights are written as float32.
        description: describes the model.

    Raises:
        LayoutError: transformers has no such model.
    """
    shape = architecture_for(model, description, "transformers")
    if isinstance(model, MaskedAutoencoderHiera):
        head = _decoder(model, description)
    else:
        head = _classes(model, description)
    ends = model.stage_ends
    weights = {transformers_name(name, ends): v for name, v in model.state_dict().items()}
    files = {CONFIG: {**_encoder(model, shape), **head}, PROCESSOR: _processor(shape, description)}
    write_files(folder, weights, files)


def _encoder(model: Hiera, shape: Architecture) -> dict[str, Any]:
    geometry = shape.geometry
    return {
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
    }


def _classes(model: Hiera, description: Description) -> dict[str, Any]:
    count = model.head.projection.out_features
    names = description.class_names or [f"LABEL_{i}" for i in range(count)]
    return {
        "architectures": ["HieraForImageClassification"],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _decoder(model: MaskedAutoencoderHiera, description: Description) -> dict[str, Any]:
    target, geometry = model.target, model.geometry
    blocks = cast(Sequence[HieraBlock], model.decoder_blocks)
    if not blocks:
        raise LayoutError("transformers has no decoder without blocks; use --format safetensors")
    if not isinstance(target, PixelTarget):
        raise LayoutError("transformers predicts pixels alone; use --format safetensors")
    for name in ("q_stride", "patch_stride"):
        height, width = getattr(geometry, name)
        if height != width:
            raise LayoutError(
                f"transformers' decoder cannot have {name} ({height}, {width}); "
                "use --format safetensors"
            )
    return {
        "architectures": ["HieraForPreTraining"],
        "decoder_hidden_size": model.mask_token.shape[-1],
        "decoder_depth": len(blocks),
        "decoder_num_heads": blocks[0].attn.heads,
        "normalize_pixel_loss": target.normalized,
        "mask_ratio": description.evaluation.get("mask_ratio") or 0.6,
    }


def _processor(shape: Architecture, description: Description) -> dict[str, Any]:
    height, width = shape.image_size
    interpolation, share = scaling(description)
    return {
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


def transformers_name(name: str, stage_ends: Sequence[int]) -> str:
    """The name that transformers gives to a tensor.

    Args:
        name: its published name.
        stage_ends: index of the last block of each stage.
    """
    if name.startswith("blocks."):
        _, index, rest = name.split(".", 2)
        stage = next(i for i, end in enumerate(stage_ends) if int(index) <= end)
        layer = int(index) - (stage_ends[stage - 1] + 1 if stage else 0)
        name = f"hiera.encoder.stages.{stage}.layers.{layer}.{rest}"
    else:
        module = next(m for m in NAMES if name == m or name.startswith(f"{m}."))
        name = NAMES[module] + name.removeprefix(module)
    name = re.sub(r"\.norm1\.", ".layernorm_before.", name)
    return re.sub(r"\.norm2\.", ".layernorm_after.", name)
