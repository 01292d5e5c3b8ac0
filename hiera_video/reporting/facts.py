"""The configuration and the environment of a run, as rows for people."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hiera_video.export.provenance import recipe
from hiera_video.results.run_files import section

OF_DATA = ("root", "train", "val", "test", "num_frames", "stride", "fps", "size", "sampling",
           "short_side", "batch_size", "repeats", "val_views", "test_views")  # fmt: skip
Row = tuple[str, str]


class Facts(NamedTuple):
    """Rows with a name and a value, under a title."""

    title: str
    rows: list[Row]


def of_config(config: Mapping[str, Any]) -> list[Facts]:
    """The keys of a configuration by which a run is told from others.

    Args:
        config: sections as plain values; what is missing is left out.
    """
    model, data, task = (section(config, name) for name in ("model", "data", "task"))
    arguments = {name: value for name, value in model.items() if not name.startswith("_")}
    data_keys = {"data set": _class_of(data), **{name: data.get(name) for name in OF_DATA}}
    training = {"task": _class_of(task), "started from": task.get("init_from"), **recipe(config)}
    sections = (("Model", arguments), ("Data", data_keys), ("Training", training))
    return [Facts(title, rows) for title, values in sections if (rows := _rows(values))]


def of_start(start: Mapping[str, Any]) -> list[Row]:
    """What ``run.json`` has on one start of a run: command, code, machine and packages."""
    known = {
        "started": start.get("started"),
        "command": command_of(start),
        "code": start.get("git") or "not a git checkout",
        "machine": start.get("host"),
        "GPUs": start.get("gpus") or "none",
        "processes": start.get("world_size"),
        "threads of a process": start.get("threads"),
        "seed": start.get("seed"),
        "Python": start.get("python"),
        "CUDA of PyTorch": start.get("cuda"),
        **section(start, "versions"),
    }
    return _rows(known)


def command_of(start: Mapping[str, Any]) -> str:
    """The command line of a start, for a shell; the program's path becomes ``hiera-video``."""
    words = start.get("argv")
    return shlex.join(["hiera-video", *map(str, words[1:])]) if isinstance(words, list) else ""


def _class_of(section: Mapping[str, Any]) -> str:
    return str(section.get("_target_", "")).rpartition(".")[2]


def _rows(values: Mapping[str, Any]) -> list[Row]:
    texts = {str(name).replace("_", " "): text_of(value) for name, value in values.items()}
    return [(name, text) for name, text in texts.items() if text]


def text_of(value: Any) -> str:
    """A plain value as text; "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        inner = {str(name).replace("_", " "): text_of(v) for name, v in value.items()}
        return ", ".join(f"{name} {text}" for name, text in inner.items() if text)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(text_of(v) for v in value)
    return str(value)
