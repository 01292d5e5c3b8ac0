"""Describe a model that transformers saved: a folder, or a snapshot in the hub's local cache."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiera_video.errors import CheckpointError
from hiera_video.models.names import IMAGE_MEAN, IMAGE_STD, MODELS
from hiera_video.weights.description import UNKNOWN, Description
from hiera_video.weights.json_files import read_object

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
ARCHITECTURES = {  # transformers' classes, and the kind of model that each one is
    "HieraForImageClassification": "classifier",
    "HieraForPreTraining": "masked_autoencoder",
}
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# Our arguments of an encoder and of a decoder, and transformers' names for them.
ENCODER = {
    "embed_dim": "embed_dim",
    "stages": "depths",
    "q_pool": "num_query_pool",
    "q_stride": "query_stride",
    "mask_unit_size": "masked_unit_size",
    "mask_unit_attn": "masked_unit_attention",
    "dim_mul": "embed_dim_multiplier",
    "mlp_ratio": "mlp_ratio",
    "patch_kernel": "patch_size",
    "patch_stride": "patch_stride",
    "patch_padding": "patch_padding",
}
DECODER = {
    "decoder_embed_dim": "decoder_hidden_size",
    "decoder_depth": "decoder_depth",
    "decoder_num_heads": "decoder_num_heads",
}


def hub_snapshot(name: str) -> Path | None:
    """The folder in the hub's cache on this machine for a name such as ``facebook/hiera-base-224``.

    Nothing is downloaded. The cache is where ``HF_HUB_CACHE`` or ``HF_HOME`` say, or the usual
    place.

    Args:
        name: owner and name of a model.

    Returns:
        The snapshot of its main branch; None if there is none.
    """
    owner, slash, model = name.partition("/")
    if not (slash and owner and model) or "/" in model or ".." in name:
        return None
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    folder = cache / f"models--{owner}--{model}"
    try:
        snapshot = folder / "snapshots" / (folder / "refs/main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return snapshot if (snapshot / CONFIG).is_file() else None


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder holds a Hiera that ``save_pretrained`` wrote."""
    try:
        return read_object(folder / CONFIG).get("model_type") == "hiera"
    except CheckpointError:
        return False


def describe_transformers_folder(folder: Path) -> Description:
    """Describe the model of such a folder.

    Raises:
        CheckpointError: a JSON file in it cannot be read, is of another kind of model, or lacks
            something.
    """
    config = read_object(folder / CONFIG)
    listed = config.get("architectures")
    names = [str(name) for name in (listed if isinstance(listed, list) else [listed])]
    kind = next((ARCHITECTURES[name] for name in names if name in ARCHITECTURES), None)
    if kind is None:
        raise CheckpointError(
            f"{folder}: {', '.join(names)} has no head that is known here; take "
            f"{' or '.join(ARCHITECTURES)}, or task.init_from"
        )
    try:
        return _described(kind, config, folder)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        files = f"{CONFIG} or {PROCESSOR}"
        raise CheckpointError(f"{folder}: {files} is incomplete or wrong ({error!r})") from error


def _described(kind: str, config: Mapping[str, Any], folder: Path) -> Description:
    """The description, as far as its fields have the types that they should have."""
    arguments = {ours: config[theirs] for ours, theirs in ENCODER.items()}
    heads = config["num_heads"]
    arguments |= {"input_size": _pair(config["image_size"]), "num_heads": heads[0]}
    arguments["head_mul"] = heads[1] / heads[0] if len(heads) > 1 else 2.0
    names: tuple[str, ...] = ()
    evaluation = {}
    if kind == "classifier":
        labels = config["id2label"]
        names = tuple(str(labels[str(i)]) for i in range(len(labels)))
        arguments["num_classes"] = len(names)
    else:
        arguments |= {ours: config[theirs] for ours, theirs in DECODER.items()}
        normalized = config.get("normalize_pixel_loss", True)
        arguments["target"] = "pixels_normalized" if normalized else "pixels"
        evaluation = {"mask_ratio": config.get("mask_ratio", 0.6)}
    clip, mean, std = _processing(folder, arguments["input_size"])
    generic = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return Description(
        kind=kind,
        name=_name(arguments),
        arguments=arguments,
        class_names=() if generic else names,
        clip=clip,
        mean=mean,
        std=std,
        source=str(config.get("_name_or_path") or folder.name),
        licence=UNKNOWN,
        evaluation=evaluation,
    )


def _name(arguments: Mapping[str, Any]) -> str:
    """The model whose widths and depths these are, or else any: the arguments say all."""
    size = (arguments["embed_dim"], list(arguments["stages"]))
    images = {name: m for name, m in MODELS.items() if len(m["input_size"]) == 2}
    names = (n for n, m in images.items() if (m["embed_dim"], list(m["stages"])) == size)
    return next(names, next(iter(images)))


def _processing(folder: Path, input_size: list[int]) -> tuple[dict[str, Any], Any, Any]:
    """How pictures are scaled and cropped, and the mean and deviation of the normalisation."""
    content = read_object(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else {}
    size = content.get("size", {})  # earlier versions wrote the short side alone
    edge = size if isinstance(size, int) else size.get("shortest_edge")
    clip = {
        "num_frames": 1,
        "stride": 1,
        "fps": 1,
        "size": input_size,
        "sampling": "clip",
        "test_views": [1, 1],
        "interpolation": INTERPOLATIONS.get(content.get("resample", 3), "bicubic"),
        "eval_crop": min(1.0, max(input_size) / edge) if edge else 0.875,
    }
    return clip, content.get("image_mean", IMAGE_MEAN), content.get("image_std", IMAGE_STD)


def _pair(size: int | list[int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)
