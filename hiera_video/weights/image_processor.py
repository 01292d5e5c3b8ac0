"""How transformers' image processor prepares pictures.

A folder's ``preprocessor_config.json`` says it, or the ``image_processor`` of its
``processor_config.json``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hiera_video.errors import CheckpointError
from hiera_video.models.names import IMAGE_MEAN, IMAGE_STD
from hiera_video.weights.description import PUBLISHED_PICTURE
from hiera_video.weights.values import (
    check_all,
    is_count,
    is_list,
    is_number,
    is_positive,
    read_object,
    short,
)

PROCESSOR = "preprocessor_config.json"
PROCESSORS = "processor_config.json"  # takes precedence, as in transformers
TYPES = ("BitImageProcessor", "CLIPImageProcessor")  # scale the short side, then crop
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


class Processing(NamedTuple):
    """How pictures become the input of a model; the fields of a `Description`."""

    clip: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_processing(folder: Path, input_size: Sequence[int]) -> Processing:
    """Read how pictures are scaled, cropped and normalised.

    Values that are not stated are those of the published image models: ImageNet's normalisation,
    and a crop of the model's size from a picture whose short side is 8/7 of it.

    Args:
        folder: of the model; it need not have the files.
        input_size: ``(height, width)`` of the model, pixels.

    Raises:
        CheckpointError: one line: a wrong value, or pictures that we cannot prepare likewise.
    """
    file = folder / PROCESSORS
    content = read_object(file).get("image_processor") if file.is_file() else None
    if not isinstance(content, dict):
        file = folder / PROCESSOR
        content = read_object(file) if file.is_file() else {}
    values = {
        "image_processor_type": TYPES[0],
        "do_resize": True,
        "resample": 3,
        "do_center_crop": True,
        "crop_size": dict(zip(("height", "width"), input_size, strict=True)),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "do_pad": False,
        **content,
    }
    try:
        _check(values, input_size)
        share = (
            _share(values["size"], input_size)
            if "size" in values
            else PUBLISHED_PICTURE["eval_crop"]
        )
    except ValueError as error:
        raise CheckpointError(
            f"{file}: {error}; or make the model with create_model and read the weights with "
            "load_weights"
        ) from error
    clip = PUBLISHED_PICTURE | {
        "size": list(input_size),
        "interpolation": INTERPOLATIONS[values["resample"]],
        "eval_crop": share,
    }
    return Processing(clip, *_normalisation(values))


def _check(values: Mapping[str, Any], input_size: Sequence[int]) -> None:
    """Raise a ValueError that names the first value that is wrong or not possible here."""
    kind = re.sub("(Fast|Pil)$", "", str(values["image_processor_type"]))
    flags = ("do_rescale", "do_normalize")
    mean, std = values["image_mean"], values["image_std"]
    sizes = ({"height": input_size[0], "width": input_size[1]}, *input_size[:1])
    sizes = sizes if input_size[0] == input_size[1] else sizes[:1]
    is_mean = not values["do_normalize"] or is_list(mean, is_number, 3)
    is_std = not values["do_normalize"] or is_list(std, is_positive, 3)
    by = values["rescale_factor"]
    requirements = {
        "image_processor_type": (kind in TYPES, " or ".join(TYPES)),
        "do_resize": (values["do_resize"] is True, "true"),
        "resample": (_is_interpolation(values["resample"]), "2 (bilinear) or 3 (bicubic)"),
        "do_center_crop": (values["do_center_crop"] is True, "true"),
        "crop_size": (values["crop_size"] in sizes, f"the model's input, {short(sizes[0])}"),
        **{name: (isinstance(values[name], bool), "true or false") for name in flags},
        "rescale_factor": (not values["do_rescale"] or is_positive(by), "a number above 0"),
        "image_mean": (is_mean, "three numbers"),
        "image_std": (is_std, "three numbers above 0"),
        "do_pad": (values["do_pad"] in (None, False), "false"),
    }
    check_all(values, requirements)


def _is_interpolation(value: Any) -> bool:
    return is_count(value) and value in INTERPOLATIONS


def _share(size: Any, input_size: Sequence[int]) -> float:
    """The share of a picture's short side that the crop covers.

    Args:
        size: to which pictures are scaled.
        input_size: height and width of the crop, pixels.
    """
    side, width = input_size
    if side != width:  # ours are scaled until they cover the crop
        raise ValueError(
            f"size must not be stated for an input of {side}x{width}, which is not square: "
            "pictures are scaled otherwise here"
        )
    edge: Any = size
    if isinstance(size, dict) and len(size) == 1:
        edge = size.get("shortest_edge")
    if not is_count(edge) or edge < side:
        raise ValueError(
            f"size must be the pixels of the short side, {{'shortest_edge': {side}}} or more, not "
            f"{short(size)}"
        )
    return side / edge


def _normalisation(values: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of ``(x / 255 - mean) / std``, which computes what the processor does."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if values["do_normalize"]:
        mean, std = values["image_mean"], values["image_std"]
    factor = 255 * values["rescale_factor"] if values["do_rescale"] else 255
    return tuple(m / factor for m in mean), tuple(s / factor for s in std)
