"""Forward and backward passes that the host starts with one call each, as CUDA graphs.

Without them the host takes longer to start the kernels of a small network than a GPU to run them.
`torch.cuda.make_graphed_callables` does much the same, but keeps the autograd graph of what it
recorded, whose nodes then wait for another stream in each step (torch 2.11 warns of it).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

WARM_UPS = 3  # compiled code and libraries are loaded before anything is recorded


class RecordedPass:
    """Outputs and gradients, recorded once and replayed for other inputs of the same shapes.

    Random numbers are new in each replay. All that the work reads besides its inputs must stay
    where it is in memory, as parameters do. The next replay overwrites outputs and gradients.

    Args:
        work: returns a tensor, or a tuple whose first tensor alone is differentiated. It must not
            wait for the device, or depend on values of its inputs in Python.
        parameters: that get gradients.
        inputs: tensors on a GPU, without gradient.
    """

    def __init__(
        self,
        work: Callable[..., Any],
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
        # Warming up must not use up random numbers: a run that goes on from a checkpoint records at
        # another step than one that was not stopped, and would then draw others.
        same_draws = torch.random.fork_rng([torch.cuda.current_device()])
        with same_draws, context, torch.enable_grad(), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                outputs = tree_flatten(work(*self.inputs))[0]
                ones = torch.ones_like(outputs[0])
                torch.autograd.grad(outputs[0], self.parameters, ones, allow_unused=True)
                del outputs
            torch.cuda.empty_cache()  # recorded passes have memory of their own
            # Other threads may use the device meanwhile, to copy the next batch.
            with torch.cuda.graph(self.forward, stream=stream, capture_error_mode="thread_local"):
                (first, *others), self.structure = tree_flatten(work(*self.inputs))
            self.weight = torch.ones_like(first)  # its gradient
            with torch.cuda.graph(
                self.backward,
                pool=self.forward.pool(),
                stream=stream,
                capture_error_mode="thread_local",
            ):
                self.gradients = torch.autograd.grad(
                    first, self.parameters, self.weight, allow_unused=True
                )
        torch.cuda.current_stream().wait_stream(stream)
        self.first, self.others = first.detach(), [tensor.detach() for tensor in others]

    def __call__(self, *inputs: Tensor) -> Any:
        """Replay the work.

        Args:
            *inputs: of the same shapes and types as the recorded ones.

        Returns:
            What the work returns. The backward pass of its first tensor is a replay, too.

        Raises:
            ValueError: inputs of other shapes.
        """
        for kept, tensor in zip(self.inputs, inputs, strict=True):
            if kept.shape != tensor.shape:
                raise ValueError(
                    f"the recorded step takes {tuple(kept.shape)}, not {tuple(tensor.shape)}"
                )
            kept.copy_(tensor)
        first = _Replay.apply(self, *self.parameters)
        return tree_unflatten([first, *self.others], self.structure)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recorded: RecordedPass, *parameters: Tensor) -> Tensor:
        ctx.recorded = recorded
        recorded.forward.replay()
        return recorded.first.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        recorded = ctx.recorded
        recorded.weight.copy_(grad_outputs[0])
        recorded.backward.replay()
        return None, *(g if g is None else g.detach() for g in recorded.gradients)
