"""Bytes that a training step allocates, found without that memory.

Forward and backward pass run on torch's meta device, whose tensors have a shape and no data. What
is alive after an operation is what a step in eager mode has allocated then: tensors kept for the
backward pass, copies of weights in half precision, and intermediate results. In two things meta
tensors differ from those of a CPU or GPU, and `DeviceKernels` makes them alike:

- Attention is a fused kernel. It keeps queries, keys, values, the output and one float32 for each
  query, but no matrix of attention weights.
- Autocast does not know the meta device. Its casts are made here: matrix products, convolutions and
  attention in half precision, and on a GPU LayerNorm in float32.

Of what kernels use inside, the sums of `attention_sums` count; the workspace of a convolution, for
one, does not.
"""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from hiera_video.models import window_attention
from hiera_video.models.blocks import HieraBlock

HALF_PRECISION = (
    *(F.linear, F.conv2d, F.conv3d, F.conv_transpose2d),
    *(torch.matmul, Tensor.matmul, torch.bmm),
)
FUSED_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
# FlashAttention 2 pads what its backward pass sums up to multiples of these numbers of queries and
# channels (`dq_accum` in its `mha_bwd`).
TILE = 128, 32
# Two batches tell what all others need. With a single clip, some copies would be views.
BATCHES = (2, 3)


class Activations(NamedTuple):
    """Bytes that are alive after each operation, as a linear function of the number of clips.

    Attributes:
        fixed: int64 ``(operations,)``, for any batch: mostly copies of weights.
        per_clip: int64 ``(operations,)``.
    """

    fixed: Tensor
    per_clip: Tensor

    def peak(self, clips: int) -> int:
        """The most bytes that are alive at once in a step with so many clips."""
        return int((self.fixed + clips * self.per_clip).max())


def activations(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    video_size: tuple[int, ...],
    autocast: torch.dtype | None = None,
    gpu: bool = True,
) -> Activations:
    """Count what is alive in a step whose gradients are added to those of an earlier batch.

    Args:
        network: on the meta device, in training mode.
        loss: computes a scalar with `network` from a float32 batch of clips. The batch counts until
            the backward pass, and then if that needs it.
        video_size: of a clip, ``(3, T, H, W)``.
        autocast: the type that autocast computes products in; None: no autocast.
        gpu: count as on a GPU; else as on a CPU.
    """
    few, more = (
        torch.tensor(_live_bytes(network, loss, (clips, *video_size), autocast, gpu))
        for clips in BATCHES
    )
    per_clip = (more - few) // (BATCHES[1] - BATCHES[0])
    return Activations(few - BATCHES[0] * per_clip, per_clip)


def _live_bytes(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    autocast: torch.dtype | None,
    gpu: bool,
) -> list[int]:
    weights = [p for p in network.parameters() if p.requires_grad]
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    kernels = DeviceKernels(autocast, gpu)
    ignored = [*network.parameters(), *network.buffers(), *gradients]
    with LiveBytes(ignored, attention_sums if gpu else None) as live, kernels.within(network):
        with kernels:
            value = loss(torch.empty(shape, device="meta"))
        kernels.copies = None  # autocast ends; each block that is recomputed makes its own
        value.backward()
    network.zero_grad()
    return live.history


class LiveBytes(TorchDispatchMode):
    """Notes after each operation how many bytes the tensors that were made in this mode hold.

    Args:
        ignored: tensors that do not count, nor do views of them.
        inside: bytes that an operation also holds while it runs; None: none does.

    Attributes:
        history: the bytes after each operation, with those inside.
    """

    def __init__(
        self, ignored: Iterable[Tensor], inside: Callable[[Any, Any], int] | None = None
    ) -> None:
        super().__init__()
        self._inside = inside
        self.history: list[int] = []
        self._bytes = 0
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in ignored)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the memory that its results occupy."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.history.append(self._bytes + (self._inside(func, args) if self._inside else 0))
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self._bytes += storage.nbytes()
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self._bytes -= size


def attention_sums(func: Any, args: Sequence[Any]) -> int:
    """Bytes of the float32 gradients of queries that FlashAttention 2 sums up in half precision.

    They matter where there are few queries: 16 of them take the room of 128. A batch of more rows
    than `attend` takes at once needs less than that. Windows have kernels of their own, which sum
    up nothing in memory; where these do not run (`window_attention.takes`), more is needed.

    Args:
        func: any operation.
        args: its arguments.

    Returns:
        The bytes; 0 for another operation, and in float32, for which it is not made.
    """
    if func is not ATTENTION_BACKWARD:
        return 0
    query, key = args[1:3]  # (rows, heads, queries or keys, c)
    (queries, channels), keys = query.shape[2:], key.shape[2]
    if query.dtype == torch.float32 or window_attention.fits(queries, keys, channels):
        return 0
    padded = (math.ceil(n / tile) * tile for n, tile in zip(query.shape[2:], TILE, strict=True))
    return math.prod((*query.shape[:2], *padded)) * torch.float32.itemsize


class DeviceKernels(TorchFunctionMode):
    """Lets meta tensors take the kernels and types of a CPU or GPU.

    Args:
        autocast: the type that autocast computes products in; None: no autocast.
        gpu: whether autocast computes LayerNorm in float32.

    Attributes:
        copies: of weights in half precision, which autocast keeps during a forward pass; None: each
            use makes a new one.
    """

    def __init__(self, autocast: torch.dtype | None, gpu: bool) -> None:
        super().__init__()
        self.autocast, self.gpu = autocast, gpu
        self.copies: dict[Tensor, Tensor] | None = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch."""
        kwargs = kwargs or {}
        attends = func is F.scaled_dot_product_attention
        if self.autocast and (attends or func in HALF_PRECISION):
            args, kwargs = tree_map(self._half, (args, kwargs))
        elif self.autocast and self.gpu and func is F.layer_norm:
            args, kwargs = tree_map(_float32, (args, kwargs))
        if attends and len(args) == 3 and not kwargs:
            return FUSED_ATTENTION(*args)[0]
        return func(*args, **kwargs)

    @contextmanager
    def within(self, network: nn.Module) -> Iterator[None]:
        """Enter the mode whenever a block of the network runs.

        Checkpointing runs blocks again in the backward pass, and there a mode that was entered
        before does not hold.
        """

        def enter(*_: Any) -> None:
            self.__enter__()

        def leave(*_: Any) -> None:
            self.__exit__(None, None, None)

        hooks = []
        for module in network.modules():
            if isinstance(module, HieraBlock):
                hooks.append(module.register_forward_pre_hook(enter))
                # Also after an exception: recomputing a block stops once it has all it needs.
                hooks.append(module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _half(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if self.copies is None or not (value.is_leaf and value.requires_grad):
            return value.to(self.autocast)
        if value not in self.copies:
            self.copies[value] = value.to(self.autocast)
        return self.copies[value]


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
