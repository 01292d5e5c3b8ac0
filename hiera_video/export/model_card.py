"""``README.md`` beside an export: a model card that says what the weights are."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hiera_video.export.provenance import Measured
from hiera_video.weights.description import UNKNOWN, Description, words_for
from hiera_video.weights.portable import CREATE
from hiera_video.weights.trained import NON_COMMERCIAL
from hiera_video.weights.transformers_folder import ARCHITECTURES

# The template of all cards.
CARD = """\
{front_matter}

# {source}

{summary}

## Use

```python
{load}
```

{input}

{checked}## Data

{data}

## Recipe

{recipe}

## Metrics

{metrics}

## Licence

{licence}

## Versions

{versions}
"""
LICENCES = {
    NON_COMMERCIAL: (
        "CC-BY-NC-4.0: not for commercial use. Their training started from weights that Meta "
        "published for Hiera under this licence, which they inherit."
    ),
    UNKNOWN: (
        "Unknown. Their training started from other weights, whose licence could not be "
        "determined; find it out before you use or share these."
    ),
    None: (
        "None is stated. As far as its records show, their training started from random values, "
        "so whoever trained them may choose one."
    ),
}
SHOWN = 20  # classes; all are in the JSON file
# How to load an export; {folder} is its name.
LOADING = {
    "safetensors": "from hiera_video import load\n\n{use}",
    "safetensors of images": 'from hiera_video import {create}\n\nmodel = {create}("{folder}")',
    "pt2": (
        "import torch\n\n"
        'model = torch.export.load("{folder}/model.pt2").module()\n'
        "logits = model(video)  # {input} (batch, {shape})"
    ),
    "onnx": (
        "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("{folder}/model.onnx")\n'
        '(logits,) = session.run(None, {{"video": video}})  # {input} (batch, {shape})'
    ),
    "timm": 'import timm\n\nmodel = timm.create_model("local-dir:{folder}", pretrained=True)',
    "transformers": (
        'from transformers import {theirs}\n\nmodel = {theirs}.from_pretrained("{folder}")'
    ),
}
# What to do with what `load` returns, by the kind of model.
USES = {
    "classifier": 'load("{folder}").predict("{file}")',
    "action_detector": 'load("{folder}").predict("video.mp4", boxes="full_frame")',
    "masked_autoencoder": 'load("{folder}").reconstruct("{file}")',
    "mask_rcnn": 'load("{folder}").predict("picture.jpg")',
}


def loading_code(
    kind: str, folder: str, description: Description, input_shape: Sequence[int]
) -> str:
    """Python code that loads an export.

    Args:
        kind: format of the export, such as ``safetensors`` or ``onnx``.
        folder: the export's name.
        description: describes the model.
        input_shape: shape of one input, without the batch.
    """
    if kind == "safetensors" and not (description.clip or description.evaluation.get("pad")):
        kind = "safetensors of images"
    return LOADING[kind].format(
        folder=folder,
        input=description.input,
        shape=", ".join(map(str, input_shape)),
        use=USES[description.kind].format(
            folder=folder, file="picture.jpg" if takes_pictures(description) else "video.mp4"
        ),
        create=CREATE[description.kind].__name__,
        theirs=ARCHITECTURES.get(description.kind),
    )


def model_card(
    description: Description,
    load: str,
    results: Measured | None = None,
    checked: str | None = None,
) -> str:
    """The text of the card, in Markdown.

    Args:
        description: describes the model.
        load: Python code that loads the export.
        results: results of a test, if there was one.
        checked: says how far a graph's numbers are from those of PyTorch.
    """
    training = description.training
    return CARD.format(
        front_matter=_front_matter(description),
        source=description.source,
        summary=_summary(description),
        load=load,
        input=_input(description),
        checked=f"{checked.strip()}\n\n" if checked else "",
        data=_known(_table(training.get("data"))),
        recipe=_known(_steps(training) + _table(training.get("recipe"))),
        metrics=_metrics(training.get("validation"), results).strip(),
        licence=LICENCES.get(description.licence, description.licence),
        # Exports of version 0.1 have the versions in the training.
        versions=_known(_table(description.versions or training.get("versions"))),
    )


def licence_name(licence: str | None) -> str | None:
    """The name that model hubs have for a licence, such as ``cc-by-nc-4.0``.

    Args:
        licence: as in a `Description`.

    Returns:
        ``other`` for text that is no name; None if there is no licence, or an unknown one.
    """
    if licence in (None, UNKNOWN):
        return None
    name = licence.lower()
    return name if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) else "other"


def takes_pictures(description: Description) -> bool:
    """Whether the input is a picture; models whose input is unknown are older ones of images."""
    clip = description.clip
    return clip is None or (clip["num_frames"] == 1 and clip["sampling"] == "clip")


def _front_matter(description: Description) -> str:
    lines = ["---", "library_name: hiera-video", "tags: [hiera]"]
    if licence := licence_name(description.licence):
        lines.insert(1, f"license: {licence}")
    if description.kind == "classifier":
        seen = "image" if takes_pictures(description) else "video"
        lines.append(f"pipeline_tag: {seen}-classification")
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
        return f"Input: {values}. {_output(description)}"
    height, width = clip["size"]
    temporal, spatial = clip["test_views"]
    if takes_pictures(description):
        share, scaling = clip.get("eval_crop", 1.0), clip.get("interpolation", "bilinear")
        return (
            f"Input: {values}; a picture of {height} x {width} pixels, in tests the centre of one "
            f"that was scaled ({scaling}) so that it covers {share:g} of the short side. "
            f"{_output(description)}"
        )
    nominal = f"{clip['fps']} frames per second"
    times = {
        "clip": f"one of every {clip['stride']} at {nominal}",
        "spread": f"at equal steps over {clip['num_frames'] * clip['stride']} at {nominal}",
        "segments": f"one from each of {clip['num_frames']} equal parts of a video",
    }[clip["sampling"]]
    text = f"Input: {values}; {clip['num_frames']} frames of {height} x {width} pixels, {times}."
    if description.kind == "classifier":
        text += (
            f" In tests, probabilities are averaged over {temporal} x {spatial} views in time and "
            "space."
        )
    return f"{text} {_output(description)}"


def _output(description: Description) -> str:
    if description.kind == "action_detector":
        return (
            "The other inputs are boxes `(N, 4)`, x1, y1, x2, y2 in [0, 1] of their clip, and the "
            "index of each box's clip, `(N,)`. Output: logits `(N, classes)`; the sigmoid of a "
            "logit is the score of an action."
        )
    if description.kind == "mask_rcnn":
        return (
            "The other input is the height and width of each picture, which lies in the upper left "
            "corner. Output for each picture: `boxes` `(N, 4)`, x1, y1, x2, y2 in pixels, `labels` "
            "`(N,)` from 1 on, `scores` `(N,)`, and `masks` `(N, 1, 28, 28)`, probabilities in the "
            "box."
        )
    if description.kind == "masked_autoencoder":
        return "Output: a prediction for each hidden patch, and the loss."
    return "Output: logits `(batch, classes)`."


def _steps(training: Mapping[str, Any]) -> str:
    sentences = []
    if name := training.get("config"):
        sentences.append(f"Configuration `{name}`.")
    if epochs := training.get("epochs"):
        sentences.append(
            f"These weights are from epoch {epochs}, counted in passes over the videos."
        )
    if steps := training.get("steps"):
        sentences.append(f"They took {steps} steps.")
    origins = training.get("started_from")
    if isinstance(origins, list) and origins:
        sentences.append(f"They started from {', '.join(f'`{name}`' for name in origins)}.")
    return " ".join(sentences) + "\n\n"


def _metrics(validation: Any, test: Measured | None) -> str:
    values = dict(validation) if isinstance(validation, Mapping) else {}
    if test:
        values |= test.metrics
    shown = {name: f"{v:.4f}" if isinstance(v, float) else v for name, v in values.items()}
    text = _table(shown) or "Not measured."
    if test and not test.weights_known:
        names = ", ".join(f"`{name}`" for name in test.metrics)
        text += f"\n\nThe results of the test do not say which weights gave {names}."
    return text


def _known(text: str) -> str:
    return text.strip() or "Unknown."


def _table(values: Any) -> str:
    if not isinstance(values, Mapping) or not values:
        return ""
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.replace("|", "\\|").split())
