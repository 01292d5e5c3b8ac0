"""A model in a folder: ``model.safetensors``, and ``model.json`` with its `Description`."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiera_video.errors import CheckpointError
from hiera_video.models.names import CHECKPOINTS
from hiera_video.models.zoo import (
    create_detector,
    create_mae,
    create_mask_rcnn,
    create_model,
)
from hiera_video.weights.description import (
    CUSTOM,
    JSON,
    Description,
    one_line,
    read_description,
    words_for,
    write_description,
)
from hiera_video.weights.files import IN_FOLDER, check_file, find_weights
from hiera_video.weights.load import load_weights
from hiera_video.weights.saved_folder import describe_saved_folder
from hiera_video.weights.transformers_folder import CONFIG

WEIGHTS = "model.safetensors"
EXPORTED = (
    f"an exported model (there is no {JSON}, and no config.json of transformers or "
    "hiera-transformer)"
)
CREATE = {
    "classifier": create_model,
    "masked_autoencoder": create_mae,
    "action_detector": create_detector,
    "mask_rcnn": create_mask_rcnn,
}
# A file may be so many times smaller than the float32 model that it is loaded into: float8.
SMALLEST_NUMBERS = 4


def read_model(path: str | os.PathLike[str], kind: str, **overrides: Any) -> Any:
    """Build the model of an exported folder, with its weights.

    Args:
        path: a folder that `write_model` wrote, or its ``model.json``; or one that transformers or
            hiera-transformer saved.
        kind: the kind of model that the caller expects, a key of `CREATE`.
        **overrides: as in `build`.

    Raises:
        CheckpointError: no such file, a damaged one, or a model of another kind.
    """
    folder, weights = Path(path), None
    description = None if (folder / JSON).exists() else describe_saved_folder(folder)
    if description is None:
        if folder.is_dir() and not (folder / JSON).exists():
            raise CheckpointError(f"{path}: not {EXPORTED}; load_weights reads weights alone")
        file = folder / JSON if folder.is_dir() else folder
        description, weights = read_description(file), file.with_name(WEIGHTS)
        check_readable(description, file)
    if description.kind != kind:
        create = CREATE[description.kind].__name__
        raise CheckpointError(f"{path}: holds {words_for(description.kind)}; use {create}")
    return build(description, weights or find_weights(folder), **overrides)


def write_model(folder: Path, model: nn.Module, description: Description) -> None:
    """Write ``model.safetensors`` and ``model.json`` into an existing folder."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_description(folder, description)


def check_readable(description: Description, file: Path) -> None:
    """Check that a model can be built here.

    Args:
        description: of the model.
        file: where it was read, for messages.

    Raises:
        CheckpointError: it is a graph, or a model that is not made here.
    """
    if description.kind == CUSTOM:
        raise CheckpointError(
            f"{file}: its model is {description.name}, which is not made here; make it yourself "
            "and read its weights with load_weights"
        )
    if description.weights != "safetensors":
        raise CheckpointError(
            f"{file}: describes {description.weights}, which runs in other programs and cannot be "
            "read back; export with --format safetensors"
        )


def build(description: Description, weights: str | Path, **overrides: Any) -> Any:
    """Build a described model and load its weights.

    Memory is taken only when the file is known to be large enough for what is described.

    Args:
        description: of the model.
        weights: a file or a published name, as `load_weights` takes them.
        **overrides: further arguments of the constructor. With them the head may be new, and a
            report is printed.

    Returns:
        The network of `description.kind`, in training mode, float32, on the CPU.

    Raises:
        CheckpointError: wrong arguments, or weights that do not fit.
    """
    create, arguments = CREATE[description.kind], description.arguments
    file = Path(weights)
    origin = _described_in(file)
    try:
        with torch.device("meta"):  # takes no memory, and no time for random weights
            model = create(description.name, **arguments)
        if file.exists() or str(weights) not in CHECKPOINTS:
            _check_size(model, file, origin)
        if overrides:
            model = create(description.name, **{**arguments, **overrides})
        else:
            model.to_empty(device="cpu")
    except CheckpointError:
        raise
    except _CONSTRUCTOR_ERRORS as error:
        raise CheckpointError(f"{origin}: {one_line(error) or type(error).__name__}") from error
    report = load_weights(model, weights, quiet=not overrides)
    if report.missing and not overrides:
        raise CheckpointError(f"{weights}: lacks {report.missing[0]}, so is not of this model")
    return model


# What constructors raise for arguments that are wrong or too large.
_CONSTRUCTOR_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError)
_CONSTRUCTOR_ERRORS += (TypeError, ValueError)


def _described_in(file: Path) -> Path:
    """The file that describes weights: ``model.json`` or ``config.json`` beside them, or theirs."""
    if file.name not in IN_FOLDER:
        return file
    beside = (file.with_name(name) for name in (JSON, CONFIG))
    return next((path for path in beside if path.is_file()), file)


def _check_size(model: nn.Module, file: Path, origin: Path) -> None:
    """Raise a CheckpointError unless the file can hold the weights of the model."""
    check_file(file)
    size = file.stat().st_size
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if needed > size * SMALLEST_NUMBERS:
        raise CheckpointError(
            f"{file}: {size / 2**20:,.2f} MiB cannot be the weights of the model that {origin} "
            f"describes, which has {needed / 2**20:,.2f} MiB; damaged, or of another model"
        )
