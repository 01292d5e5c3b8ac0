"""RandAugment (Cubuk et al., CVPR Workshops 2020) for clips, with one draw for all frames."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from hiera_video.augment import pil_ops, pytorchvideo_ops
from hiera_video.augment.affine import FILL
from hiera_video.augment.basic import RAND_AUGMENT_LEVEL_STREAM, RAND_AUGMENT_STREAM
from hiera_video.augment.random import normal, uniform

MAX_MAGNITUDE = 10


class Operation(NamedTuple):
    """One operation on a clip: its name, and its argument if it takes one."""

    name: str
    argument: float | None


# Computes the argument of an operation from a share (0 to 1) of the greatest magnitude and a sign
# (-1 or 1); None for an operation without an argument.
Argument = Callable[[float, int], float] | None


def _signed(scale: float, middle: float = 0.0) -> Argument:
    return lambda share, sign: middle + sign * share * scale


_TIMM: dict[str, Argument] = {
    "AutoContrast": None,
    "Equalize": None,
    "Invert": None,
    "Rotate": _signed(30.0),
    "PosterizeIncreasing": lambda share, _: 4 - int(share * 4),
    "SolarizeIncreasing": lambda share, _: 256 - int(share * 256),
    "SolarizeAdd": lambda share, _: int(share * 110),
    "ColorIncreasing": _signed(0.9, middle=1.0),
    "ContrastIncreasing": _signed(0.9, middle=1.0),
    "BrightnessIncreasing": _signed(0.9, middle=1.0),
    "SharpnessIncreasing": _signed(0.9, middle=1.0),
    "ShearX": _signed(0.3),
    "ShearY": _signed(0.3),
    "TranslateXRel": _signed(0.45),
    "TranslateYRel": _signed(0.45),
}
_PYTORCHVIDEO: dict[str, Argument] = {
    "AdjustBrightness": _signed(0.9, middle=1.0),
    "AdjustContrast": _signed(0.9, middle=1.0),
    "AdjustSaturation": _signed(0.9, middle=1.0),
    "AdjustSharpness": _signed(0.9, middle=1.0),
    "AutoContrast": None,
    "Equalize": None,
    "Invert": None,
    "Rotate": _signed(30.0),
    "Posterize": lambda share, _: 4 - int(share * 4),
    "Solarize": lambda share, _: 1.0 - share,
    "ShearX": _signed(0.3),
    "ShearY": _signed(0.3),
    "TranslateX": _signed(0.45),
    "TranslateY": _signed(0.45),
}
ARGUMENTS = {"timm": _TIMM, "pytorchvideo": _PYTORCHVIDEO}


class RandAugment:
    """Random operations, drawn for each clip and applied to all of its frames.

    Video recipes come from two codebases that mean different things by RandAugment:

    - ``timm``: what timm and PySlowFast call ``rand-m7-mstd0.5-inc1``. 15 operations on uint8
      frames as PIL does them, drawn with replacement; bicubic, filled with ``fill``.
    - ``pytorchvideo``: 14 operations of pytorchvideo 0.1.5 on float frames, drawn without
      replacement; bilinear, filled with 0.5. The last result is rounded to uint8.

    In both, a drawn operation is applied with a probability. Its magnitude is drawn from a normal
    distribution and clipped to [0, 10]; its direction is drawn if it has two.

    Args:
        magnitude: mean of the magnitude, in [0, 10].
        num_layers: operations drawn for each clip, at least 1.
        std: standard deviation of the magnitude, at least 0.
        probability: of applying a drawn operation.
        semantics: ``timm`` or ``pytorchvideo``.
        fill: of ``timm``: RGB levels, 0 to 255, of what a turned or shifted frame does not cover.
            timm's recipes of images have the mean, 124, 116, 104.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        magnitude: float = 7,
        num_layers: int = 2,
        std: float = 0.5,
        probability: float = 0.5,
        semantics: str = "timm",
        fill: Sequence[int] = FILL,
    ) -> None:
        if semantics not in ARGUMENTS:
            raise ValueError(f"semantics must be timm or pytorchvideo, not {semantics!r}")
        if not 0 <= magnitude <= MAX_MAGNITUDE:
            raise ValueError(f"magnitude must be in [0, {MAX_MAGNITUDE}], not {magnitude}")
        if not std >= 0:
            raise ValueError(f"std must be at least 0, not {std}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in [0, 1], not {probability}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, not {num_layers}")
        if semantics == "pytorchvideo" and num_layers > len(_PYTORCHVIDEO):
            raise ValueError(
                f"num_layers must be at most {len(_PYTORCHVIDEO)}, the operations that "
                f"pytorchvideo draws from without replacement, not {num_layers}"
            )
        if len(fill) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in fill):
            raise ValueError(f"fill must be three whole numbers in [0, 255], not {fill}")
        if semantics == "pytorchvideo" and tuple(fill) != FILL:
            raise ValueError(f"fill={fill} is for timm; pytorchvideo fills with 0.5")
        self.magnitude, self.num_layers, self.std = magnitude, num_layers, std
        self.probability, self.semantics, self.fill = probability, semantics, tuple(fill)

    def draw(self, seed: Tensor) -> list[list[Operation]]:
        """Draw the operations for each clip.

        Args:
            seed: int64 ``(B,)`` on the CPU.

        Returns:
            ``B`` lists of at most ``num_layers`` operations.
        """
        choices = uniform(seed, 3 * self.num_layers, stream=RAND_AUGMENT_STREAM)
        choices = choices.double().view(len(seed), self.num_layers, 3)
        levels = normal(seed, self.num_layers, stream=RAND_AUGMENT_LEVEL_STREAM).double()
        levels = (self.magnitude + self.std * levels).clamp(0, MAX_MAGNITUDE)
        drawn = zip(choices.tolist(), levels.tolist(), strict=True)
        return [self._operations(*numbers) for numbers in drawn]

    def _operations(self, choices: list[list[float]], levels: list[float]) -> list[Operation]:
        arguments = ARGUMENTS[self.semantics]
        names, operations = list(arguments), []
        for (which, applied, side), level in zip(choices, levels, strict=True):
            name = names[int(which * len(names))]
            if self.semantics == "pytorchvideo":
                names.remove(name)
            if applied < self.probability:
                argument, sign = arguments[name], -1 if side < 0.5 else 1
                value = argument and argument(level / MAX_MAGNITUDE, sign)
                operations.append(Operation(name, value))
        return operations

    def __call__(self, clip: Tensor, operations: Sequence[Operation]) -> Tensor:
        """Apply what was drawn for a clip.

        Args:
            clip: uint8 ``(3, T, H, W)``.
            operations: applied in this order.

        Returns:
            uint8 ``(3, T, H, W)``. ``timm`` gives whole levels after each operation, so devices
            differ in few pixels only, after one operation by one level.
        """
        if not operations:
            return clip
        clip = clip.contiguous()  # batches come with channels last in memory
        if self.semantics == "pytorchvideo":
            return pytorchvideo_ops.apply(clip, operations)
        return pil_ops.apply(clip, operations, self.fill)
