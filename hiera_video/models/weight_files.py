"""Files of weights: where they lie, and what they hold. No code in them is ever run."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiera_video.models.zoo import CHECKPOINTS, MODELS
from hiera_video.spelling import did_you_mean

StateDict = dict[str, Tensor]

# Where a folder has its weights: a run of ours, an export, what transformers saves.
IN_FOLDER = ("checkpoints/last.ckpt", "model.safetensors", "pytorch_model.bin")


class CheckpointError(ValueError):
    """A file cannot be read, or its weights do not fit; the message is one line for the user."""


def find_weights(source: str | Path) -> Path:
    """The file of weights that a file or folder stands for; it need not exist.

    Args:
        source: a file, the folder of a run (its last checkpoint), or a folder with
            ``model.safetensors`` or ``pytorch_model.bin``.
    """
    path = Path(source).expanduser()
    return next((path / name for name in IN_FOLDER if (path / name).is_file()), path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """All that a checkpoint file holds, tensors on the CPU; nothing but plain values is unpickled.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds other objects.
    """
    if not os.path.isfile(path):
        is_name = not Path(path).suffix and os.sep not in str(path)
        hint = did_you_mean(str(path), CHECKPOINTS) if is_name else ""
        found = "a folder without weights" if os.path.isdir(path) else "no such file"
        raise CheckpointError(f"{path}: {found}{hint}")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format and each kind of damage has exceptions of its own
        raise CheckpointError(f"{path}: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    return content


def read_weights(path: str | Path) -> StateDict:
    """The tensors of a checkpoint under the names that the network itself has for them.

    Of a run with an average of weights (EMA) that is the average.

    Raises:
        CheckpointError: not a file of weights.
    """
    return network_weights(read_checkpoint(path), path)


def network_weights(checkpoint: Mapping[str, Any], path: str | Path) -> StateDict:
    """As `read_weights`, of what `read_checkpoint` gave for ``path``."""
    # Published Hiera; Lightning, where an average has taken the place of what is trained; SAM 2.
    for key in ("model_state", "state_dict", "model"):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    tensors = {str(k): v for k, v in checkpoint.items() if isinstance(v, Tensor)}
    # A LightningModule holds the network as `model`; torch.compile wraps it once more.
    tensors = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    if any(key.startswith("model.") for key in tensors):
        own = {key: value for key, value in tensors.items() if key.startswith("model.")}
        tensors = {key.removeprefix("model."): value for key, value in own.items()}
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights")
    return tensors


def saved_input_size(checkpoint: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The ``input_size`` of the network in a checkpoint of a run; None where it is not said."""
    config = checkpoint.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict):
        return None
    size = model.get("input_size") or MODELS.get(str(model.get("name")), {}).get("input_size")
    if isinstance(size, (list, tuple)) and all(isinstance(n, int) and n > 0 for n in size):
        return tuple(size)
    return None


def check_values(weights: StateDict) -> None:
    """Refuse what would make a network that computes nothing.

    Raises:
        ValueError: a tensor is not of floating point, or has NaN or infinite values.
    """
    for name, value in weights.items():
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            kind = "meta" if value.is_meta else f"{value.dtype}, {value.layout}"
            raise ValueError(f"{name} holds no floating-point numbers ({kind})")
        if bad := value.numel() - int(value.isfinite().sum()):
            raise ValueError(
                f"{name} has {bad} of {value.numel()} values that are NaN or infinite; "
                "the training that wrote it had diverged, or the file is damaged"
            )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, pickle.UnpicklingError) and "allowed global" in str(error):
        return "refused, it holds objects other than tensors and plain values"
    return "cannot be read as weights; damaged or of another format"
