"""What predictions without a trainer share: a configured network, its device and its precision."""

from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from datamodules.manifests.manifest import Manifest
from datamodules.manifests.predicted_lists import list_to_predict
from datamodules.manifests.splits import list_videos
from datamodules.suffixes import VIDEOS, Media
from hiera_video.errors import UsageError
from hiera_video.models.precision import full_name
from hiera_video.running.processes import check_precision
from hiera_video.weights.load import load_weights


def videos_of(config: DictConfig, media: Media = VIDEOS) -> list[str]:
    """The paths of the videos that ``data.predict`` names: files, folders and lists.

    Args:
        config: the whole configuration.
        media: the kind of file that folders are searched for.

    Raises:
        DatasetError: a path does not exist, or no video is found.
    """
    given = given_root(config)

    def read(file: Path) -> Manifest:
        own = [file.parent, Path(config.data.get("root", file.parent)).expanduser()]
        return list_to_predict(file, [given] if given else own)

    listed = list_videos(config.data.get("predict", ()), read, media)
    return [listed.path(i) for i in range(len(listed))]


def given_root(config: DictConfig) -> Path | None:
    """``data.root`` if the command line sets it, for lists to predict; None if it does not."""
    return Path(config.data.root).expanduser() if is_given("data.root") else None


def is_given(key: str) -> bool:
    """Whether the command line sets a key of the configuration, such as ``data.root``."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    return any(word.lstrip("+").startswith(f"{key}=") for word in words)


def trained_network(task: Any, weights: str, classes: int | None) -> Any:
    """The configured model, which may have another input size than that of the weights.

    Args:
        task: the configured task, whose ``create_network`` makes the model.
        weights: a checkpoint, an export's file of weights, or a published name.
        classes: number of classes; None: as configured.

    Raises:
        CheckpointError: the weights cannot be read or do not fit.
        UsageError: they lack a part of the model.
    """
    network = task.create_network(**({} if classes is None else {"num_classes": classes}))
    report = load_weights(network, weights, quiet=True)
    if report.missing:
        raise UsageError(f"{weights} lacks {report.missing[0]}; fine-tune from it first")
    return network


def device_and_precision(config: DictConfig) -> dict[str, Any]:
    """``device`` and ``precision``, as predictors take them, of ``trainer``'s keys.

    The device is that of ``trainer.accelerator``: the GPU that ``trainer.devices`` names in a list
    of one, which becomes the current one, or the first.

    Raises:
        UsageError: there is no such device here, it cannot compute in this precision, or the
            command line asks for several.
    """
    device, precision = _device(config), config.trainer.precision
    check_precision(precision, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return {"device": device, "precision": full_name(precision)}


def _device(config: DictConfig) -> torch.device:
    accelerator, devices = str(config.trainer.accelerator), config.trainer.get("devices", "auto")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ["auto", "cpu", *(["gpu", "cuda"] if gpus else [])]
    if accelerator not in names:
        raise UsageError(
            f"trainer.accelerator={accelerator}: there is none here; use {' or '.join(names)}"
        )
    named = list(devices) if isinstance(devices, ListConfig) else []
    if is_given("trainer.devices") and len(named) != 1 and str(devices) not in ("auto", "1"):
        raise UsageError(
            f"trainer.devices={devices}: these predictions use one device; leave it out, or name a "
            "GPU, as in trainer.devices=[1]"
        )
    if accelerator == "cpu" or not gpus:
        return torch.device("cpu")
    index = named[0] if len(named) == 1 else 0
    if index not in range(gpus):
        raise UsageError(f"trainer.devices=[{index}]: the GPUs of this machine are 0 to {gpus - 1}")
    return torch.device("cuda", index)
