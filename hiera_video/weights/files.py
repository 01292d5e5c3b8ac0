"""Files of weights: where they lie, and what they hold. No code in them is ever run."""

import argparse
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.models.names import CHECKPOINTS, MODELS
from hiera_video.terminal import did_you_mean

StateDict = dict[str, Tensor]

# Where a folder has its weights: a run of ours, an export, what transformers saves.
IN_FOLDER = ("checkpoints/last.ckpt", "model.safetensors", "pytorch_model.bin")
AVERAGES = ("state_dict_ema", "model_ema")  # in checkpoints of timm's training
# DistributedDataParallel holds the network as `module`, a LightningModule as `model`.
WRAPPERS = ("model.", "module.")


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

    Training scripts, such as timm's, keep their options as an ``argparse.Namespace``, which is no
    more than a dict.

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
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format and each kind of damage has exceptions of its own
        raise CheckpointError(f"{path}: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    return content


def read_weights(path: str | Path) -> StateDict:
    """The tensors of a checkpoint under the names that the network itself has for them.

    Of a training with an average of weights (EMA) that is the average, also of timm's training,
    whose checkpoints hold both.

    Raises:
        CheckpointError: not a file of weights.
    """
    return network_weights(read_checkpoint(path), path)


def network_weights(checkpoint: Mapping[str, Any], path: str | Path) -> StateDict:
    """As `read_weights`, of what `read_checkpoint` gave for ``path``."""
    if average := average_in(checkpoint):
        checkpoint = checkpoint[average]
    # Published Hiera; Lightning, where an average has taken the place of what is trained; SAM 2.
    for key in ("model_state", "state_dict", "model"):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    tensors = {str(k): v for k, v in checkpoint.items() if isinstance(v, Tensor)}
    # torch.compile wraps a network once more.
    tensors = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    while wrapper := next((w for w in WRAPPERS if any(k.startswith(w) for k in tensors)), None):
        own = {key: value for key, value in tensors.items() if key.startswith(wrapper)}
        tensors = {key.removeprefix(wrapper): value for key, value in own.items()}
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights")
    return tensors


def average_in(checkpoint: Mapping[str, Any]) -> str | None:
    """Where a checkpoint has an average beside the weights that were trained; None: nowhere."""
    return next(
        (k for k in AVERAGES if isinstance(checkpoint.get(k), dict) and checkpoint[k]), None
    )


def saved_input_size(checkpoint: Mapping[str, Any], path: Path) -> tuple[int, ...] | None:
    """Height and width, for videos after frames, that a file's network was made for.

    Checkpoints of runs say it, the names of published files, and the JSON file in the folder of an
    export and of what transformers and timm save.

    Args:
        checkpoint: what `read_checkpoint` gave for `path`.
        path: the file.

    Returns:
        None where it is not known.
    """
    config = checkpoint.get("config")
    if size := _size_of(config.get("model") if isinstance(config, dict) else None):
        return size
    if path.stem in CHECKPOINTS:
        return _size_of({"name": path.stem.removeprefix("mae_")})
    if path.name not in IN_FOLDER:
        return None
    export = _object(path.with_name("model.json"))
    if size := _size_of({"name": export.get("name"), **_dict(export.get("arguments"))}):
        return size
    foreign = _object(path.with_name("config.json"))  # of transformers, of timm
    return _size(foreign.get("image_size") or _dict(foreign.get("model_args")).get("img_size"))


def checked_values(weights: Mapping[str, Tensor]) -> StateDict:
    """Weights to compute with, those of 8 bits as float32.

    Raises:
        ValueError: a tensor is not of floating point, is empty, or has values that are NaN or, as
            float32, infinite: a network with them would compute nothing.
    """
    checked = {}
    for name, value in weights.items():
        wide = _as_float32(value)
        if wide is None:
            kind = "meta" if value.is_meta else f"{value.dtype}, {value.layout}"
            raise ValueError(f"{name} holds no floating-point numbers ({kind})")
        if not value.numel():
            raise ValueError(f"{name} is empty ({'x'.join(map(str, value.shape))})")
        if bad := value.numel() - int(wide.isfinite().sum()):
            raise ValueError(
                f"{name} has {bad} of {value.numel()} values that are NaN or, as float32, "
                "infinite; the training that wrote it had diverged, or the file is damaged"
            )
        checked[name] = wide if value.itemsize == 1 else value
    return checked


def _as_float32(value: Tensor) -> Tensor | None:
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        return None
    try:
        return value.float()
    except (NotImplementedError, RuntimeError):  # packed types of less than 8 bits
        return None


def _size_of(arguments: Any) -> tuple[int, ...] | None:
    """The ``input_size`` among a model's arguments, or what its ``name`` stands for."""
    arguments = _dict(arguments)
    named = MODELS.get(str(arguments.get("name")), {})
    return _size(arguments.get("input_size") or named.get("input_size"))


def _size(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, (list, tuple)) and len(value) in (2, 3):
        return tuple(value) if all(type(n) is int and n > 0 for n in value) else None
    return None


def _object(path: Path) -> dict[str, Any]:
    """What a JSON file holds, empty where it cannot be read: weights do not need it."""
    try:
        return _dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, pickle.UnpicklingError) and "allowed global" in str(error):
        return "refused, it holds objects other than tensors and plain values"
    return "cannot be read as weights; damaged or of another format"
