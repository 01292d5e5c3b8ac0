"""What predictions without a trainer share: a configured network, its device and its precision."""

from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

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
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    is_given = any(word.lstrip("+").startswith("data.root=") for word in words)
    return Path(config.data.root).expanduser() if is_given else None


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
    """``device`` and ``precision``, as predictors take them, of ``trainer``'s two keys.

    Raises:
        UsageError: there is no such device here, or it cannot compute in this precision.
    """
    device, precision = _device(str(config.trainer.accelerator)), config.trainer.precision
    check_precision(precision, device)
    return {"device": device, "precision": full_name(precision)}


def _device(accelerator: str) -> torch.device:
    """The device that ``trainer.accelerator`` stands for: the first of its kind."""
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    present = [name for name, available in gpus.items() if available]
    wanted = {"auto": [*present, "cpu"], "gpu": present, "cpu": ["cpu"]}
    wanted |= {name: [name] for name in present}
    if not wanted.get(accelerator):
        raise UsageError(
            f"trainer.accelerator={accelerator}: there is none here; use auto, cpu"
            f"{''.join(f' or {name}' for name in present)}"
        )
    return torch.device(wanted[accelerator][0])
