"""Folders that ``save_pretrained`` of other projects wrote: weights and a ``config.json``."""

from pathlib import Path
from typing import Any

from hiera_video.errors import CheckpointError
from hiera_video.weights.description import Description
from hiera_video.weights.hiera_transformer_folder import (
    describe_hiera_transformer_folder,
    is_hiera_transformer_config,
)
from hiera_video.weights.transformers_folder import (
    CONFIG,
    describe_transformers_folder,
    encoder_arguments,
    is_transformers_config,
)
from hiera_video.weights.values import read_object


def describe_saved_folder(folder: Path) -> Description | None:
    """Describe the Hiera that transformers or hiera-transformer saved in a folder.

    Returns:
        Its description; None if the folder holds none.

    Raises:
        CheckpointError: one line: a wrong value, or a model that is none of ours.
    """
    if not (folder / CONFIG).is_file():
        return None
    config = read_object(folder / CONFIG)
    if is_transformers_config(config):
        return describe_transformers_folder(folder)
    if is_hiera_transformer_config(config):
        return describe_hiera_transformer_folder(config, folder / CONFIG)
    return None


def saved_network(folder: Path) -> dict[str, Any]:
    """Our arguments of the network in such a folder, whatever head it has; empty if there is none.

    Raises:
        CheckpointError: as `describe_saved_folder`.
    """
    try:
        config = read_object(folder / CONFIG)
    except CheckpointError:  # weights do not need it
        return {}
    if is_transformers_config(config):
        heads = config.get("decoder_num_heads")
        return {**encoder_arguments(config, folder / CONFIG), "decoder_num_heads": heads}
    if is_hiera_transformer_config(config):
        return describe_hiera_transformer_folder(config, folder / CONFIG).arguments
    return {}
