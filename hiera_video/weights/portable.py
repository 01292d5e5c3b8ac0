"""A model in a folder: ``model.safetensors``, and ``model.json`` with all it takes to use it."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from hiera_video.errors import CheckpointError
from hiera_video.models.names import CHECKPOINTS, MODELS
from hiera_video.models.zoo import create_detector, create_mae, create_model
from hiera_video.spelling import did_you_mean
from hiera_video.weights.load import load_weights

SCHEMA = 1  # of model.json
JSON, WEIGHTS = "model.json", "model.safetensors"
CREATE = {
    "classifier": create_model,
    "masked_autoencoder": create_mae,
    "action_detector": create_detector,
}
SAMPLINGS = ("clip", "segments")
# Limits of what is built before a file of weights has shown that it is so large.
MOST_BLOCKS = 1000  # the largest published model has 48
SMALLEST_NUMBERS = 4  # times smaller a file may be than the model: float8


class Description(NamedTuple):
    """What ``model.json`` says.

    Attributes:
        kind: ``classifier`` or ``masked_autoencoder``.
        name: of the model, as in `list_models`.
        arguments: of its constructor, in place of those that the name stands for.
        class_names: in the order of the logits; empty where they are not known.
        clip: how a video becomes an input: ``num_frames``, ``stride``, ``fps``, ``size``
            (height, width), ``sampling`` and ``test_views`` (temporal, spatial). None for images.
        mean: of the normalisation ``(x / 255 - mean) / std``, red, green, blue.
        std: of the same.
        source: what it was exported from, for people.
        licence: of the weights; ``unknown``; None where it is for the one who trained them to say.
        training: what is known of how they were trained, plain values for people.
        weights: format of the file beside it.
        input: ``float32``, normalised; or ``uint8``, where the file normalises.
    """

    kind: str
    name: str
    arguments: dict[str, Any]
    class_names: tuple[str, ...]
    clip: dict[str, Any] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str | None = None
    training: Mapping[str, Any] = {}
    weights: str = "safetensors"
    input: str = "float32"


def build(description: Description, weights: str | Path, **overrides: Any) -> Any:
    """The model with its weights.

    No memory is taken before the file is known to be large enough for what is described.

    Args:
        description: of the model.
        weights: a file or a published name, as `load_weights` takes them.
        **overrides: further arguments of its constructor. With them, the head may stay new, and
            a report is printed.

    Raises:
        CheckpointError: arguments that are wrong, or weights that do not fit.
    """
    create, arguments = CREATE[description.kind], description.arguments
    file = Path(weights)
    where = file.with_name(JSON) if file.name == WEIGHTS else file
    try:
        with torch.device("meta"):  # no memory, and no time for random weights
            model = create(description.name, **arguments)
        if file.exists() or str(weights) not in CHECKPOINTS:
            _check_size(model, file, where)
        if overrides:
            model = create(description.name, **{**arguments, **overrides})
        else:
            model.to_empty(device="cpu")
    except CheckpointError:
        raise
    except _NOT_BUILT as error:
        raise CheckpointError(f"{where}: {_one_line(error) or type(error).__name__}") from error
    try:
        report = load_weights(model, weights, quiet=not overrides)
    except CheckpointError as error:  # names of tensors may have any character
        raise CheckpointError(_one_line(error)) from error
    if report.missing and not overrides:
        raise CheckpointError(f"{weights}: lacks {report.missing[0]}, so is not of this model")
    return model


# What constructors say of arguments that are wrong, or too large.
_NOT_BUILT = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError)
_NOT_BUILT += (TypeError, ValueError)


def _check_size(model: nn.Module, file: Path, where: Path) -> None:
    """Raise a CheckpointError unless a file can hold the weights of a model."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    size = file.stat().st_size
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if needed > size * SMALLEST_NUMBERS:
        raise CheckpointError(
            f"{file}: {size / 2**20:,.2f} MiB cannot be the weights of the model that {where} "
            f"describes, which has {needed / 2**20:,.2f} MiB; damaged, or of another model"
        )


def read_model(path: str | os.PathLike[str], kind: str, **overrides: Any) -> Any:
    """The model of a folder that `write_model` wrote, or of its ``model.json``.

    Args:
        path: either.
        kind: which is expected.
        **overrides: as in `build`.

    Raises:
        CheckpointError: there is none, it is of another kind, or a file is damaged.
    """
    file = Path(path) / JSON if Path(path).is_dir() else Path(path)
    description = read_description(file)
    if description.kind != kind:
        wanted = CREATE[description.kind].__name__
        raise CheckpointError(f"{file}: is of a {description.kind.replace('_', ' ')}; use {wanted}")
    check_readable(description, file)
    return build(description, file.with_name(WEIGHTS), **overrides)


def check_readable(description: Description, file: Path) -> None:
    """Raise a CheckpointError unless the weights beside the file are in our own format."""
    if description.weights != "safetensors":
        raise CheckpointError(
            f"{file}: is of a {description.weights} export, which other programs run; what can be "
            "read back is a safetensors export"
        )


