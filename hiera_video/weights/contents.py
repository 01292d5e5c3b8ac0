"""What a checkpoint of any training holds: the weights of its network, and what lies beside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.weights.files import StateDict
from hiera_video.weights.values import one_line

# Keys of weights: of published Hiera, Lightning (where an average has replaced the weights), SAM 2,
# birder, PyTorch's tutorials, DeepSpeed, lists of averages.
HOLDERS = ("model_state", "state_dict", "model", "state", "model_state_dict", "module", "shadow")
# Keys of averages: of timm's training script and others. Beside the trained weights, names of an
# average's tensors begin with its module's.
AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "model_ema_state_dict")
AVERAGES += ("ema_model", "ema_model_state_dict")
AVERAGED_MODULES = ("ema_model.", "model_ema.", "ema.")
# Modules that hold the network: of a LightningModule, of DistributedDataParallel.
WRAPPERS = ("model.", "module.")
# Modules within the network that torch.compile, FSDP and activation checkpointing add.
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# What belongs to an average, or to the trained weights that it replaces.
OF_AVERAGES = ("n_averaged", "initted", "step", "online_model.", *WRAPPERS)
TRAINED = ("current_model_state",)  # beside Lightning's average


class Network(NamedTuple):
    """The weights of a network, by the names that it gives them.

    Attributes:
        weights: tensors by name.
        average: where the file has the average of a training, if these weights are one; the trained
            weights are left aside.
        beside: names of tensors that belong to no part of the network.
        others: keys of the file with further weights, which are not read.
    """

    weights: StateDict
    average: str | None
    beside: list[str]
    others: list[str]


def network_weights(checkpoint: Mapping[str, Any], path: str | Path) -> Network:
    """The weights of the network in a checkpoint.

    If a training kept an average of its weights (EMA), it is taken, also where the file holds both.

    Args:
        checkpoint: what `read_checkpoint` returned.
        path: of its file, for error messages.

    Raises:
        CheckpointError: it holds no weights, or only by keys that are not known.
    """
    # A dict with one tensor is not a network: a model's name, how an average decays, and the like.
    several = [k for k in (*AVERAGES, *HOLDERS) if len(_tensors_of(checkpoint.get(k))) > 1]
    chosen = several[0] if several else None
    average = chosen if chosen in AVERAGES else None
    tensors = _tensors_of(checkpoint[chosen] if chosen else checkpoint)
    others = _others(checkpoint, chosen, average)
    beside = []
    if average is None and (module := _start(tensors, AVERAGED_MODULES)):
        average = module.removesuffix(".")
        tensors, beside = _split(tensors, module)
    while wrapper := _start(tensors, WRAPPERS):
        tensors, rest = _split(tensors, wrapper)
        beside += rest
    if not tensors:
        keys = "; further keys hold some: " + ", ".join(others) if others else ""
        raise CheckpointError(f"{path}: holds no weights by a key that is known here{keys}")
    if average:
        beside = [name for name in beside if not name.startswith(OF_AVERAGES)]
    return Network(tensors, average, [n for n in beside if n != "n_averaged"], others)


def _tensors_of(content: Any) -> StateDict:
    """The tensors in a dict, or in the dict that it has by a usual key, without inner wrappers."""
    if not isinstance(content, dict):
        return {}
    for key in HOLDERS:  # but for dicts of other things, such as a model's name
        inner = content.get(key)
        if isinstance(inner, dict) and any(isinstance(v, Tensor | dict) for v in inner.values()):
            content = inner
    tensors = {one_line(n): value for n, value in content.items() if isinstance(value, Tensor)}
    for wrapper in INNER:
        tensors = {name.replace(wrapper, ""): value for name, value in tensors.items()}
    return tensors


def _others(checkpoint: Mapping[str, Any], chosen: str | None, average: str | None) -> list[str]:
    """Keys of further dicts with several tensors, but for the trained weights of an average."""
    known = {chosen, *TRAINED, *(HOLDERS if average else ())}
    return [
        one_line(key)
        for key, value in checkpoint.items()
        if key not in known and len(_tensors_of(value)) > 1
    ]


def _start(tensors: Mapping[str, Tensor], modules: tuple[str, ...]) -> str | None:
    """The first of the modules that has tensors."""
    return next((m for m in modules if any(name.startswith(m) for name in tensors)), None)


def _split(tensors: StateDict, module: str) -> tuple[StateDict, list[str]]:
    """The tensors of a module by the names in it, and the names of the others."""
    own = {n.removeprefix(module): value for n, value in tensors.items() if n.startswith(module)}
    return own, [name for name in tensors if not name.startswith(module)]
