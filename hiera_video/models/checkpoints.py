"""Read Hiera weights, wherever they come from.

Nothing is unpickled beyond tensors and plain values. Published weights are CC-BY-NC 4.0.
"""

import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.models.zoo import CHECKPOINTS
from hiera_video.spelling import did_you_mean

URL = "https://dl.fbaipublicfiles.com/hiera/{}.pth"
LICENCE = "published Hiera weights are CC-BY-NC 4.0: not for commercial use"
DECODER = ("decoder_", "mask_token", "multi_scale_fusion_heads.")
HEAD = ("head.projection.weight", "head.projection.bias")

StateDict = dict[str, Tensor]


class CheckpointError(ValueError):
    """A file cannot be read, or its weights do not fit; the message is one line for the user."""


class LoadReport(NamedTuple):
    """What `load_weights` did; names of tensors.

    Attributes:
        loaded: tensors of the model that now have the file's values.
        renamed: name in the file to name in the model, where they differ.
        resized: position embeddings of time that were resized to another number of frames.
        missing: tensors of the model that keep their initial values.
        unexpected: tensors of the file that the model has no place for.
    """

    loaded: list[str]
    renamed: dict[str, str]
    resized: list[str]
    missing: list[str]
    unexpected: list[str]

    def describe(self, source: str) -> str:
        """Few lines for the user."""
        lines = [f"{source}: loaded {len(self.loaded)} tensors"]
        if self.renamed:
            old, new = (_tops(names) for names in (self.renamed.keys(), self.renamed.values()))
            lines.append(f"renamed {', '.join(old)} -> {', '.join(new)}")
        if self.resized:
            lines.append(f"resized to the number of frames: {', '.join(self.resized)}")
        decoder = [name for name in self.unexpected if name.startswith(DECODER)]
        if decoder:
            lines.append(f"left out the decoder, {len(decoder)} tensors")
        if others := [name for name in self.unexpected if name not in decoder]:
            lines.append(f"left out {_few(others)}")
        if missing := [name for name in self.missing if name not in HEAD]:
            lines.append(f"kept at initial values: {_few(missing)}")
        if len(missing) < len(self.missing):
            lines.append("new head: the file has none for these classes")
        return "\n  ".join(lines)


def load_weights(
    model: nn.Module, source: str | Path, strict: bool = True, quiet: bool = False
) -> LoadReport:
    """Load weights into a model and print a short report.

    From a masked autoencoder to a classifier, the decoder is left out, its ``encoder_norm`` becomes
    ``norm``, and the head stays new. A head with another number of classes stays new as well. For
    another number of frames, position embeddings of time are resized.

    Args:
        model: a `Hiera` or a `MaskedAutoencoderHiera`.
        source: a file (``.pth``, Lightning's ``.ckpt``, ``.safetensors``) or the name of published
            weights such as ``mae_hiera_base_16x224``, which are downloaded once.
        strict: raise where other tensors are missing, unexpected or of another shape. Otherwise
            such tensors keep their initial values.
        quiet: print nothing.

    Raises:
        CheckpointError: a ValueError; the model is as it was before.
    """
    published = str(source) in CHECKPOINTS and not Path(source).exists()
    path = _download(str(source)) if published else Path(source)
    weights = read_weights(path)
    own = model.state_dict()
    renamed = _renamed(own, weights)
    found = {renamed.get(name, name): value for name, value in weights.items()}
    resized = _resized_in_time(own, found)
    found |= resized
    fitting = {k: v for k, v in found.items() if k in own and v.shape == own[k].shape}
    report = LoadReport(
        loaded=list(fitting),
        renamed={old: new for old, new in renamed.items() if new in fitting},
        resized=list(resized),
        missing=[name for name in own if name not in fitting],
        unexpected=[name for name in found if name not in own],
    )
    if strict or not fitting:
        _refuse_gaps(own, found, report, str(source))
    model.load_state_dict(fitting, strict=False)
    if not quiet:
        licence = f"\n  {LICENCE}" if path.stem in CHECKPOINTS else ""
        print(report.describe(str(source)) + licence)
    return report


def read_weights(path: str | Path) -> StateDict:
    """The tensors of a checkpoint under their published names.

    Raises:
        CheckpointError: not a file of weights.
    """
    checkpoint = read_checkpoint(path)
    for key in ("model_state", "state_dict"):
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


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """All that a checkpoint file holds, tensors on the CPU; nothing but plain values is unpickled.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds other objects.
    """
    if not os.path.isfile(path):
        is_name = not Path(path).suffix and os.sep not in str(path)
        hint = did_you_mean(str(path), CHECKPOINTS) if is_name else ""
        raise CheckpointError(f"{path}: no such file{hint}")
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


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, pickle.UnpicklingError) and "allowed global" in str(error):
        return "refused, it holds objects other than tensors and plain values"
    return "cannot be read as weights; damaged or of another format"


def _download(name: str) -> Path:
    """Published weights in torch's cache, from where they were published."""
    url = URL.format(name)
    path = Path(torch.hub.get_dir(), "checkpoints", f"{name}.pth")
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path))
    except OSError as error:
        raise CheckpointError(
            f"{name}: cannot download ({error}); put {url} at {path} yourself ({LICENCE})"
        ) from error
    return path


def _renamed(own: StateDict, weights: StateDict) -> dict[str, str]:
    """Names in the file whose place in the model has another name."""
    if "norm.weight" not in own or "norm.weight" in weights:
        return {}
    return {f"encoder_norm.{p}": f"norm.{p}" for p in ("weight", "bias")}


def _resized_in_time(own: StateDict, found: StateDict) -> StateDict:
    """The position embedding of time ``(1, T', C)`` for as many steps as the model has, if others.

    Linear between the middles of the steps: twice the frames see the same span more finely.
    """
    name = "pos_embed_temporal"
    if name not in own or name not in found:
        return {}
    (_, steps, dim), value = own[name].shape, found[name]
    if value.ndim != 3 or value.shape[0] != 1 or value.shape[2] != dim or value.shape[1] == steps:
        return {}
    x = F.interpolate(value.float().transpose(1, 2), steps, mode="linear")  # (1, C, T')
    return {name: x.transpose(1, 2).to(value.dtype)}


def _refuse_gaps(own: StateDict, found: StateDict, report: LoadReport, source: str) -> None:
    """Raise unless only a decoder is left over and only a head is missing."""
    missing = [name for name in report.missing if name not in HEAD]
    differ = [
        f"{name} is {_size(found[name])} in the file and {_size(own[name])} in the model"
        for name in missing
        if name in found
    ]
    absent = [name for name in missing if name not in found]
    spare = DECODER if "mask_token" not in own else ()
    unexpected = [name for name in report.unexpected if not name.startswith(spare)]
    gaps = {"sizes differ": differ, "missing": absent, "not in the model": unexpected}
    faults = [f"{gap}: {_few(names)}" for gap, names in gaps.items() if names]
    if faults:
        raise CheckpointError(f"{source}: does not fit the model; {'; '.join(faults)}")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _few(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _tops(names: Iterable[str]) -> list[str]:
    """The modules at the top that hold these tensors."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names))
