"""Translate weights of other projects' Hiera to published names. Their keys tell them apart.

- timm's ``hiera_*``: LayerScale is folded into the layer before it, and the two parts of an
  absolute-window position embedding are added up.
- transformers' ``HieraModel``, ``HieraForImageClassification``, ``HieraForPreTraining`` and the
  encoder of ``HieraBackbone``.
- birder's ``hiera_*`` and ``mae_hiera``, with absolute windows, too.
- SAM 2's image trunk (``image_encoder.trunk``), also as timm and transformers have it, and timm's
  ``hieradet`` of that form; the rest is left out. Its position embedding has two parts as well.
  Most blocks from stage 3 on attend in windows, where Hiera attends to the whole picture. At
  224x224 (large and timm's: 256x256) these windows are as large as the map, so features are equal.
  At other sizes they differ.

All of them are models of images.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from hiera_video.weights.files import checked_values
from hiera_video.weights.positions import compose

LICENCE_NOTE = "mind the licence: Meta's Hiera weights are CC-BY-NC 4.0 in this form, too"
# Patterns in the names of a file, and what replaces them in the published names.
TRANSFORMERS = {
    r"^(hiera\.)?embeddings\.position_embeddings$": "pos_embed",
    r"^(hiera\.)?embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^(hiera\.)?pooler\.layernorm\.": "norm.",
    r"^classifier\.": "head.projection.",
    r"^multiscale_fusion\.": "",
    r"^decoder\.mask_token$": "mask_token",
    r"^decoder\.decoder_position_embeddings$": "decoder_pos_embed",
    r"^decoder\.decoder_embeddings\.": "decoder_embed.",
    r"^decoder\.decoder_block\.layers\.": "decoder_blocks.",
    r"^decoder\.(decoder_norm|decoder_pred)\.": r"\1.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
}
BIRDER = {
    r"^encoder\.": "",
    r"^stem\.proj\.": "patch_embed.proj.",
    r"^features\.1\.": "norm.",
    r"^classifier\.": "head.projection.",
    r"\.mlp\.0\.": ".mlp.fc1.",
    r"\.mlp\.3\.": ".mlp.fc2.",
}
TIMM = {r"^head\.norm\.": "norm.", r"^head\.fc\.": "head.projection."}
SAM2 = {  # its own names, and transformers'
    r"^patch_embed\.projection\.": "patch_embed.proj.",
    r"\.layer_norm([12])\.": r".norm\1.",
    r"\.mlp\.(layers\.0|proj_in)\.": ".mlp.fc1.",
    r"\.mlp\.(layers\.1|proj_out)\.": ".mlp.fc2.",
}
NORM = ("norm.weight", "norm.bias")  # which encoders alone may not have

# The end of the name of the kernel of a patch embedding, in all formats.
PATCHES = re.compile(r"(patch_embed|patch_embeddings|stem)\.proj(ection)?\.weight$")
# Prefixes of blocks, with the numbers of their stage and of their place in it.
TRANSFORMERS_BLOCK = re.compile(r"^(?:hiera\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.")
BIRDER_BLOCK = re.compile(r"^(?:encoder\.)?body\.stage(\d+)\.(\d+)\.")


class Translation(NamedTuple):
    """Weights under published names.

    Attributes:
        weights: of the network; a position embedding in two parts has become one.
        names: each name in the file to its published name, even if they are equal.
        left_out: names in the file that are not part of a Hiera.
        lacks: published names that such files never have.
        notes: lines for the user.
        composed: whether the position embedding had two parts; it now has the model's own grid.
    """

    weights: dict[str, Tensor]
    names: dict[str, str]
    left_out: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    composed: bool = False


def translate(weights: Mapping[str, Tensor], grid: tuple[int, ...]) -> Translation:
    """Translate the names of weights to published names; published ones stay.

    Args:
        weights: tensors by their names in the file.
        grid: ``(H', W')``, tokens after the patch embedding of the model that will take them.

    Raises:
        ValueError: a network that a Hiera cannot compute, two names for the same tensor, or values
            that `checked_values` refuses.
    """
    ends = {name.rpartition(".")[2]: name for name in weights if "pos_embed" in name}
    if "pos_embed_window" in ends:
        return _from_sam2(weights, ends["pos_embed_window"].removesuffix("pos_embed_window"), grid)
    weights = checked_values(weights)
    if any(re.search(r"embeddings\.patch_embeddings\.projection\.", name) for name in weights):
        return _from_transformers(weights)
    if any(BIRDER_BLOCK.match(name) for name in weights):
        return _from_birder(weights, grid)
    if any(re.search(r"^head\.(norm|fc)\.|^pos_embed_win$|\.ls1\.gamma$", n) for n in weights):
        return _from_timm(weights, grid)
    return Translation(dict(weights), {name: name for name in weights})


def _from_transformers(weights: Mapping[str, Tensor]) -> Translation:
    left_out = [name for name in weights if name.startswith("hidden_states_norms.")]  # a backbone's
    kept = [name for name in weights if name not in left_out]
    names = _rename(kept, TRANSFORMERS, TRANSFORMERS_BLOCK)
    moved = {new: weights[name] for name, new in names.items()}
    alone = not any(name.startswith(("norm.", "encoder_norm.", "head.")) for name in moved)
    notes = ("as transformers has them", LICENCE_NOTE)
    return Translation(moved, names, tuple(left_out), NORM if alone else (), notes)


def _from_timm(weights: Mapping[str, Tensor], grid: tuple[int, ...]) -> Translation:
    names = _rename(weights, TIMM)
    moved = {names[name]: value for name, value in weights.items()}
    _check_transitions(moved)
    notes = ["as timm has them", LICENCE_NOTE]
    if _fold_layer_scale(moved):
        notes.append("folded LayerScale into the layers before it")
    if windows := "pos_embed_win" in moved:
        _compose(moved, "pos_embed_win", grid, antialias=True)
        names["pos_embed_win"] = "pos_embed"
    return Translation(moved, names, notes=tuple(notes), composed=windows)


def _from_birder(weights: Mapping[str, Tensor], grid: tuple[int, ...]) -> Translation:
    # An autoencoder's encoder has a norm, and perhaps a head, that it does not use.
    left_out = [name for name in weights if re.match(r"encoder\.(features|classifier)\.", name)]
    names = _rename([name for name in weights if name not in left_out], BIRDER, BIRDER_BLOCK)
    moved = {new: weights[name] for name, new in names.items()}
    notes = ("as birder has them; the page of the weights says their licence",)
    if windows := "pos_embed_win" in moved:
        _compose(moved, "pos_embed_win", grid, antialias=True)
        names = {n: "pos_embed" if new == "pos_embed_win" else new for n, new in names.items()}
    return Translation(moved, names, tuple(left_out), notes=notes, composed=windows)


def _from_sam2(weights: Mapping[str, Tensor], prefix: str, grid: tuple[int, ...]) -> Translation:
    trunk = [name for name in weights if name.startswith(prefix)]
    names = _rename(trunk, {"^" + re.escape(prefix): "", **TIMM, **SAM2})
    moved = {names[name]: v for name, v in checked_values({n: weights[n] for n in trunk}).items()}
    notes = ["SAM 2's image trunk (its weights are Apache-2.0)"]
    if of_timm := _fold_layer_scale(moved):
        notes = [
            "timm's hieradet, with LayerScale folded into the layers before it; mind its licence"
        ]
    _compose(moved, "pos_embed_window", grid, antialias=False)
    names[prefix + "pos_embed_window"] = "pos_embed"
    # Windows of the last two stages are 14 and 7 tokens; in timm's own and the large one of SAM 2
    # (144 channels) 16 and 8.
    whole = (64, 64) if of_timm or moved["pos_embed"].shape[2] == 144 else (56, 56)
    if tuple(grid) != whole:
        notes.append("at this input size it attends in windows and Hiera does not: they differ")
    left_out = tuple(name for name in weights if name not in names)
    return Translation(moved, names, left_out, NORM, tuple(notes), composed=True)


def _block_names(names: Iterable[str], block: re.Pattern[str]) -> dict[str, str]:
    """Prefixes of blocks: ``encoder.stages.1.layers.0.`` is ``blocks.2.`` if stage 0 has two."""
    layers = sorted({(int(m[1]), int(m[2]), m[0]) for name in names if (m := block.match(name))})
    return {prefix: f"blocks.{i}." for i, (_, _, prefix) in enumerate(layers)}


def _rename(
    names: Mapping[str, Tensor] | list[str],
    patterns: Mapping[str, str],
    block: re.Pattern[str] | None = None,
) -> dict[str, str]:
    """Names in the file to published names; a ValueError if two become the same.

    Args:
        names: in the file.
        patterns: what is replaced, and by what.
        block: matches prefixes of blocks that are numbered by stage.
    """
    prefixes = _block_names(names, block) if block else {}
    renamed = {}
    for name in names:
        new = name
        if block and (match := block.match(name)):
            new = prefixes[match[0]] + name.removeprefix(match[0])
        for pattern, replacement in patterns.items():
            new = re.sub(pattern, replacement, new)
        renamed[name] = new
    repeated = [new for new, count in Counter(renamed.values()).items() if count > 1]
    if repeated:
        names_of_one = " and ".join(name for name, new in renamed.items() if new == repeated[0])
        raise ValueError(f"{names_of_one} are the same tensor of the network ({repeated[0]})")
    return renamed


def _check_transitions(weights: Mapping[str, Tensor]) -> None:
    """Raise a ValueError if a block widens its channels without a linear map."""
    for name, before in weights.items():
        block = name.removesuffix("norm1.weight")
        after = weights.get(f"{block}norm2.weight")
        if not name.startswith("blocks.") or block == name:  # perhaps of another network
            continue
        if after is None or before.shape == after.shape:
            continue
        if f"{block}proj.weight" not in weights:
            raise ValueError(
                f"{block}proj.weight is missing: this timm model widens channels by maximum and "
                "mean (use_expand_proj=False), which a Hiera as published cannot compute"
            )


def _fold_layer_scale(weights: dict[str, Tensor]) -> bool:
    """Fold LayerScale in place: ``gamma * (W x + b)`` is a layer with ``gamma W`` and ``gamma b``.

    Returns:
        Whether there was any.
    """
    scales = [name for name in weights if re.search(r"\.ls[12]\.gamma$", name)]
    for name in scales:
        block, scale, _ = name.rsplit(".", 2)
        layer = f"{block}.{'attn.proj' if scale == 'ls1' else 'mlp.fc2'}"
        gamma = weights.pop(name)
        for part in (f"{layer}.weight", f"{layer}.bias"):
            value = weights.get(part)
            if value is None or gamma.ndim != 1 or value.shape[:1] != gamma.shape:
                raise ValueError(f"{name} has no {part} of its size")
            weights[part] = value * gamma.unflatten(0, (-1, *[1] * (value.ndim - 1)))
    return bool(scales)


def _compose(
    weights: dict[str, Tensor], window: str, grid: tuple[int, ...], antialias: bool
) -> None:
    """Replace the two parts of a position embedding by their sum, in place."""
    within, across = weights.pop(window), weights.get("pos_embed")
    if across is None or across.ndim != 4 or within.ndim != 4:
        raise ValueError(f"{window} has no pos_embed to go with")
    if across.shape[:2] != within.shape[:2]:
        raise ValueError(f"{window} has no pos_embed of its size")
    weights["pos_embed"] = compose(across, within, grid, antialias)