def write_model(folder: Path, model: nn.Module, description: Description) -> None:
    """Write both files into a folder that exists."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_description(folder, description)


def write_description(folder: Path, description: Description) -> None:
    """Write ``model.json`` alone."""
    record = {"schema": SCHEMA, **description._asdict()}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (folder / JSON).write_text(text + "\n", encoding="utf-8")


def read_description(file: Path) -> Description:
    """Read ``model.json`` and check every field.

    Raises:
        CheckpointError: one line that names the file and the field.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: is not JSON ({error})") from error
    try:
        return checked_description(record, file)
    except RecursionError as error:
        raise CheckpointError(f"{file}: is nested too deeply") from error


def checked_description(record: Any, file: Path) -> Description:
    """A description from the fields of ``model.json``, plain values that came from a file.

    Raises:
        CheckpointError: one line that names the file and the field.
    """
    if not isinstance(record, dict):
        raise CheckpointError(f"{file}: expected an object with the fields of a model")
    if record.get("schema", SCHEMA) != SCHEMA:
        raise CheckpointError(
            f"{file}: schema is {record['schema']!r} and this version reads {SCHEMA}; "
            "a newer one may read it"
        )
    _check(record, FIELDS, file, "")
    if record["name"] not in MODELS:
        hint = did_you_mean(record["name"], MODELS)
        raise CheckpointError(f"{file}: name {record['name']!r} is of no model{hint}")
    if record["clip"] is not None:
        _check(record["clip"], CLIP, file, "clip.")
    if (depth := _depth(record["arguments"])) > MOST_BLOCKS:
        raise CheckpointError(
            f"{file}: arguments name {depth} blocks and poolings, and {MOST_BLOCKS} are the most"
        )
    names, outputs = record["class_names"], record["arguments"].get("num_classes")
    if names and record["kind"] == "classifier" and outputs not in (None, len(names)):
        raise CheckpointError(f"{file}: {len(names)} class_names for num_classes {outputs}")
    lists = {key: tuple(record[key]) for key in ("class_names", "mean", "std")}
    fields = {name: record[name] for name in Description._fields}
    return Description(**{**fields, **lists})


def _depth(arguments: Mapping[str, Any]) -> float:
    """Numbers that constructors count up to, in sum."""
    stages = arguments.get("stages")
    numbers: list[Any] = [arguments.get("decoder_depth"), arguments.get("q_pool")]
    numbers += stages if isinstance(stages, list) else [stages]
    return sum(abs(number) for number in numbers if _is_number(number))


class _Field(NamedTuple):
    holds: Callable[[Any], bool]
    words: str  # for "must be ..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000


def _is_argument(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(
        v is None or isinstance(v, str | bool) or (_is_number(v) and abs(v) < 1_000_000)
        for v in values
    )


def _list_of(holds: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(map(holds, value))
    )


def _one_of(*values: str) -> _Field:
    return _Field(lambda value: isinstance(value, str) and value in values, " or ".join(values))


_TEXT = _Field(lambda value: isinstance(value, str), "text")
_OBJECT = _Field(lambda value: isinstance(value, dict), "an object")
_COUNT = _Field(_is_count, "a whole number above 0")
_POSITIVE = _Field(lambda value: _is_number(value) and value > 0, "a number above 0")
_COLOURS = _Field(_list_of(_is_number, 3), "three numbers")
_PAIR = _Field(_list_of(_is_count, 2), "two whole numbers above 0")
FIELDS = {
    "schema": _COUNT,
    "kind": _one_of(*CREATE),
    "name": _TEXT,
    "arguments": _Field(
        lambda value: isinstance(value, dict) and all(map(_is_argument, value.values())),
        "an object of numbers below a million, text and lists of them",
    ),
    "class_names": _Field(_list_of(_TEXT.holds), "a list of text"),
    "clip": _Field(lambda value: value is None or isinstance(value, dict), "an object or null"),
    "mean": _COLOURS,
    "std": _Field(_list_of(_POSITIVE.holds, 3), "three numbers above 0"),
    "source": _TEXT,
    "licence": _Field(lambda value: value is None or isinstance(value, str), "text or null"),
    "training": _OBJECT,
    "weights": _one_of("safetensors", "pt2", "onnx"),
    "input": _one_of("float32", "uint8"),
}
CLIP = {
    "num_frames": _COUNT,
    "stride": _COUNT,
    "fps": _POSITIVE,
    "size": _PAIR,
    "sampling": _one_of(*SAMPLINGS),
    "test_views": _PAIR,
}


def _check(record: dict[str, Any], fields: dict[str, _Field], file: Path, prefix: str) -> None:
    for name in record:
        if name not in fields:
            hint = did_you_mean(name, fields)
            raise CheckpointError(f"{file}: there is no field {prefix}{_one_line(name)}{hint}")
    for name, field in fields.items():
        if name not in record:
            raise CheckpointError(f"{file}: {prefix}{name} is missing")
        if not field.holds(record[name]):
            raise CheckpointError(
                f"{file}: {prefix}{name} must be {field.words}, not {_short(record[name])}"
            )


def _short(value: Any) -> str:
    text = _one_line(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(text: object) -> str:
    return " ".join(line.strip() for line in str(text).splitlines())
