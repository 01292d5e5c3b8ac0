"""A classifier as a graph that runs without this package: ``torch.export`` and ONNX."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from hiera_video.augment.basic import Normalize

OPSET = 20  # of ONNX: the first that has both Gelu and LayerNormalization
BATCHES = (1, 3)  # batch sizes at which a graph is compared; it is traced at 2
# An ONNX file is a protocol buffer, which ends at 2 GiB; larger weights go into a file beside it.
ONE_FILE = 1_900_000_000


class Difference(NamedTuple):
    """How far a graph's logits are from those of PyTorch, over all inputs tried.

    Attributes:
        absolute: the largest difference; NaN if the shapes differ.
        relative: the same, as a share of the largest logit.
    """

    absolute: float
    relative: float


class WithNormalisation(nn.Module):
    """A classifier of uint8 videos."""

    def __init__(self, model: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.model, self.normalize = model, normalize

    def forward(self, video: Tensor) -> Tensor:
        """Classify uint8 ``(B, 3, T, H, W)`` or ``(B, 3, H, W)``: logits ``(B, classes)``."""
        return self.model(self.normalize(video))


def random_input(shape: Sequence[int], uint8: bool, seed: int = 0) -> Tensor:
    """A random input.

    Args:
        shape: shape of the result.
        uint8: pixels in [0, 255], uint8; else standard normal float32, as after normalisation.
        seed: seed of the numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    if uint8:
        return torch.randint(0, 256, tuple(shape), dtype=torch.uint8, generator=generator)
    return torch.randn(tuple(shape), generator=generator)


def trace(model: nn.Module, shape: Sequence[int], uint8: bool) -> ExportedProgram:
    """Trace the graph of a model in evaluation mode, for batches of any size.

    Args:
        model: on the CPU; its parameters no longer require gradients afterwards.
        shape: shape of one input, ``(3, T, H, W)`` or ``(3, H, W)``.
        uint8: the model takes pixels, like `WithNormalisation`; else float32.
    """
    model = model.eval().requires_grad_(False)
    example = random_input((2, *shape), uint8)
    batch = Dim("batch", min=1)
    program = torch.export.export(model, (example,), dynamic_shapes={"video": {0: batch}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it holds paths of this machine
    return program


def save_pt2(program: ExportedProgram, file: Path) -> None:
    """Write a file that ``torch.export.load`` reads."""
    torch.export.save(program, file)


def save_onnx(program: ExportedProgram, file: Path) -> None:
    """Write ONNX of opset 20; weights beyond 2 GiB go into ``FILE.data`` beside it.

    Raises:
        ImportError: the packages of the extra ``export`` are not installed.
    """
    onnx: Any = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["video"],
        output_names=["logits"],
        opset_version=OPSET,
        verbose=False,
    )
    _name_batch(onnx.model)
    for holder in (*onnx.model.graph, *onnx.model.graph.inputs, *onnx.model.graph.outputs):
        holder.metadata_props.clear()  # left by tracing, as large as the graph itself
    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    onnx.save(str(file), external_data=size > ONE_FILE)


def _name_batch(model: Any) -> None:
    """Name the first axis ``batch``, in place of the name that tracing gave it."""
    import onnx_ir

    (video,), (logits,) = model.graph.inputs, model.graph.outputs
    for value in (video, logits):
        value.shape = onnx_ir.Shape(["batch", *value.shape[1:]])


def run_pt2(file: Path) -> Callable[[Tensor], Tensor]:
    """The graph of a file as a function from a batch of inputs to logits ``(B, classes)``."""
    return torch.export.load(file).module()


def run_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    """As `run_pt2`, for an ONNX file, which is checked first."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda video: torch.from_numpy(session.run(["logits"], {"video": video.numpy()})[0])


@torch.no_grad()
def compare(
    run: Callable[[Tensor], Tensor], model: nn.Module, shape: Sequence[int], uint8: bool
) -> Difference:
    """Run a graph and its model on random inputs, in batches of `BATCHES`.

    Args:
        run: the graph: a batch to logits ``(B, classes)``.
        model: what was traced.
        shape: as in `trace`.
        uint8: as in `trace`.
    """
    absolute, largest = [], []
    for batch in BATCHES:
        video = random_input((batch, *shape), uint8, seed=batch)
        expected, computed = model(video).double(), run(video).double()
        if computed.shape != expected.shape:
            return Difference(float("nan"), float("nan"))
        absolute.append((computed - expected).abs().max())
        largest.append(expected.abs().max())
    difference, scale = torch.stack(absolute).max(), torch.stack(largest).max()
    return Difference(float(difference), float(difference / scale))
