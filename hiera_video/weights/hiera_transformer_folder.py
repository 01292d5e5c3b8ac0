"""Describe a model that ``save_pretrained`` of hiera-transformer, the published code, wrote.

Its ``config.json`` has the arguments with which the model was made. The others have the defaults of
that package, which do not depend on the number of axes as ours do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiera_video.errors import CheckpointError
from hiera_video.models.names import (
    IMAGE_MEAN,
    IMAGE_STD,
    MODELS,
    VIDEO_MEAN,
    VIDEO_STD,
    nearest_name,
)
from hiera_video.weights.description import (
    PUBLISHED_CLIP,
    PUBLISHED_PICTURE,
    UNKNOWN,
    Description,
    from_record,
    to_record,
)
from hiera_video.weights.values import check_all, is_count, is_list

DEFAULTS: dict[str, Any] = {
    "input_size": [224, 224],
    "in_chans": 3,
    "embed_dim": 96,
    "num_heads": 1,
    "num_classes": 1000,
    "stages": [2, 3, 16, 3],
    "q_pool": 3,
    "q_stride": [2, 2],
    "mask_unit_size": [8, 8],
    "mask_unit_attn": [True, True, False, False],
    "dim_mul": 2.0,
    "head_mul": 2.0,
    "patch_kernel": [7, 7],
    "patch_stride": [4, 4],
    "patch_padding": [3, 3],
    "mlp_ratio": 4.0,
    "drop_path_rate": 0.0,
    "head_dropout": 0.0,
    "head_init_scale": 0.001,
    "sep_pos_embed": False,
}
HEAD = ("num_classes", "head_dropout", "head_init_scale")  # which autoencoders do not have
DECODER = ("decoder_embed_dim", "decoder_depth", "decoder_num_heads")  # theirs are always saved
NORM = "norm_layer"


def is_hiera_transformer_config(config: Mapping[str, Any]) -> bool:
    """Whether the object of a ``config.json`` has arguments of that package's Hiera alone."""
    return bool(config) and config.keys() <= {*DEFAULTS, *DECODER, NORM}


def describe_hiera_transformer_folder(config: Mapping[str, Any], file: Path) -> Description:
    """Describe the model of such a folder.

    The file does not say how videos are sampled. `clip` is that of the published models for inputs
    of 16x224x224 and for images; it is None for other videos.

    Args:
        config: the object of its ``config.json``.
        file: where it was read.

    Raises:
        CheckpointError: one line: a wrong value, or a network that ours is not.
    """
    arguments = {**DEFAULTS, **config}
    try:
        _check(arguments)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error
    arguments.pop(NORM, None)
    size = arguments["input_size"]
    kind = "masked_autoencoder" if set(DECODER) & arguments.keys() else "classifier"
    if kind == "masked_autoencoder":
        arguments = {name: value for name, value in arguments.items() if name not in HEAD}
    video, clip = len(size) == 3, None
    if not video:
        clip = {**PUBLISHED_PICTURE, "size": size}
    elif size in (list(model["input_size"]) for model in MODELS.values()):
        clip = PUBLISHED_CLIP
    description = Description(
        kind=kind,
        name=nearest_name(arguments["embed_dim"], arguments["stages"], axes=len(size)),
        arguments=arguments,
        class_names=(),
        clip=clip,
        mean=VIDEO_MEAN if video else IMAGE_MEAN,
        std=VIDEO_STD if video else IMAGE_STD,
        source=file.parent.name,
        licence=UNKNOWN,
    )
    return from_record(to_record(description), file)


def _check(arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError about values that are needed here, and what that package does with them.

    It unrolls tokens once for each stage but the first, whatever a mask unit is.
    """
    lists = ("input_size", "stages", "q_stride", "mask_unit_size")
    size, stages = arguments["input_size"], arguments["stages"]
    has_size = is_list(size, is_count) and len(size) in (2, 3)
    requirements = {
        NORM: (arguments.get(NORM, "LayerNorm") == "LayerNorm", "LayerNorm"),
        **{name: (is_list(arguments[name], is_count), "a list of whole numbers") for name in lists},
        "input_size": (has_size, "[height, width] or [frames, height, width]"),
        "embed_dim": (is_count(arguments["embed_dim"]), "a whole number above 0"),
    }
    check_all(arguments, requirements)
    whole = [stride ** min(len(stages) - 1, 20) for stride in arguments["q_stride"]]
    if arguments["mask_unit_size"] != whole:
        raise ValueError(
            f"hiera-transformer computes something else than ours with mask_unit_size "
            f"{arguments['mask_unit_size']}, not {whole}"
        )
