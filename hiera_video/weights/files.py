"""Files of weights: where they are and what they hold. Code in them is never run."""

import argparse
import errno
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiera_video.errors import CheckpointError, DamagedCheckpoint
from hiera_video.models.names import CHECKPOINTS
from hiera_video.terminal import did_you_mean
from hiera_video.weights.transformers_folder import hub_snapshot
from hiera_video.weights.values import one_line
from hiera_video.weights.whole import check_whole

StateDict = dict[str, Tensor]

# Weights in a folder: of a run, of an export, of what transformers saves.
OF_RUN = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")
IN_FOLDER = (*OF_RUN, "model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"  # of weights in several files


def find_weights(source: str | Path) -> Path:
    """Find the file of weights in a folder; a file stands for itself.

    Args:
        source: a file, the folder of a run (its best checkpoint, else its last), or a folder with
            ``model.safetensors`` or ``pytorch_model.bin``; or a name such as
            ``facebook/hiera-base-224-hf``, if the hub's cache on this machine has it.

    Returns:
        The file, or `source` if it holds none. It need not exist.
    """
    path = Path(source).expanduser()
    if not path.exists():
        path = hub_snapshot(str(source)) or path
    return next((path / name for name in IN_FOLDER if (path / name).is_file()), path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read everything that a checkpoint file holds, with tensors on the CPU.

    Nothing but tensors and plain values is unpickled, besides ``argparse.Namespace``, in which
    training scripts such as timm's keep their options.

    Raises:
        CheckpointError: no such file, a damaged one, or one with other objects. If a checkpoint of
            a run is damaged, the message names another one of the run that is whole.
    """
    try:
        return _read(path)
    except DamagedCheckpoint as error:
        if other := whole_beside(Path(path)):
            raise DamagedCheckpoint(f"{error}; {other} is whole: use it instead") from error
        raise


def whole_beside(path: Path) -> Path | None:
    """The newest other checkpoint in a run's folder that is whole, with finite weights.

    Args:
        path: a checkpoint of the run, which need not exist.
    """
    if path.absolute().parent.name != "checkpoints":
        return None
    others = [other for other in path.parent.glob("*.ckpt") if other != path]
    for other in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            check_finite(_read(other), other)
        except CheckpointError:
            continue
        return other
    return None


def check_finite(checkpoint: Mapping[str, Any], path: Path) -> None:
    """See that a training can go on from the weights of a run's checkpoint.

    Args:
        checkpoint: what `read_checkpoint` returned.
        path: of its file, for the message.

    Raises:
        CheckpointError: a weight is NaN or infinite.
    """
    weights = checkpoint.get("state_dict", {})
    try:
        checked_values({name: w for name, w in weights.items() if w.is_floating_point()})
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def check_file(path: str | Path) -> None:
    """Raise a CheckpointError that says what is there if it is no file of weights."""
    several = any(os.path.isfile(f"{path}/{name}{INDEX}") for name in IN_FOLDER)
    several |= str(path).endswith(INDEX) and os.path.isfile(path)
    if os.path.isfile(path) and not several:
        return
    is_name = not Path(path).suffix and os.sep not in str(path)
    hint = did_you_mean(str(path), CHECKPOINTS) if is_name else ""
    fault = "a folder without weights" if os.path.isdir(path) else "no such file"
    if several:
        fault = "weights in several files; save them in one, with a larger max_shard_size"
    raise CheckpointError(f"{path}: {fault}{hint}")


def _read(path: str | Path) -> dict[str, Any]:
    check_file(path)
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            check_whole(path)
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every format and kind of damage raises another exception
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dict of weights")
    return content


def checked_values(weights: Mapping[str, Tensor]) -> StateDict:
    """Check that a network can compute with these weights; 8-bit tensors become float32.

    Args:
        weights: tensors of any shape, by name.

    Returns:
        The same names and shapes; floating-point tensors of at least 16 bits.

    Raises:
        ValueError: a tensor is empty or not floating-point, has more values than the file holds, or
            has values that are NaN or, as float32, infinite.
    """
    checked = {}
    for name, value in weights.items():
        if value.layout == torch.strided and value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{name} repeats its values; save its .contiguous()")
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
    """The tensor in float32; None if it holds no floating-point numbers."""
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        return None
    try:
        return value.float()
    except (NotImplementedError, RuntimeError):  # packed types of less than 8 bits
        return None


def _unreadable(path: str | Path, error: Exception) -> CheckpointError:
    # torch seeks beyond the ends of a file that was cut off.
    if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:
        return CheckpointError(f"{path}: {error.strerror}")
    # An archive that is whole, and not read, has what `torch.load` refuses.
    names = re.search(r"GLOBAL (\S+)", str(error))
    refused = "allowed global" in str(error) or zipfile.is_zipfile(path)
    if isinstance(error, pickle.UnpicklingError) and refused:
        which = f" ({one_line(names[1])})" if names else ""
        return CheckpointError(
            f"{path}: refused, it holds objects other than tensors and plain values{which}; save "
            "model.state_dict() alone, where you trust the file"
        )
    if isinstance(error, ValueError) and zipfile.is_zipfile(path):
        return DamagedCheckpoint(f"{path}: damaged, {one_line(error)}")
    return DamagedCheckpoint(f"{path}: cannot be read as weights; damaged or of another format")
