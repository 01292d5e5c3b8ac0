"""What a file of weights, or a file beside it, says about the network that they belong to."""

from collections.abc import Collection, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import nn

from hiera_video.errors import CheckpointError
from hiera_video.models.names import CHECKPOINTS, MODELS
from hiera_video.weights.description import JSON
from hiera_video.weights.files import IN_FOLDER
from hiera_video.weights.saved_folder import saved_network
from hiera_video.weights.transformers_folder import CONFIG
from hiera_video.weights.values import is_count, is_list, is_positive, read_object, short


def saved_arguments(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Arguments of the network whose weights a file holds, as far as they are known.

    They are known for checkpoints of runs, for published files by their names, and where a JSON
    file lies beside the weights: in exports, and in what transformers, timm and hiera-transformer
    save. Weights do not need them, so values that are none of ours are left to the caller.

    Args:
        checkpoint: what `read_checkpoint` returned.
        path: of its file.

    Raises:
        CheckpointError: one line: a network of transformers or hiera-transformer that a Hiera
            cannot compute.
    """
    config = _dict(checkpoint.get("config"))
    if arguments := _named(_dict(config.get("model"))):
        return arguments
    if path.stem in CHECKPOINTS:
        return _named({"name": path.stem.removeprefix("mae_")})
    if path.name not in IN_FOLDER:
        return {}
    export = _object(path.with_name(JSON))
    if arguments := _named({"name": export.get("name"), **_dict(export.get("arguments"))}):
        return arguments
    if arguments := saved_network(path.parent):
        return arguments
    foreign = _object(path.with_name(CONFIG))  # of timm, or of another model of transformers
    arguments = _dict(foreign.get("model_args"))
    size = foreign.get("image_size") or arguments.get("img_size")
    return {"global_pool": foreign.get("global_pool"), **arguments, "input_size": size}


def input_size(arguments: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Input size among such arguments: ``(H, W)`` or ``(T, H, W)`` in pixels; None if unknown."""
    value = arguments.get("input_size")
    if isinstance(value, tuple | list) and len(value) in (2, 3):
        return tuple(value) if all(type(n) is int and n > 0 for n in value) else None
    return None


def refuse_other_network(
    arguments: Mapping[str, Any], model: nn.Module, loaded: Collection[str], same_kind: bool
) -> None:
    """Raise a ValueError if the weights belong to a network that computes something else.

    No shape shows it. What is not known of their network is not compared.

    Args:
        arguments: of their network, as far as they are known.
        model: a `Hiera` that they are for.
        loaded: names of its tensors that get values.
        same_kind: whether both are masked autoencoders, which pool less often, or neither is.
    """
    network: Any = model
    blocks, ends, geometry = network.blocks, network.stage_ends, network.geometry
    # An entry holds from the second block of its stage to the first one of the next.
    windowed = {sum(end < i - 1 for end in ends): b.attn.windowed for i, b in enumerate(blocks)}
    own: dict[str, Any] = {
        "attention heads": [blocks[end].attn.heads for end in ends],
        "mask_unit_attn": list(windowed.values()),  # of the stages whose entry matters
        "mask_unit_size": geometry.unit,
        **{n: getattr(geometry, n) for n in ("q_stride", "patch_stride", "patch_padding")},
    }
    if same_kind:
        own["q_pool"] = network.q_pool
    if "head.projection.weight" in loaded:
        own["global_pool"] = "avg"
    if "decoder_blocks.0.attn.qkv.weight" in loaded:
        own["decoder_num_heads"] = network.decoder_blocks[0].attn.heads
    first, factor = arguments.get("num_heads"), arguments.get("head_mul", 2.0)
    stated = dict(arguments)
    if is_count(first) and is_positive(factor):
        heads = accumulate(ends[1:], lambda heads, _: int(heads * factor), initial=first)
        stated["attention heads"] = list(heads)
    for name, ours in own.items():
        theirs = stated.get(name)
        if isinstance(theirs, list | tuple) and isinstance(ours, list | tuple):
            theirs = list(theirs[: len(ours)])
            ours = list(ours[-len(theirs) :])  # of space, if the weights are of images
        if theirs not in (None, ours):
            raise ValueError(
                f"is of a network with {name} {short(stated[name])}, and that of the model is "
                f"{short(ours)}; make the model like it"
            )


def _named(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments, with those that their ``name`` stands for; empty if they are of no model."""
    named = MODELS.get(str(arguments.get("name")), {})
    return {**named, **arguments} if named or is_list(arguments.get("input_size"), is_count) else {}


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if it cannot be read, as weights do not need it."""
    try:
        return read_object(path)
    except CheckpointError:
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
