"""Describe a model that transformers saved: a folder, or a snapshot in the hub's local cache."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiera_video.errors import CheckpointError
from hiera_video.models.architecture import block_shapes
from hiera_video.models.names import nearest_name
from hiera_video.weights.description import (
    MOST_BLOCKS,
    UNKNOWN,
    Description,
    from_record,
    to_record,
)
from hiera_video.weights.image_processor import read_processing
from hiera_video.weights.restrictions import obstacle
from hiera_video.weights.values import (
    check_all,
    is_count,
    is_list,
    is_positive,
    is_text,
    read_object,
)

CONFIG = "config.json"
COMMIT = re.compile("[0-9a-f]{40}")
ARCHITECTURES = {  # transformers' class of each kind of model
    "classifier": "HieraForImageClassification",
    "masked_autoencoder": "HieraForPreTraining",
}
# Our arguments of an encoder and of a decoder, and transformers' names for them.
ENCODER = {
    "embed_dim": "embed_dim",
    "stages": "depths",
    "q_pool": "num_query_pool",
    "q_stride": "query_stride",
    "mask_unit_size": "masked_unit_size",
    "mask_unit_attn": "masked_unit_attention",
    "dim_mul": "embed_dim_multiplier",
    "mlp_ratio": "mlp_ratio",
    "patch_kernel": "patch_size",
    "patch_stride": "patch_stride",
    "patch_padding": "patch_padding",
}
DECODER = {
    "decoder_embed_dim": "decoder_hidden_size",
    "decoder_depth": "decoder_depth",
    "decoder_num_heads": "decoder_num_heads",
}


def hub_snapshot(name: str) -> Path | None:
    """The folder in the hub's cache on this machine for a name such as ``facebook/hiera-base-224``.

    Nothing is downloaded. The cache is where ``HF_HUB_CACHE`` or ``HF_HOME`` say, or the usual
    place.

    Args:
        name: owner and name of a model.

    Returns:
        The snapshot of its main branch; None if there is none.
    """
    owner, slash, model = name.partition("/")
    if not (slash and owner and model) or "/" in model or ".." in name:
        return None
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    folder = cache / f"models--{owner}--{model}"
    try:
        commit = (folder / "refs/main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if COMMIT.fullmatch(commit) and (snapshot / CONFIG).is_file() else None


def is_transformers_config(config: Mapping[str, Any]) -> bool:
    """Whether the object of a ``config.json`` is that of a Hiera that ``save_pretrained`` wrote."""
    return config.get("model_type") == "hiera"


def describe_transformers_folder(folder: Path) -> Description:
    """Describe the model of such a folder.

    Raises:
        CheckpointError: one line: its ``config.json`` is of another kind of model, is incomplete or
            has a wrong value, or is of a network that a Hiera as published cannot compute; or its
            ``preprocessor_config.json`` prepares pictures as we cannot.
    """
    file = folder / CONFIG
    config = read_object(file)
    kind = _kind(config, file)
    arguments = encoder_arguments(config, file)
    if arguments["in_chans"] != 3:
        raise CheckpointError(f"{file}: num_channels is {arguments['in_chans']}; pictures have 3")
    names: list[str] = []
    evaluation = {}
    try:
        if kind == "classifier":
            names, arguments["num_classes"] = _classes(config)
        else:
            arguments |= _decoder(config)
            evaluation = {"mask_ratio": config.get("mask_ratio", 0.6)}
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error
    clip, mean, std = read_processing(folder, arguments["input_size"])
    description = Description(
        kind=kind,
        name=nearest_name(arguments["embed_dim"], arguments["stages"], axes=2),
        arguments=arguments,
        class_names=tuple(names),
        clip=clip,
        mean=mean,
        std=std,
        source=str(config.get("_name_or_path") or folder.name),
        licence=UNKNOWN,
        evaluation=evaluation,
    )
    return from_record(to_record(description), file)


def encoder_arguments(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Our arguments of the encoder that a ``config.json`` describes, with its ``input_size``.

    Args:
        config: its object.
        file: where it was read, for messages.

    Raises:
        CheckpointError: one line: a value is missing or wrong, or transformers' network computes
            something else than ours with these arguments.
    """
    config = {"num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-6, **config}
    try:
        _check_encoder(config)
        heads = config["num_heads"][: len(config["depths"])]
        size = config["image_size"]
        arguments = {ours: config[theirs] for ours, theirs in ENCODER.items()}
        arguments |= {
            "input_size": [size, size] if is_count(size) else size,
            "in_chans": config["num_channels"],
            "num_heads": heads[0],
            "head_mul": heads[1] / heads[0] if len(heads) > 1 else 2.0,
        }
        _check_network(arguments, heads)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error
    return arguments


def _kind(config: Mapping[str, Any], file: Path) -> str:
    stated: Any = config.get("architectures")
    names = stated if is_list(stated, is_text) else []
    kinds = [kind for kind, name in ARCHITECTURES.items() if name in names]
    if len(kinds) == 1:
        return kinds[0]
    raise CheckpointError(
        f"{file}: {' and '.join(names) or 'it'} has no head that is known here; take "
        f"{' or '.join(ARCHITECTURES.values())}, or task.init_from"
    )


def _check_encoder(config: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the first value that is missing or wrong."""
    names = ("image_size", "num_heads", *ENCODER.values())
    if missing := [name for name in names if name not in config]:
        raise ValueError(f"{missing[0]} is missing")
    depths, pools, size = config["depths"], config["num_query_pool"], config["image_size"]
    has_depths = is_list(depths, is_count) and 0 < sum(depths) <= MOST_BLOCKS
    windowed, padding = config["masked_unit_attention"], config["patch_padding"]
    few = f"a list of whole numbers above 0, together at most {MOST_BLOCKS}"
    pair, pairs = "two whole numbers above 0", ("patch_size", "patch_stride")
    pairs += ("query_stride", "masked_unit_size")
    heads = "as many whole numbers above 0 as depths has"
    requirements = {
        "hidden_act": (config["hidden_act"] == "gelu", "gelu, as in Hiera"),
        "layer_norm_eps": (config["layer_norm_eps"] == 1e-6, "1e-06, as in Hiera"),
        "num_channels": (is_count(config["num_channels"]), "a whole number above 0"),
        "image_size": (is_count(size) or is_list(size, is_count, 2), pair),
        "embed_dim": (is_count(config["embed_dim"]), "a whole number above 0"),
        "depths": (has_depths, few),
        "num_heads": (is_list(config["num_heads"], is_count), heads),
        "num_query_pool": (pools == 0 or is_count(pools), "a whole number"),
        "masked_unit_attention": (is_list(windowed, _is_flag), "a list of true and false"),
        "embed_dim_multiplier": (is_positive(config["embed_dim_multiplier"]), "a number above 0"),
        "mlp_ratio": (is_positive(config["mlp_ratio"]), "a number above 0"),
        "patch_padding": (is_list(padding, lambda n: n == 0 or is_count(n), 2), "two numbers"),
        **{name: (is_list(config[name], is_count, 2), pair) for name in pairs},
    }
    check_all(config, requirements)
    if len(config["num_heads"]) < len(depths):
        raise ValueError(f"num_heads must be {heads}, not {config['num_heads']}")


def _check_network(arguments: Mapping[str, Any], heads: list[int]) -> None:
    """Raise a ValueError if transformers computes something else with these arguments.

    Args:
        arguments: ours.
        heads: of each stage.
    """
    names = ("stages", "embed_dim", "num_heads", "q_pool", "q_stride", "mask_unit_attn")
    blocks = block_shapes(**{name: arguments[name] for name in (*names, "dim_mul", "head_mul")})
    ends = {block.stage: block for block in blocks}.values()
    if [block.heads for block in ends] != heads:
        raise ValueError(
            f"num_heads {heads} must grow by one factor from stage to stage, as in Hiera"
        )
    names = ("stages", "q_pool", "q_stride", "mask_unit_size", "mask_unit_attn", "dim_mul")
    words = obstacle(
        **{name: arguments[name] for name in names},
        dims=[block.dim_out for block in ends],
        pools_less=True,
    )
    if words:
        for ours, theirs in ENCODER.items():
            words = words.replace(ours, theirs)
        raise ValueError(f"transformers computes something else than a Hiera with {words}")


def _classes(config: Mapping[str, Any]) -> tuple[list[str], int]:
    """Names of the classes, none if they are transformers' generic ones, and their number."""
    single = "single_label_classification"  # one class of all, by softmax
    kind = config.get("problem_type")
    check_all({"problem_type": kind}, {"problem_type": (kind in (None, single), single)})
    # Those that a configuration has by default are not saved.
    labels: Any = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    names: list[Any] = (
        [labels.get(str(i)) for i in range(len(labels))] if isinstance(labels, dict) else []
    )
    if not names or not is_text(*names):
        raise ValueError('id2label must have a name for each class, by the numbers "0", "1", ...')
    generic = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return [] if generic else names, len(names)


def _decoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our arguments of the decoder."""
    for name in ("query_stride", "patch_stride"):
        height, width = config[name]
        if height != width:
            raise ValueError(
                f"transformers' decoder computes something else with {name} [{height}, {width}]"
            )
    requirements = {
        name: (is_count(config.get(name)), "a whole number above 0") for name in DECODER.values()
    }
    check_all({name: config.get(name) for name in requirements}, requirements)
    normalized = config.get("normalize_pixel_loss", True)
    return {ours: config[theirs] for ours, theirs in DECODER.items()} | {
        "target": "pixels_normalized" if normalized else "pixels"
    }


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)
