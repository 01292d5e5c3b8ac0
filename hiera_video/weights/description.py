"""What a model is, as a record: in the ``model.json`` of an export, and in every checkpoint."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.files import write_json
from hiera_video.errors import CheckpointError
from hiera_video.models.names import MODELS
from hiera_video.terminal import did_you_mean
from hiera_video.weights.values import (
    check_all,
    is_count,
    is_list,
    is_number,
    is_positive,
    is_text,
    one_line,
    read_object,
    short,
)

SCHEMA_VERSION = 2  # of the record; version 1 had no detectors, action_ids and versions
JSON = "model.json"
RECORD = "description"  # its key in a checkpoint
CUSTOM = "custom"  # kind of a model that is not made here, as in a task of the user's own
KINDS = ("classifier", "masked_autoencoder", "action_detector", "mask_rcnn")
UNKNOWN = "unknown"  # what is written where something is not known
SAMPLINGS = ("clip", "spread", "segments")
FORMATS = ("safetensors", "pt2", "onnx")
INPUTS = ("float32", "uint8")
CLIP = ("num_frames", "stride", "fps", "size", "sampling", "test_views")
# What records of earlier versions lack in a clip, and how they scaled.
SCALING = {"interpolation": "bilinear", "eval_crop": 1.0}
INTERPOLATIONS = ("bilinear", "bicubic")
EVALUATION = ("short_side", "pad", "person_score", "mask_ratio", "mask")
# How the published video models were trained and tested (paper, tables 4 and 11).
PUBLISHED_CLIP = {
    "num_frames": 16,
    "stride": 4,
    "fps": 30,
    "size": [224, 224],
    "sampling": "spread",
    "test_views": [5, 3],
    "interpolation": "bilinear",
    "eval_crop": 1.0,
}
# And the published image models (256 pixels, of which 224 are cropped).
PUBLISHED_PICTURE = PUBLISHED_CLIP | {
    "num_frames": 1,
    "stride": 1,
    "fps": 1,
    "sampling": "clip",
    "test_views": [1, 1],
    "interpolation": "bicubic",
    "eval_crop": 0.875,
}
MOST_BLOCKS = 1000  # that a model is built with; the largest published one has 48


class Description(NamedTuple):
    """All that it takes to build a model and to use it.

    Attributes:
        kind: ``classifier``, ``masked_autoencoder``, ``action_detector`` or ``mask_rcnn``;
            ``custom`` for a model that is not made here, which only its own program can build.
        name: of the model, as in `list_models`; of a custom model that of its class.
        arguments: of its constructor, where they differ from those of the name.
        class_names: in the order of the logits; empty if unknown, and for masked autoencoders.
        clip: how a video becomes an input: ``num_frames`` (1 of images), ``stride`` in frames,
            ``fps``, ``size`` (height and width in pixels), ``sampling``, ``test_views`` (temporal,
            spatial), ``interpolation`` and ``eval_crop`` (share of the short side). None for models
            whose input is unknown.
        mean: red, green and blue, of the normalisation ``(x / 255 - mean) / std``.
        std: likewise.
        source: what the model came from (a configuration or a published name), for people.
        licence: of the weights; ``unknown`` if it could not be found out; None if whoever trained
            them may choose.
        training: what is known about their training: plain values, for people.
        weights: format of the file of weights: ``safetensors``, ``pt2`` or ``onnx``.
        input: what that file takes: ``float32``, normalised; or ``uint8`` pixels.
        action_ids: numbers of the classes in AVA's or COCO's files, in the order of the logits;
            empty if they have none.
        versions: of the packages that trained the model, by their names.
        evaluation: how tests of the training used the model, where that is not in `clip`. Of action
            detectors ``short_side`` (pixels to which a picture is scaled; null: as far as the clip
            fits in), ``pad`` (height and width to which the whole picture is padded; null: crops)
            and ``person_score`` (whether scores are multiplied by the person's); of masked
            autoencoders ``mask_ratio`` (null: 0.9 for videos) and ``mask``. Any may be missing.
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
    action_ids: tuple[int, ...] = ()
    versions: Mapping[str, str] = {}
    evaluation: Mapping[str, Any] = {}

    @property
    def is_of_images(self) -> bool:
        """Whether the model takes pictures: the size of its input has no frames."""
        size = self.arguments.get("input_size") or MODELS.get(self.name, {}).get("input_size", ())
        return len(size) == 2


def to_record(description: Description) -> dict[str, Any]:
    """A description as plain values of JSON, for ``model.json`` or a checkpoint."""
    return json.loads(json.dumps({"schema": SCHEMA_VERSION, **description._asdict()}))


def from_record(record: Any, file: str | Path) -> Description:
    """A description from a record, every field checked: anyone may have written the file.

    Args:
        record: what `to_record` gave, in this version or an earlier one.
        file: where it was found, for error messages.

    Raises:
        CheckpointError: a wrong field; one line with the file, the field and its value.
    """
    try:
        record = json.loads(json.dumps(record))  # no tensors or other objects of a checkpoint
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: its description is not plain values ({error})") from error
    try:
        return _checked(record)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


def read_description(file: Path) -> Description:
    """Read ``model.json`` and check every field.

    Raises:
        CheckpointError: one line that names the file and, where one is wrong, the field.
    """
    return from_record(read_object(file), file)


def write_description(folder: Path, description: Description) -> None:
    """Write ``model.json`` into an existing folder."""
    write_json(folder / JSON, to_record(description))


def words_for(kind: str) -> str:
    """A kind of model with its article, for messages: ``an action detector``."""
    words = kind.replace("_", " ").replace("mask rcnn", "Mask R-CNN")
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _checked(record: Any) -> Description:
    """A description, or a ValueError that names the wrong field."""
    if not isinstance(record, dict):
        raise ValueError("must be an object with the fields of a model")
    schema = record.get("schema", SCHEMA_VERSION)
    if schema not in (1, SCHEMA_VERSION):
        raise ValueError(
            f"schema is {short(schema)} and this version reads 1 and {SCHEMA_VERSION}; a newer "
            "one may read it"
        )
    if schema == 1:
        record = {"action_ids": [], "versions": {}, **record}
    record = {"evaluation": {}, **record}
    _check_names(record, ("schema", *Description._fields))
    fields = {name: record[name] for name in Description._fields}
    _check_values(fields)
    if fields["clip"] is not None:
        fields["clip"] = {**SCALING, **fields["clip"]}
        _check_clip(fields["clip"])
    _check_evaluation(fields["evaluation"])
    _check_model(fields)
    lists = ("class_names", "mean", "std", "action_ids")
    return Description(**{**fields, **{name: tuple(fields[name]) for name in lists}})


def _check_values(fields: Mapping[str, Any]) -> None:
    """Check each field by itself."""
    clip, licence, arguments = fields["clip"], fields["licence"], fields["arguments"]
    are_arguments = isinstance(arguments, dict) and all(map(_is_argument, arguments.values()))
    is_versions = isinstance(fields["versions"], dict) and is_text(*fields["versions"].values())
    requirements = {
        "kind": (fields["kind"] in (*KINDS, CUSTOM), " or ".join(KINDS)),
        "name": (is_text(fields["name"]), "text"),
        "arguments": (are_arguments, "an object of numbers below a million, text and their lists"),
        "class_names": (is_list(fields["class_names"], is_text), "a list of text"),
        "clip": (clip is None or isinstance(clip, dict), "an object or null"),
        "mean": (is_list(fields["mean"], is_number, 3), "three numbers"),
        "std": (is_list(fields["std"], is_positive, 3), "three numbers above 0"),
        "source": (is_text(fields["source"]), "text"),
        "licence": (licence is None or is_text(licence), "text or null"),
        "training": (isinstance(fields["training"], dict), "an object"),
        "weights": (fields["weights"] in FORMATS, " or ".join(FORMATS)),
        "input": (fields["input"] in INPUTS, " or ".join(INPUTS)),
        "action_ids": (is_list(fields["action_ids"], is_count), "a list of whole numbers"),
        "versions": (is_versions, "an object of text"),
        "evaluation": (isinstance(fields["evaluation"], dict), "an object"),
    }
    check_all(fields, requirements)


def _check_clip(clip: dict[str, Any]) -> None:
    _check_names(clip, (*CLIP, *SCALING), "clip.")
    kind, share = clip["interpolation"], clip["eval_crop"]
    requirements = {
        "num_frames": (is_count(clip["num_frames"]), "a whole number above 0"),
        "stride": (is_count(clip["stride"]), "a whole number above 0"),
        "fps": (is_positive(clip["fps"]), "a number above 0"),
        "size": (is_list(clip["size"], is_count, 2), "two whole numbers above 0"),
        "sampling": (clip["sampling"] in SAMPLINGS, " or ".join(SAMPLINGS)),
        "test_views": (is_list(clip["test_views"], is_count, 2), "two whole numbers above 0"),
        "interpolation": (kind in INTERPOLATIONS, " or ".join(INTERPOLATIONS)),
        "eval_crop": (is_positive(share) and share <= 1, "a number above 0, at most 1"),
    }
    check_all(clip, requirements, "clip.")


def _check_evaluation(evaluation: dict[str, Any]) -> None:
    values = {**dict.fromkeys(EVALUATION), **evaluation}
    _check_names(values, EVALUATION, "evaluation.")
    side, pad, ratio, mask = (values[name] for name in ("short_side", "pad", "mask_ratio", "mask"))
    is_share = ratio is None or (is_positive(ratio) and ratio < 1)
    requirements = {
        "short_side": (side is None or is_count(side), "a whole number above 0 or null"),
        "pad": (pad is None or is_list(pad, is_count, 2), "two whole numbers above 0 or null"),
        "person_score": (values["person_score"] in (None, True, False), "true or false"),
        "mask_ratio": (is_share, "a number between 0 and 1 or null"),
        "mask": (mask is None or is_text(mask), "text or null"),
    }
    check_all(values, requirements, "evaluation.")


def _check_model(fields: Mapping[str, Any]) -> None:
    """Check what no field says alone: that the name exists, and that numbers go together."""
    name, arguments = fields["name"], fields["arguments"]
    if name not in MODELS and fields["kind"] != CUSTOM:
        raise ValueError(f"name {short(name)} is of no model{did_you_mean(name, MODELS)}")
    if (depth := _depth(arguments)) > MOST_BLOCKS:
        raise ValueError(
            f"arguments name {depth} blocks and poolings, and {MOST_BLOCKS} are the most"
        )
    counts = {key: len(fields[key]) for key in ("class_names", "action_ids") if fields[key]}
    outputs = arguments.get("num_classes")
    for key, count in counts.items():
        if fields["kind"] != "masked_autoencoder" and outputs not in (None, count):
            raise ValueError(f"{count} {key} for num_classes {outputs}")
    if len(set(counts.values())) == 2:
        raise ValueError(
            f"{counts['action_ids']} action_ids for {counts['class_names']} class_names"
        )


def _depth(arguments: Mapping[str, Any]) -> float:
    """Sum of the numbers up to which constructors count."""
    stages = arguments.get("stages")
    numbers: list[Any] = [arguments.get("decoder_depth"), arguments.get("q_pool")]
    numbers += stages if isinstance(stages, list) else [stages]
    return sum(abs(number) for number in numbers if is_number(number))


def _check_names(record: Mapping[str, Any], names: Collection[str], prefix: str = "") -> None:
    for name in record:
        if name not in names:
            hint = did_you_mean(str(name), names)
            raise ValueError(f"there is no field {prefix}{one_line(name)}{hint}")
    for name in names:
        if name not in record:
            raise ValueError(f"{prefix}{name} is missing")


def _is_argument(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(
        v is None or isinstance(v, str | bool) or (is_number(v) and abs(v) < 1_000_000)
        for v in values
    )
