"""Compose configurations, and build the data module of one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.folders import checkpoint_of, run_folder
from hiera_video.running.kinds import check_kinds
from hiera_video.running.making import made
from hiera_video.running.overrides import composed, default_values, with_plus
from hiera_video.running.usage_errors import explained
from hiera_video.running.words import FROM_CHECKPOINT, HydraCall, translate
from hiera_video.tasks.budget import passes

# A checkpoint may come from anywhere. Of its configuration these sections are taken, and in them
# only what these modules define themselves: the parts that our configurations are made of.
SECTIONS = ("name", "seed", "model", "data", "task", "trainer", "callbacks", "logger")
TRUSTED = (
    *("hiera_video.models.zoo", "hiera_video.weights.create"),
    *(f"hiera_video.{room}" for room in ("augment", "callbacks", "tasks")),
    *(f"datamodules.{data}" for data in ("folder", "images", "kinetics", "ssv2", "synthetic")),
    *("datamodules.ava.data_module", "datamodules.synthetic_actions", "datamodules.synthetic_ava"),
    *("datamodules.coco.data_module", "datamodules.synthetic_coco"),
    *("datetime", "torch.optim"),  # a timeout is a `timedelta`
    *(f"lightning.pytorch.{part}" for part in ("callbacks", "loggers", "plugins", "profilers")),
    *("lightning.pytorch.strategies", "lightning.pytorch.trainer"),
)
TRUSTED_PACKAGES = {name.partition(".")[0] for name in TRUSTED}


def register_resolvers(run_folder: Callable[..., str] = run_folder) -> None:
    """Register the functions of our configurations: ``${run_folder:...}``, ``${passes:...}``."""
    OmegaConf.register_new_resolver("run_folder", run_folder, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("passes", passes, replace=True)


def prepare(call: HydraCall) -> None:
    """Make a call ready for Hydra: store its configuration, complete and check its overrides.

    Raises:
        UsageError: an unknown configuration, or an override that does not fit it.
    """
    register_resolvers()
    if call.config_name == FROM_CHECKPOINT:
        ConfigStore.instance().store(FROM_CHECKPOINT, _config_in(call.config))
    values = default_values(call)
    call.overrides = with_plus(call.overrides, values)
    if values.get("name") == "???":
        call.overrides.insert(0, call.own_name)  # another word may set it


def _config_in(checkpoint: str) -> dict[str, Any]:
    """The configuration in a checkpoint, as a primary configuration for Hydra.

    Raises:
        UsageError: the checkpoint has none, or one that would make objects that are not trusted.
    """
    from hiera_video.weights.files import read_checkpoint  # imports torch

    path = checkpoint_of(Path(checkpoint), newest=False)
    config = read_checkpoint(path).get("config")
    if not isinstance(config, dict):
        raise UsageError(f"{path} holds weights, not a run; use --config and task.init_from={path}")
    config = {name: config[name] for name in SECTIONS if name in config}
    for target in _targets(config):
        if not is_trusted(target):
            raise UsageError(
                f"{path} names {target}, which is not part of this project; if you trust it, pass "
                "its config.yaml with --config"
            )
    return {"defaults": ["/hiera_video", "_self_"], **config}


def is_trusted(target: str) -> bool:
    """Whether a ``_target_`` is a class or function that a trusted module defines itself."""
    if target.partition(".")[0] not in TRUSTED_PACKAGES:
        return False
    try:
        module = resolve_name(target).__module__
    except Exception:  # an import runs any code, and there need be no such name
        return False
    return any(module == name or module.startswith(f"{name}.") for name in TRUSTED)


def _targets(section: Any) -> Iterator[str]:
    """The ``_target_`` of every object that a configuration would make."""
    if isinstance(section, dict):
        if "_target_" in section:
            yield str(section["_target_"])
        section = list(section.values())
    if isinstance(section, list):
        for value in section:
            yield from _targets(value)


@contextmanager
def configuration(command: str, config: str, words: Sequence[str]) -> Iterator[DictConfig]:
    """Compose a configuration, for commands that make a part of it without Hydra's application.

    Errors of what is made within the context are explained as those of a run are.

    Args:
        command: fit, validate, test or predict.
        config: name or file of the configuration.
        words: ``key=value`` overrides.

    Raises:
        UsageError: an unknown configuration, or words that do not fit it.
    """
    call = translate([command, "--config", config, *words])
    if call.flags:
        raise UsageError(f"{call.flags[0]}: Hydra's flags cannot be used here")
    with explained(call):
        prepare(call)
        yield composed(call, call.overrides)


def data_module(config: str, words: Sequence[str], missing_videos: Path | None = None) -> Any:
    """The data module of `data_and_task` alone."""
    return data_and_task(config, words, missing_videos)[0]


def data_and_task(
    config: str, words: Sequence[str], missing_videos: Path | None = None
) -> tuple[Any, Any]:
    """Build the data module of a configuration, for commands that do not train.

    Args:
        config: name or file of the configuration.
        words: ``key=value`` overrides.
        missing_videos: file that lists the videos missing on the disk, whose number is limited as
            in a training; None: write no list and tolerate any number.

    Returns:
        The data module, and the class of the task, which is not built; None without a task.

    Raises:
        UsageError: an unknown configuration, or words that do not fit it.
    """
    with configuration("test", config, words) as composed_values:
        data = composed_values.data
        for name in ("bad_videos", "killed_videos", "missing_videos"):  # files in a run's folder
            if name in data:
                data[name] = None
        values: Any = OmegaConf.to_container(data, resolve=False)
        check_kinds({"data": values})
        module = made(composed_values, "data")
        target = OmegaConf.select(composed_values, "task._target_")
        task = None if target is None else get_object(target)
    if hasattr(module, "max_missing_share"):
        module.missing_videos = missing_videos
        module.max_missing_share = module.max_missing_share if missing_videos else 1.0
    return module, task
