"""Load Hiera weights into a model, wherever they come from.

What is read and translated lies in `weight_files`, `foreign_weights`, `position_embeddings` and
`download`; here it meets the model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hiera_video.errors import CheckpointError
from hiera_video.models.architecture import Geometry
from hiera_video.models.names import CHECKPOINTS
from hiera_video.weights.download import LICENCE, published_file
from hiera_video.weights.files import (
    StateDict,
    average_in,
    find_weights,
    network_weights,
    read_checkpoint,
    read_weights,
    saved_input_size,
)
from hiera_video.weights.foreign import Translation, translate
from hiera_video.weights.positions import resized_positions

__all__ = [
    "CheckpointError",
    "LoadReport",
    "load_weights",
    "read_checkpoint",
    "read_weights",
]

DECODER = ("decoder_", "mask_token", "multi_scale_fusion_heads.")
HEAD = ("head.projection.weight", "head.projection.bias")
KERNEL = "patch_embed.proj.weight"
SPACE = ("pos_embed", "pos_embed_spatial", "decoder_pos_embed")


class LoadReport(NamedTuple):
    """What `load_weights` did; names of tensors.

    Attributes:
        loaded: tensors of the model that now have the file's values.
        renamed: name in the file to name in the model, where they differ.
        resized: tensors of the model whose values were made from the file's for another input:
            position embeddings of another grid, and what was inflated.
        missing: tensors of the model that keep their initial values.
        unexpected: tensors of the file that the model has no place for, under the published name
            where they have one.
    """

    loaded: list[str]
    renamed: dict[str, str]
    resized: list[str]
    missing: list[str]
    unexpected: list[str]

    def describe(self, source: str, notes: Iterable[str] = ()) -> str:
        """Few lines for the user."""
        lines = [f"{source}: loaded {len(self.loaded)} tensors", *notes]
        if self.renamed:
            old, new = (_tops(names) for names in (self.renamed.keys(), self.renamed.values()))
            lines.append(f"renamed {', '.join(old)} -> {', '.join(new)}")
        if self.resized:
            lines.append(f"resized to the model's input: {', '.join(self.resized)}")
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
    model: nn.Module,
    source: str | Path,
    strict: bool = True,
    quiet: bool = False,
    inflate: bool = False,
    head: bool = True,
) -> LoadReport:
    """Load weights into a model and print a short report.

    Files of the published models, of this project's runs, of timm, of transformers and of SAM 2 are
    told apart by the names in them; see `foreign_weights`. Where a training kept an average of the
    weights, that is what is loaded.

    From a masked autoencoder to a classifier, the decoder is left out, its ``encoder_norm`` becomes
    ``norm``, and the head stays new. A head with another number of classes stays new as well. For
    another input size, position embeddings are resized; see `position_embeddings`.

    Args:
        model: a `Hiera` or a `MaskedAutoencoderHiera`.
        source: a file (``.pth``, ``.bin``, Lightning's ``.ckpt``, ``.safetensors``), the folder of
            a run or an export, or the name of published weights such as ``mae_hiera_base_16x224``,
            which are downloaded once.
        strict: raise where other tensors are missing, unexpected or of another shape. Otherwise
            such tensors keep their initial values.
        quiet: print nothing.
        inflate: weights of an image model may go into a video model: each token then sees its first
            frame, as the image model does, and the position in time is zero. Published image
            weights are meant for pixels normalised with ImageNet's mean and deviation, which
            differ from those of video.
        head: False leaves the model's head new, also where the file has one of its shape, which may
            be of other classes.

    Raises:
        CheckpointError: a ValueError; the model is as it was before.
    """
    published = str(source) in CHECKPOINTS and not Path(source).exists()
    path = published_file(str(source), quiet) if published else find_weights(source)
    try:
        checkpoint = read_checkpoint(path)
        weights = network_weights(checkpoint, path)
    except CheckpointError as error:
        if published:
            raise CheckpointError(f"{error}; delete it to download it anew") from error
        raise
    geometry: Geometry | None = getattr(model, "geometry", None)
    if geometry is None:
        raise CheckpointError(f"{source}: does not fit the model; {type(model).__name__} is none")
    own = model.state_dict()
    try:
        found = translate(weights, geometry.tokens[-2:])
        found, resized = _for_model(found, own, geometry, strict, inflate)
        if not head:
            kept = {name: value for name, value in found.weights.items() if name not in HEAD}
            found = found._replace(weights=kept)
        size = geometry.input_size if found.composed else saved_input_size(checkpoint, path)
        resized += _fit_positions(found.weights, own, geometry, size, strict)
        report = _report(found, own, list(dict.fromkeys(resized)))
        if strict or not report.loaded:
            _refuse_gaps(own, found, report)
        _refuse_overflow(own, {name: found.weights[name] for name in report.loaded})
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error
    model.load_state_dict({name: found.weights[name] for name in report.loaded}, strict=False)
    if not quiet:
        average = average_in(checkpoint)
        notes = (f"the average of a training ({average})",) if average else ()
        licence = (LICENCE,) if path.stem in CHECKPOINTS else ()
        print(report.describe(str(source), (*notes, *found.notes, *licence)))
    return report


def _for_model(
    found: Translation, own: StateDict, geometry: Geometry, strict: bool, inflate: bool
) -> tuple[Translation, list[str]]:
    """Weights for the kind of the model, and those that had to be made for it."""
    if "norm.weight" in own and "norm.weight" not in found.weights:
        found = _renamed(found, {f"encoder_norm.{p}": f"norm.{p}" for p in ("weight", "bias")})
    axes = [w[KERNEL].ndim - 2 if KERNEL in w else 0 for w in (found.weights, own)]
    if axes == [2, 3] and inflate:
        return _inflated(found, own, geometry)
    if strict and axes == [2, 3]:
        raise ValueError(
            "weights of an image model, and this one takes videos; inflate=True "
            "(task.inflate=true) makes them weights of videos"
        )
    if strict and axes == [3, 2]:
        raise ValueError("weights of a video model, and this one takes images")
    return found, []


def _inflated(
    found: Translation, own: StateDict, geometry: Geometry
) -> tuple[Translation, list[str]]:
    """Weights of an image model for videos.

    The kernel's slice over the first of the frames that make a token gets the image's kernel, and
    the others zeros. The decoder goes: it predicts pixels in another order.
    """
    if not geometry.sep_pos_embed:
        raise ValueError("only models with sep_pos_embed take inflated weights")
    found = _renamed(found, {"pos_embed": "pos_embed_spatial"})
    decoder = tuple(name for name in found.weights if name.startswith(DECODER))
    weights = {name: value for name, value in found.weights.items() if name not in decoder}
    image, first = weights[KERNEL], geometry.patch_padding[0]
    if image.shape == own[KERNEL][:, :, 0].shape:
        weights[KERNEL] = image.new_zeros(own[KERNEL].shape)  # (C, 3, t, h, w)
        weights[KERNEL][:, :, first] = image
    weights["pos_embed_temporal"] = torch.zeros(own["pos_embed_temporal"].shape)
    found = found._replace(weights=weights, left_out=(*decoder, *found.left_out))
    return found, [KERNEL, "pos_embed_temporal"]


def _renamed(found: Translation, new: dict[str, str]) -> Translation:
    return found._replace(
        weights={new.get(name, name): value for name, value in found.weights.items()},
        names={old: new.get(name, name) for old, name in found.names.items()},
    )


def _fit_positions(
    weights: StateDict,
    own: StateDict,
    geometry: Geometry,
    input_size: tuple[int, ...] | None,
    strict: bool,
) -> list[str]:
    """Replace the position embeddings that are of another grid; their names.

    Where that cannot be done, those of space go: of as many tokens, they may be in another order.
    """
    try:
        positions = resized_positions(weights, own, geometry, input_size)
    except ValueError:
        if strict:
            raise
        for name in own.keys() & SPACE:
            weights.pop(name, None)
        return []
    weights.update(positions)
    return list(positions)


def _report(found: Translation, own: StateDict, resized: list[str]) -> LoadReport:
    fits = [name for name, v in found.weights.items() if name in own and v.shape == own[name].shape]
    fitting = set(fits)
    return LoadReport(
        loaded=fits,
        renamed={old: new for old, new in found.names.items() if old != new and new in fitting},
        resized=[name for name in resized if name in fitting],
        missing=[name for name in own if name not in fitting],
        unexpected=[*(name for name in found.weights if name not in own), *found.left_out],
    )


def _refuse_gaps(own: StateDict, found: Translation, report: LoadReport) -> None:
    """Raise unless only a decoder or what is no Hiera is left over, and only a head is missing."""
    missing = [name for name in report.missing if name not in (*HEAD, *found.lacks)]
    differ = [
        f"{name} is {_size(found.weights[name])} in the file and {_size(own[name])} in the model"
        for name in missing
        if name in found.weights
    ]
    absent = [name for name in missing if name not in found.weights]
    spare = DECODER if "mask_token" not in own else ()
    unexpected = [n for n in found.weights if n not in own and not n.startswith(spare)]
    gaps = {"sizes differ": differ, "missing": absent, "not in the model": unexpected}
    faults = [f"{gap}: {_few(names)}" for gap, names in gaps.items() if names]
    if faults:
        raise ValueError(f"does not fit the model; {'; '.join(faults)}")


def _refuse_overflow(own: StateDict, weights: StateDict) -> None:
    """Raise where a value is too large for the model's type, also one made by folding or resizing.

    What the file itself holds is finite.
    """
    for name, value in weights.items():
        dtype = own[name].dtype
        if not value.to(dtype).isfinite().all():
            raise ValueError(f"{name} would have infinite values in the model, which is of {dtype}")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _few(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _tops(names: Iterable[str]) -> list[str]:
    """The modules at the top that hold these tensors."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names))
