"""Where in a clip a network looks: Grad-CAM and occlusion, over space and time.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", 2017, arXiv:1610.02391. Zeiler and Fergus, "Visualizing and Understanding
Convolutional Networks", 2014, arXiv:1311.2901, section 4.2.

Legend: B clips, C channels, T H W a clip's pixels, T' H' W' a stage's map of tokens.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.errors import ChoiceError
from hiera_video.models.hiera import Hiera
from hiera_video.models.token_order import join_units
from hiera_video.predicting.batches import CLIPS_AT_ONCE, ClipNetwork
from hiera_video.terminal import did_you_mean

METHODS = ("grad_cam", "occlusion")
SHARES = (2, 4, 4)  # a cuboid has half of the frames by default, a quarter of height and width

Show = Callable[[int, int], None]  # called with the number of passes done, and that of all


def silent(done: int, total: int) -> None:
    """Show nothing."""


class Saliency(NamedTuple):
    """A clip, and how much each of its places speaks for a class or an action.

    Attributes:
        clip: what the model sees, uint8 ``(T, H, W, 3)``.
        map: float32 ``(T, H, W)`` in [0, 1]: 1 at the strongest place, 0 where nothing speaks for
            the label or something speaks against it. All 0 if no place speaks for it.
        peak: what a 1 in the map stands for. Occlusion: how far the probability falls. Grad-CAM:
            a number without a unit, to compare only with that of the same model and stage.
        label: the class or the action.
        probability: that the model gives this clip, in [0, 1].
        method: ``grad_cam`` or ``occlusion``.
        times: seconds from the start of the video to each frame, float64 ``(T,)``, evenly spaced.
            Before 0 and after ``last``, the clip repeats the first and the last frame.
        box: the person: x1, y1, x2, y2 in [0, 1] of the clip; None for a classifier.
        last: when the last frame of the video starts, seconds.
    """

    clip: np.ndarray
    map: np.ndarray
    peak: float
    label: str
    probability: float
    method: str
    times: np.ndarray
    box: tuple[float, float, float, float] | None = None
    last: float = math.inf

    @property
    def shown_times(self) -> np.ndarray:
        """The times of the frames that the clip shows, within the video: float64 ``(T,)``."""
        return self.times.clip(0, self.last)


def grad_cam(layer: nn.Module, score: Callable[[], Tensor]) -> Tensor:
    """Grad-CAM of a layer: its channels, weighted by how much each of them raises a score.

    The weight of a channel is the sum of the score's gradient over all places (the paper has the
    mean; sums keep gradients in range in half precision). No gradient is kept in the model.

    Args:
        layer: a module that ``score`` runs, whose output has channels last: ``(1, ..., C)``.
        score: runs the network on one clip and returns one number, such as a logit.

    Returns:
        float32 ``(...)``, the places of the layer's output; not negative.

    Raises:
        RuntimeError: the score does not depend on the layer.
    """
    outputs: list[Tensor] = []

    def start_here(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        # As a leaf, it needs a gradient even if the weights are frozen, and nothing before it does.
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    hook = layer.register_forward_hook(start_here)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            number = score().float()
            features = outputs[0]  # (1, ..., C)
            places = features[0, ..., 0].numel()
            (gradient,) = torch.autograd.grad(number * places, features)
    finally:
        hook.remove()
    channels = features.shape[-1]
    weights = gradient.float().reshape(-1, channels).mean(dim=0)  # (C,)
    return (features.detach()[0].float() @ weights).relu()


def stage_cam(model: Hiera, stage: int, score: Callable[[], Tensor]) -> Tensor:
    """Grad-CAM at the end of a stage of Hiera.

    Args:
        model: a network of videos.
        stage: 1 for the first.
        score: as in `grad_cam`.

    Returns:
        float32 ``(T', H', W')``, not negative.

    Raises:
        ChoiceError: no such stage.
    """
    if not 1 <= stage <= len(model.stage_ends):
        raise ChoiceError(f"stage must be 1 to {len(model.stage_ends)}, not {stage}")
    tokens = grad_cam(model.blocks[model.stage_ends[stage - 1]], score)  # (U, L)
    units = model.unit_maps(tokens[None, :, :, None], stage - 1)  # (1, U, t, h, w, 1)
    cam = join_units(units, model.unit_grid)[0, ..., 0]  # (T', H', W'), (H', W') of images
    return cam.reshape(-1, *cam.shape[-2:])  # (T', H', W')


def occlusion(
    probability: Callable[[Tensor], Tensor],
    video: Tensor,
    cuboid: Sequence[int],
    show: Show = silent,
) -> Tensor:
    """How far a probability falls when a grey cuboid hides a place.

    The cuboid moves by half its length along each axis, at least by one; its last place reaches
    the border. A pixel has the mean of all cuboids that hide it.

    Args:
        probability: of normalised clips ``(B, 3, T, H, W)``: float ``(B,)``.
        video: a normalised clip, float ``(3, T, H, W)``.
        cuboid: its frames, height and width, at most those of the clip.
        show: called with the number of clips that are done, and that of all.

    Returns:
        float32 ``(T, H, W)`` on the clip's device; negative where hiding raises the probability.
    """
    size = video.shape[1:]
    places = list(product(*(_starts(n, c) for n, c in zip(size, cuboid, strict=True))))
    whole = probability(video[None])[0].float()
    total, times = torch.zeros(2, *size, device=video.device)
    for first in range(0, len(places), CLIPS_AT_ONCE):
        batch = places[first : first + CLIPS_AT_ONCE]
        hidden = [
            tuple(slice(s, s + c) for s, c in zip(place, cuboid, strict=True)) for place in batch
        ]
        clips = video.repeat(len(batch), 1, 1, 1, 1)  # (B, 3, T, H, W)
        for clip, where in zip(clips, hidden, strict=True):
            clip[:, *where] = 0  # the mean colour of the training's normalisation
        falls = whole - probability(clips).float()
        for fall, where in zip(falls, hidden, strict=True):
            total[where] += fall
            times[where] += 1
        show(first + len(batch), len(places))
    return total / times


def _starts(length: int, size: int) -> list[int]:
    """Where a cuboid begins along one axis."""
    return [*range(0, length - size, max(1, size // 2)), length - size]


def saliency_map(
    network: ClipNetwork,
    clip: np.ndarray,
    index: int,
    probabilities: Callable[[Tensor], Tensor],
    inputs: Callable[[int], dict[str, Tensor]],
    method: str,
    stage: int | None = None,
    cuboid: Sequence[int] | None = None,
    show: Show = silent,
) -> tuple[np.ndarray, float]:
    """The map of a clip for one class or action.

    Args:
        network: gives logits ``(B, classes)``.
        clip: uint8 ``(T, H, W, 3)``.
        index: of the class.
        probabilities: from logits ``(B, classes)``.
        inputs: what the network takes besides the video, for that number of copies of the clip.
        method: one of `METHODS`.
        stage: for ``grad_cam``, 1 for the first; None: the last.
        cuboid: for ``occlusion``, frames, height and width of what hides a place; None: half of
            the frames, a quarter of height and width.
        show: as in `occlusion`.

    Returns:
        The map, float32 ``(T, H, W)`` in [0, 1], and what a 1 in it stands for, as in `Saliency`.

    Raises:
        ChoiceError: no such method or stage, or a cuboid that does not fit into the clip.
    """
    check_method(method, stage, cuboid)
    pixels = torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3)  # (1, 3, T, H, W)
    if method == "grad_cam":
        model = network.network
        if not isinstance(model, Hiera):
            raise ChoiceError(f"{type(model).__name__} has no stages; use occlusion")
        with torch.inference_mode(False), torch.no_grad():
            video = network.normalize(pixels.to(network.device))

        def score() -> Tensor:
            return network.run_with_gradient(video, **inputs(1))[0, index]

        cam = stage_cam(model, stage or len(model.stage_ends), score)
        size = clip.shape[:3]
        raw = F.interpolate(cam[None, None], size, mode="trilinear")[0, 0]  # (T, H, W)
    else:
        cuboid = _checked_cuboid(cuboid, clip.shape[:3])
        with torch.inference_mode():

            def probability(video: Tensor) -> Tensor:
                logits = network.run(video, **inputs(len(video)))
                return probabilities(logits.float())[:, index]

            raw = occlusion(probability, network.normalized(pixels)[0], cuboid, show)
    raw = raw.clamp(min=0).cpu().numpy()
    peak = float(raw.max())
    return (raw / peak if peak > 0 else raw), peak


def check_method(
    method: str, stage: int | None = None, cuboid: Sequence[int] | None = None
) -> None:
    """Raise a ChoiceError unless there is such a method, and it takes what is given."""
    if method not in METHODS:
        raise ChoiceError(
            f"method must be {' or '.join(METHODS)}, not {method!r}{did_you_mean(method, METHODS)}"
        )
    if method == "occlusion" and stage is not None:
        raise ChoiceError("occlusion has no stage; a stage is for grad_cam")
    if method == "grad_cam" and cuboid is not None:
        raise ChoiceError("grad_cam hides nothing; a cuboid is for occlusion")


def class_index(class_names: Sequence[str], label: str) -> int:
    """The index of a class.

    Raises:
        ChoiceError: there is no such class.
    """
    if label not in class_names:
        raise ChoiceError(f"no class {label!r}{did_you_mean(label, class_names)}")
    return class_names.index(label)


def _checked_cuboid(cuboid: Sequence[int] | None, size: Sequence[int]) -> tuple[int, ...]:
    if cuboid is None:
        return tuple(max(1, n // share) for n, share in zip(size, SHARES, strict=True))
    if len(cuboid) != 3 or not all(1 <= c <= n for c, n in zip(cuboid, size, strict=True)):
        raise ChoiceError(
            f"cuboid must be frames, height and width, at most {tuple(size)}, not {tuple(cuboid)}"
        )
    return tuple(cuboid)
