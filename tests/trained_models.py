"""Checkpoints as a training leaves them, of tiny models with random weights."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiera_video.models.hiera import Hiera
from hiera_video.models.names import IMAGE_MEAN, IMAGE_STD
from hiera_video.models.zoo import create_mae, create_model
from hiera_video.weights.description import Description, to_record
from tests.models.reference import randomize
from tests.models.small import TINY, tiny_mae, tiny_model

CLASSES = ["red", "green", "blue", "black", "white"]
MODEL = {**TINY, "stages": list(TINY["stages"]), "input_size": list(TINY["input_size"])}
CLIP = {
    "num_frames": 4,
    "stride": 2,
    "fps": 30,
    "size": [64, 64],
    "sampling": "clip",
    "test_views": [2, 3],
}
MAE = {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4}


def config(create: str = "create_model", **task: Any) -> dict[str, Any]:
    """A configuration as it lies in a checkpoint, with what is read of it."""
    target = f"hiera_video.models.zoo.{create}"
    arguments = MODEL if create == "create_model" else MODEL | MAE
    return {
        "name": "any/tiny",
        "seed": 3,
        "model": {
            "_target_": target,
            "_partial_": True,
            "name": "hiera_tiny_16x224",
            **arguments,
        },
        "data": {"_target_": "datamodules.folder.VideoFolderDataModule", "root": "/secret", **CLIP},
        "task": {"lr": 1e-3, "augment": {"horizontal_flip": True}, "init_from": None, **task},
        "trainer": {"max_epochs": 2, "precision": "32-true"},
        "callbacks": {},
    }


def checkpoint(model: nn.Module, configuration: dict[str, Any], **more: Any) -> dict[str, Any]:
    """All that is read of a checkpoint."""
    return {
        "epoch": 1,
        "global_step": 12,
        "pytorch-lightning_version": "2.6.4",
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "config": configuration,
        **more,
    }


def write_run(folder: Path, name: str = "last", **task: Any) -> Hiera:
    """A run folder with a checkpoint of a classifier, which is returned."""
    model = tiny_model().eval()
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    content = checkpoint(model, config(**task), class_names=CLASSES)
    torch.save(content, folder / "checkpoints" / f"{name}.ckpt")
    return model


def write_mae_run(folder: Path, **task: Any):
    """A run folder with a checkpoint of a masked autoencoder, which is returned."""
    mae = tiny_mae().eval()
    (folder / "checkpoints").mkdir(parents=True)
    content = checkpoint(mae, config("create_mae", **task))
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return mae


def write_image_run(folder: Path, kind: str = "classifier") -> Hiera:
    """A run folder with a checkpoint of a small model of images, which is returned."""
    arguments = {**MODEL, "input_size": [64, 64], "mask_unit_size": [4, 4], "q_pool": 2}
    name, names = "hiera_tiny_224", CLASSES if kind == "classifier" else []
    if names:
        model: Hiera = create_model(name, **arguments, num_classes=len(names))
        arguments["num_classes"] = len(names)
    else:
        arguments |= MAE
        model = create_mae(name, **arguments)
    randomize(model)
    clip = {**CLIP, "num_frames": 1, "stride": 1, "fps": 1, "test_views": [1, 1]}
    description = Description(
        kind, name, arguments, tuple(names), clip, IMAGE_MEAN, IMAGE_STD, "images/tiny"
    )
    (folder / "checkpoints").mkdir(parents=True)
    content = checkpoint(model, {}, description=to_record(description))
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    return model.eval()
