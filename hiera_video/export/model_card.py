"""``README.md`` beside an export: what the weights are, in the form of a model card."""

import json
from collections.abc import Mapping
from typing import Any

from hiera_video.export.provenance import Measured
from hiera_video.weights.description import UNKNOWN, Description, words_for
from hiera_video.weights.trained import NON_COMMERCIAL

LICENCES = {
    NON_COMMERCIAL: (
        "CC-BY-NC-4.0: not for commercial use. Their training started from weights that Meta "
        "published for Hiera under this licence, which they inherit."
    ),
    UNKNOWN: (
        "Unknown. Their training started from other weights whose licence could not be found "
        "out; find it out before you use or share these."
    ),
    None: (
        "None is stated. Their training started from random values, as far as its records say; "
        "who trained them may choose one."
    ),
}
SHOWN = 20  # classes; all are in the JSON file


def model_card(
    description: Description,
    load: str,
    results: Measured | None = None,
    checked: str | None = None,
) -> str:
    """The text.

    Args:
        description: of the model.
        load: Python code that loads the export.
        results: of a test, if there was one.
        checked: how far a graph's numbers are from those of PyTorch.
    """
    training = description.training
    parts = [
        _front_matter(description),
        f"# {description.source}\n\n{_summary(description)}",
        f"## Use\n\n```python\n{load}\n```",
        f"{_input(description)}",
        _section("Data", _table(training.get("data"))),
        _section("Recipe", _steps(training) + _table(training.get("recipe"))),
        _section("Metrics", _metrics(training.get("validation"), results)),
        f"## Licence\n\n{LICENCES.get(description.licence, description.licence)}",
        _section("Versions", _table(training.get("versions"))),
    ]
    if checked:
        parts.insert(4, checked)
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _front_matter(description: Description) -> str:
    video = description.clip is not None
    lines = ["---", "library_name: hiera-video", "tags: [hiera]"]
    if description.licence == NON_COMMERCIAL:
        lines.insert(1, "license: cc-by-nc-4.0")
    if description.kind == "classifier":
        task = "video-classification" if video else "image-classification"
        lines.append(f"pipeline_tag: {task}")
    return "\n".join([*lines, "---"])


def _summary(description: Description) -> str:
    changes = {k: v for k, v in description.arguments.items() if k != "grad_checkpointing"}
    text = f"{words_for(description.kind).capitalize()}, `{description.name}`"
    text += f" with `{json.dumps(changes, ensure_ascii=False)}`." if changes else "."
    if names := description.class_names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        shown = json.dumps(names[:SHOWN], ensure_ascii=False)
        text += f"\n\n{len(names)} classes: `{shown}`{more}."
    return text


def _input(description: Description) -> str:
    if description.input == "uint8":
        values = "uint8 pixels, RGB in [0, 255]; they are normalised inside"
    else:
        mean, std = list(description.mean), list(description.std)
        values = f"float32, `(x / 255 - mean) / std` of RGB with mean `{mean}` and std `{std}`"
    if (clip := description.clip) is None:
        return f"Input: {values}. Output: logits."
    height, width = clip["size"]
    temporal, spatial = clip["test_views"]
    times = (
        f"every {clip['stride']}th frame at {clip['fps']} frames a second"
        if clip["sampling"] == "clip"
        else f"one of each of {clip['num_frames']} equal parts of a video"
    )
    return (
        f"Input: {values}; {clip['num_frames']} frames of {height} x {width} pixels, {times}. "
        f"In tests, probabilities are averaged over {temporal} x {spatial} views in time and space."
    )


def _steps(training: Mapping[str, Any]) -> str:
    known = []
    if name := training.get("config"):
        known.append(f"Configuration `{name}`.")
    if epochs := training.get("epochs"):
        known.append(f"These weights are of epoch {epochs}, counted in passes over the videos.")
    if steps := training.get("steps"):
        known.append(f"They took {steps} steps.")
    origins = training.get("started_from")
    if isinstance(origins, list) and origins:
        known.append(f"They started from {', '.join(f'`{name}`' for name in origins)}.")
    return " ".join(known) + "\n\n"


def _metrics(validation: Any, test: Measured | None) -> str:
    values = dict(validation) if isinstance(validation, Mapping) else {}
    if test:
        values |= test.metrics
    shown = {name: f"{v:.4f}" if isinstance(v, float) else v for name, v in values.items()}
    text = _table(shown) or "Not measured."
    if test and not test.weights_known:
        names = ", ".join(f"`{name}`" for name in test.metrics)
        text += f"\n\nThe results of the test do not say of which weights {names} are."
    return text


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text.strip() or 'Unknown.'}"


def _table(values: Any) -> str:
    if not isinstance(values, Mapping) or not values:
        return ""
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.replace("|", "\\|").split())
