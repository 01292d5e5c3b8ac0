"""Text that Hydra and OmegaConf read back unchanged, such as the name of any file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Keys whose value, unless it is null or a list, is one path or name. It may have characters that
# mean something to Hydra.
PATHS = {
    *("resume", "ckpt_path", "run_dir", "out", "boxes", "persons.weights", "task.init_from"),
    *(f"data.{name}" for name in ("root", "train", "val", "test", "annotations", "categories")),
    *(f"data.{name}" for name in ("videos", "images", "cache_dir", "class_names", "truth")),
    *(f"data.{name}" for name in ("label_map", "eval_label_map", "person_box_images")),
    *("hydra.run.dir", "hydra.sweep.dir"),
}
# Sections of such keys, one for each split.
PATHS_OF_SPLITS = {"data.videos", "data.pictures", "data.excluded", "data.person_boxes"}
OPENING = tuple("\"'[{(")


def quote(text: str) -> str:
    """Quote any text so that Hydra's override grammar reads it back unchanged."""
    text = escaped(text)
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)  # a backslash escapes only before a quote ...
    text = re.sub(r"(\\+)$", r"\1\1", text)  # ... such as the closing one
    return f'"{text}"'


def escaped(text: str) -> str:
    """Escape ``${`` so that a value of a configuration is this text."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def escaped_texts(values: Any) -> Any:
    """Plain values, such as dicts and lists, with all texts in them `escaped`."""
    if isinstance(values, dict):
        return {key: escaped_texts(value) for key, value in values.items()}
    if isinstance(values, list):
        return [escaped_texts(value) for value in values]
    return escaped(values) if isinstance(values, str) else values


def unquoted(value: str) -> str:
    """The text that a value of Hydra's override grammar stands for."""
    from hydra.errors import HydraException

    try:
        parsed = _parsed(value)
    except HydraException:  # reported when the words are composed
        return value
    if parsed is None:
        return "null"
    return _plain(str(parsed))


def quoted_path(word: str) -> str:
    """Quote the path in ``key=path`` if Hydra would read it as something else.

    That of a file or folder that exists is meant as it is; any other one, as of a folder to be
    made, if it is nothing else to Hydra, as ``runs/lr=0.1``.
    """
    key, _, path = word.partition("=")
    if not is_path_key(key) or not path:
        return word
    from hydra.errors import HydraException

    exists = path_exists(path)
    try:
        parsed = _parsed(path)
    except HydraException:
        is_path = exists or not path.startswith(OPENING)
        return f"{key}={quote(path)}" if is_path else word
    as_it_is = parsed is None or (isinstance(parsed, str) and parsed == path and "${" not in path)
    return f"{key}={quote(path)}" if exists and not as_it_is else word


def is_path_key(key: str) -> bool:
    """Whether the value of a key, which may have ``+`` before it, is one path or name."""
    key = key.lstrip("+")
    return key in PATHS or key.rpartition(".")[0] in PATHS_OF_SPLITS


def path_exists(word: str) -> bool:
    """Whether a word is the path of something; False if it is too long for one."""
    try:
        return Path(word).exists()
    except OSError:  # as a list of many files is
        return False


def without_sweeps(words: Sequence[str]) -> list[str]:
    """The ``key=value`` words that each job of a sweep gets, spelt as Hydra spells them for it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(list(words))
    return [
        f"{override.get_key_element()}={override.get_value_element_as_str()}"
        for override in overrides
        if not override.is_sweep_override()
    ]


def _parsed(value: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"key={value}").value()


def _plain(text: str) -> str:
    """What `escaped` was given."""
    return re.sub(r"(\\+)\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", text)
