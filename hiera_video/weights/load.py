"""Load Hiera weights into a model, wherever they come from.

`files` and `download` find and read weights, `foreign` gives them their published names, and
`adapt` makes them fit. This module puts them into the model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from datamodules.wording import counted, few
from hiera_video.errors import CheckpointError
from hiera_video.models.architecture import Geometry
from hiera_video.models.mask_rcnn import DETECTOR_PARTS, PREDICTORS
from hiera_video.models.names import CHECKPOINTS
from hiera_video.weights.adapt import DECODER, fit_positions, for_model, without
from hiera_video.weights.contents import Network, network_weights
from hiera_video.weights.download import LICENCE, published_file
from hiera_video.weights.files import (
    StateDict,
    find_weights,
    read_checkpoint,
)
from hiera_video.weights.foreign import PATCHES, Translation, translate
from hiera_video.weights.saved_arguments import input_size, refuse_other_network, saved_arguments

HEAD = ("head.projection.weight", "head.projection.bias", *PREDICTORS)
_SHOWN = 3  # names in a message


class LoadReport(NamedTuple):
    """What `load_weights` did, as names of tensors.

    Attributes:
        loaded: tensors of the model that now have values from the file.
        renamed: name in the file to name in the model, where they differ.
        resized: tensors of the model whose values were computed from the file's for another input:
            position embeddings of another grid, and inflated weights.
        missing: tensors of the model that keep their initial values.
        unexpected: tensors of the file that the model has no place for, by their published names
            if they have one.
    """

    loaded: list[str]
    renamed: dict[str, str]
    resized: list[str]
    missing: list[str]
    unexpected: list[str]

    def describe(self, source: str, notes: Iterable[str] = (), head: bool = True) -> str:
        """A few lines for the user.

        Args:
            source: of the weights, as the user named it.
            notes: further lines, after the first.
            head: whether the file's head was asked for.
        """
        lines = [f"{source}: loaded {counted(len(self.loaded), 'tensors')}", *notes]
        if self.renamed:
            old, new = _tops(self.renamed.keys()), _tops(self.renamed.values())
            lines.append(f"renamed {', '.join(old)} -> {', '.join(new)}")
        if self.resized:
            lines.append(f"resized to the model's input: {', '.join(self.resized)}")
        if decoder := [name for name in self.unexpected if name.startswith(DECODER)]:
            lines.append(f"left out the decoder, {counted(len(decoder), 'tensors')}")
        if others := [name for name in self.unexpected if name not in decoder]:
            lines.append(f"left out {few(others, _SHOWN)}")
        missing = [name for name in self.missing if name not in HEAD]
        if parts := [name for name in missing if name.startswith(DETECTOR_PARTS)]:
            lines.append(f"new: {', '.join(_tops(parts))}")
        if decoder := [name for name in missing if name.startswith(DECODER)]:
            lines.append(f"new decoder, {counted(len(decoder), 'tensors')}")
        if others := [name for name in missing if name not in (*parts, *decoder)]:
            lines.append(f"kept at initial values: {few(others, _SHOWN)}")
        if len(missing) < len(self.missing):
            reason = "the file has none for these classes" if head else "head=False"
            lines.append(f"new head: {reason}")
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

    The names of the tensors tell the formats apart: published models, runs of this project, timm,
    transformers, birder and SAM 2; see `foreign`. If a training kept an average of the weights, the
    average is loaded.

    When a classifier is loaded from a masked autoencoder, the decoder is left out, ``encoder_norm``
    becomes ``norm``, and the head keeps its initial values. So does a head for another number of
    classes, and all of a Mask R-CNN but its encoder if the file is of another kind of model. For
    another input size, position embeddings are resized; see `positions`.

    Args:
        model: a `Hiera`, `MaskedAutoencoderHiera`, `HieraActionDetector` or `MaskRCNNHiera`.
        source: a file (``.pth``, ``.bin``, Lightning's ``.ckpt``, ``.safetensors``), the folder of
            a run or an export, or the name of published weights such as ``mae_hiera_base_16x224``,
            which are downloaded once.
        strict: raise if any other tensors are missing, unexpected or of another shape, or if the
            source says that its network computes something else with such weights. If False, such
            tensors keep their initial values.
        quiet: print nothing.
        inflate: allow weights of an image model in a video model. Each token then sees its first
            frame, as the image model does, and the temporal position embedding is zero; a masked
            autoencoder's decoder keeps its initial values. Published image weights expect pixels
            normalised with ImageNet's mean and deviation, which differ from those of video.
        head: False keeps the model's own head even if the file's would fit, as its classes may
            differ.

    Returns:
        What was loaded and what was not.

    Raises:
        CheckpointError: a ValueError: the weights cannot be read or do not fit. The model is
            unchanged.
    """
    model = cast(nn.Module, getattr(model, "_orig_mod", model))  # within a compiled one
    path, checkpoint, network = _read(source, quiet)
    own = model.state_dict()
    try:
        geometry = _geometry(model)
        arguments = saved_arguments(checkpoint, path)
        if strict and not any(PATCHES.search(name) for name in network.weights):
            raise ValueError("is not a Hiera: it has no patch embedding")
        translation = translate(network.weights, geometry.tokens[-2:])
        translation = translation._replace(left_out=(*translation.left_out, *network.beside))
        translation, inflated = for_model(translation, own, geometry, strict, inflate)
        if not head:
            translation = without(translation, HEAD)
        # A composed embedding has the model's grid already.
        composed = translation.composed
        size = geometry.input_size if composed else input_size(arguments)
        resized = fit_positions(translation.weights, own, geometry, size, strict)
        report = _report(translation, own, list(dict.fromkeys([*inflated, *resized])))
        if strict or not report.loaded:
            _refuse_gaps(own, translation, report)
        if strict:
            same_kind = ("mask_token" in translation.weights) == ("mask_token" in own)
            refuse_other_network(arguments, model, report.loaded, same_kind)
        fitting = {name: translation.weights[name] for name in report.loaded}
        _refuse_overflow(own, fitting)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error
    model.load_state_dict(fitting, strict=False)
    if not quiet:
        notes = _notes(network, translation, published=path.stem in CHECKPOINTS)
        print(report.describe(str(source), notes, head))
    return report


