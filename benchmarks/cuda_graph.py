"""Forward and backward passes that the host starts with one call each: what they would save.

Not a part of the package yet. `gpu.py` prints how far its gradients are from those of the published
code.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WARM_UPS = 3  # compiled code and libraries are loaded before anything is recorded


class StepGraph:
    """A loss and its gradients, recorded once and replayed for other inputs of the same shapes.

    Without it, the host takes longer to start the kernels of a small network than the GPU to run
    them. Random numbers are new in each replay. All that the work reads besides its inputs must
    stay where it is in memory, as parameters do.

    Args:
        work: returns a scalar loss, then any tensors without gradient. It must not wait for the
            device, or depend on values of its inputs in Python.
        parameters: that the loss depends on.
        inputs: tensors on a GPU, without gradient.
    """

    def __init__(
        self,
        work: Callable[..., tuple[Tensor, ...]],
        parameters: Sequence[nn.Parameter],
        inputs: Sequence[Tensor],
    ) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.inputs = [tensor.clone() for tensor in inputs]
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Casts of weights that autocast remembers would not be repeated in a replay.
        context = torch.autocast(
            "cuda",
            torch.get_autocast_dtype("cuda"),
            torch.is_autocast_enabled("cuda"),
            cache_enabled=False,
        )
        with context, torch.enable_grad(), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                loss = work(*self.inputs)[0]
                torch.autograd.grad(loss, self.parameters, allow_unused=True)
            torch.cuda.empty_cache()  # recorded passes have memory of their own
            # Other threads may use the device meanwhile, to copy the next batch.
            with torch.cuda.graph(self.forward, stream=stream, capture_error_mode="thread_local"):
                loss, *others = work(*self.inputs)
            self.weight = torch.ones_like(loss)  # of the loss in the gradients
            with torch.cuda.graph(
                self.backward,
                pool=self.forward.pool(),
                stream=stream,
                capture_error_mode="thread_local",
            ):
                self.gradients = torch.autograd.grad(
                    loss, self.parameters, self.weight, allow_unused=True
                )
        torch.cuda.current_stream().wait_stream(stream)
        self.loss, self.others = loss.detach(), [tensor.detach() for tensor in others]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Replay the work.

        Args:
            *inputs: of the same shapes and types as the recorded ones.

        Returns:
            The loss, whose backward pass is replayed too, and the other tensors.

        Raises:
            ValueError: inputs of other shapes.
        """
        for kept, tensor in zip(self.inputs, inputs, strict=True):
            if kept.shape != tensor.shape:
                raise ValueError(
                    f"the recorded step takes {tuple(kept.shape)}, not {tuple(tensor.shape)}"
                )
            kept.copy_(tensor)
        loss = _Replay.apply(self, *self.parameters)
        return loss, *(tensor.clone() for tensor in self.others)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: StepGraph, *parameters: Tensor) -> Tensor:
        ctx.graph = graph
        graph.forward.replay()
        return graph.loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        graph = ctx.graph
        graph.weight.copy_(grad_outputs[0])
        graph.backward.replay()
        # Copies: the next replay must not change gradients that are being accumulated.
        return None, *(None if g is None else g.clone() for g in graph.gradients)