def _read(source: str | Path, quiet: bool) -> tuple[Path, dict[str, Any], Network]:
    """Find or download a file: its path, its contents, and its network."""
    published = str(source) in CHECKPOINTS and not Path(source).exists()
    path = published_file(str(source), quiet) if published else find_weights(source)
    try:
        checkpoint = read_checkpoint(path)
        return path, checkpoint, network_weights(checkpoint, path)
    except CheckpointError as error:
        if published:
            raise CheckpointError(f"{error}; delete it to download it again") from error
        raise


def _geometry(model: nn.Module) -> Geometry:
    geometry = getattr(model, "geometry", None)
    if not isinstance(geometry, Geometry):
        raise ValueError(f"does not fit the model; a {type(model).__name__} is not a Hiera")
    return geometry


def _report(translation: Translation, own: StateDict, resized: list[str]) -> LoadReport:
    weights = translation.weights
    loaded = [n for n, value in weights.items() if n in own and value.shape == own[n].shape]
    fitting = set(loaded)
    return LoadReport(
        loaded=loaded,
        renamed={
            old: new for old, new in translation.names.items() if old != new and new in fitting
        },
        resized=[name for name in resized if name in fitting],
        missing=[name for name in own if name not in fitting],
        unexpected=[*(name for name in weights if name not in own), *translation.left_out],
    )


def _notes(network: Network, translation: Translation, published: bool) -> tuple[str, ...]:
    """Lines for the user: about an average, what lies beside, the format and the licence."""
    notes = (f"the average of a training ({network.average})",) if network.average else ()
    if network.others:
        notes += (f"other weights in the file are not read: {few(network.others, _SHOWN)}",)
    return (*notes, *translation.notes, *((LICENCE,) if published else ()))


def _refuse_gaps(own: StateDict, translation: Translation, report: LoadReport) -> None:
    """Raise a ValueError unless weights and model differ only where they may.

    The file may lack a head, tensors that its format never has, and all parts that make a detector
    of an encoder. It may have a decoder or a classifier's head that the model lacks, and tensors
    that are not part of a Hiera.
    """
    weights = translation.weights
    detects = any(name.startswith(DETECTOR_PARTS) for name in weights)
    new = () if detects else DETECTOR_PARTS
    missing = [
        name
        for name in report.missing
        if name not in (*HEAD, *translation.lacks) and not name.startswith(new)
    ]
    differ = [
        f"{name} is {_size(weights[name])} in the file and {_size(own[name])} in the model"
        for name in missing
        if name in weights
    ]
    absent = [name for name in missing if name not in weights]
    spare = DECODER if "mask_token" not in own else ()
    if any(name.startswith(DETECTOR_PARTS) for name in own):
        spare = (*spare, "head.projection.")
    unexpected = [name for name in weights if name not in own and not name.startswith(spare)]
    gaps = {"sizes differ": differ, "missing": absent, "not in the model": unexpected}
    faults = [f"{gap}: {few(names, _SHOWN)}" for gap, names in gaps.items() if names]
    if faults:
        raise ValueError(f"does not fit the model; {'; '.join(faults)}")


def _refuse_overflow(own: StateDict, weights: StateDict) -> None:
    """Raise a ValueError if a value is too large for the model's type.

    The file's own values are finite, but folding and resizing may have made them larger.
    """
    for name, value in weights.items():
        dtype = own[name].dtype
        if not value.to(dtype).isfinite().all():
            raise ValueError(f"{name} would have infinite values in the model, which is of {dtype}")


def _size(tensor: Tensor) -> str:
    """Its shape, as ``16x3x7x7``."""
    return "x".join(map(str, tensor.shape))


def _tops(names: Iterable[str]) -> list[str]:
    """First parts of the names: the modules of the network that hold the tensors."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names))
