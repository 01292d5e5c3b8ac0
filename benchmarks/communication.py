"""A model of the time that training on many GPUs takes to communicate. Nothing here was measured.

A node has up to eight GPUs. A collective runs within the node first, then each GPU exchanges its
eighth with the other nodes. In a ring of N, each GPU sends (N - 1) / N of the data in one pass:
gathering and scattering are one pass, an all-reduce is two.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from hiera_video.models.sharding import products

STRATEGIES = ("ddp", "fsdp2", "hybrid")
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes: PyTorch's defaults for DDP
BACKWARD = 2 / 3  # share of the backward pass in a step
OVERLAP = 0.8  # share of a pass during which communication can run; assumed


@dataclass(frozen=True)
class Cluster:
    """GPUs and what connects them; data sheets' values, of which real ones fall short.

    Attributes:
        node: GPUs of a node.
        nvlink: bytes per second that a GPU sends within its node.
        network: bytes per second that a GPU sends to other nodes.
        latency: seconds of one hop of a ring; assumed.
    """

    node: int = 8
    nvlink: float = 450e9  # NVLink 4 (H100, H200), one direction
    network: float = 50e9  # a 400 Gb/s InfiniBand port for each GPU
    latency: float = 5e-6

    def split(self, gpus: int) -> tuple[int, int]:
        """GPUs of a node and number of nodes; `gpus` fits in one node or fills several."""
        local = min(gpus, self.node)
        return local, math.ceil(gpus / local)

    def within(self, size: float, ring: int, passes: int) -> float:
        """Seconds of a collective of `size` bytes on `ring` GPUs of one node."""
        return passes * (sent(size, ring) / self.nvlink + (ring - 1) * self.latency)

    def across(self, size: float, ring: int, passes: int) -> float:
        """Seconds of a collective in which a GPU of each of `ring` nodes holds `size` bytes."""
        return passes * (sent(size, ring) / self.network + (ring - 1) * self.latency)

    def collective(self, size: float, gpus: int, passes: int) -> float:
        """Seconds of a collective of `size` bytes on all GPUs, in `passes` of a ring."""
        local, nodes = self.split(gpus)
        return self.within(size, local, passes) + self.across(size / local, nodes, passes)


INFINIBAND = Cluster()
ETHERNET = Cluster(network=25e9 / 8 / 8)  # 25 Gb/s shared by the eight GPUs of a node


class Sizes(NamedTuple):
    """Numbers of parameters of a network.

    Attributes:
        products: of each matrix product that FSDP2 shards by itself.
        rest: of all others together, which FSDP2 gathers once.
    """

    products: tuple[int, ...]
    rest: int

    @property
    def gradients(self) -> int:
        """Bytes of all gradients, which are float32 also under ``bf16-mixed``."""
        return 4 * (sum(self.products) + self.rest)


class Communication(NamedTuple):
    """Seconds of communication in a step.

    Attributes:
        forward: what the forward pass of each batch can hide.
        backward: what the backward pass of each batch can hide.
        last: what the backward pass of a step's last batch can hide as well.
        bare: what nothing can hide in each batch: gathering what FSDP2 holds outside the products.
        tail: what nothing can hide in a step: the last bucket of DDP, or the gradients of those
            parameters.
    """

    forward: float
    backward: float
    last: float
    bare: float
    tail: float


class Step(NamedTuple):
    """Seconds of a step: computing, communicating, and communicating while nothing computes."""

    compute: float
    communication: float
    exposed: float

    @property
    def efficiency(self) -> float:
        """Share of the step in which the GPU computes, in (0, 1]."""
        return self.compute / (self.compute + self.exposed)


def sent(size: float, ring: int) -> float:
    """Bytes that each of `ring` GPUs sends to gather or to reduce and scatter `size` bytes."""
    return size * (ring - 1) / ring


def sizes(network: nn.Module) -> Sizes:
    """Count the parameters of a network, as `hiera_video.models.sharding.shard` groups them."""
    parts = tuple(sum(p.numel() for p in part.parameters()) for part in products(network))
    return Sizes(parts, sum(p.numel() for p in network.parameters()) - sum(parts))


def communication(strategy: str, network: Sizes, gpus: int, cluster: Cluster) -> Communication:
    """Seconds of communication for a batch that is a step.

    Args:
        strategy: one of `STRATEGIES`. Hybrid shards within a node and replicates across nodes;
            this project does not support it.
        network: its parameters; matrix products are gathered in bfloat16, the rest in float32.
        gpus: of all nodes; 8 or fewer, or a multiple of 8.
        cluster: what connects them.
    """
    if strategy == "ddp":
        return _ddp(network.gradients, lambda size: cluster.collective(size, gpus, 2))
    local, nodes = cluster.split(gpus)
    if strategy == "fsdp2":
        nodes = 1  # nothing is replicated

    def one_pass(size: float) -> float:
        if strategy == "fsdp2":
            return cluster.collective(size, gpus, 1)
        return cluster.within(size, local, 1)

    def replicate(size: float) -> float:
        return cluster.across(size / local, nodes, 2)

    gather = sum(one_pass(2 * count) for count in network.products)
    scatter = sum(one_pass(4 * count) + replicate(4 * count) for count in network.products)
    rest = 4 * network.rest
    return Communication(gather, gather, scatter, one_pass(rest), one_pass(rest) + replicate(rest))


def _ddp(gradients: int, all_reduce: Callable[[float], float]) -> Communication:
    """All buckets but the last are sent during the backward pass."""
    final = min(BUCKET, gradients)
    others = gradients - final
    first = min(FIRST_BUCKET, others)
    full, part = divmod(others - first, BUCKET)
    buckets = [size for size in (first, part) if size] + [BUCKET] * full
    return Communication(0.0, 0.0, sum(map(all_reduce, buckets)), 0.0, all_reduce(final))


def step(
    strategy: str, network: Sizes, gpus: int, cluster: Cluster, batch: float, batches: int = 1
) -> Step:
    """Estimate a step of the optimiser.

    Args:
        strategy: as in `communication`; likewise the next three.
        network: its parameters.
        gpus: number of them.
        cluster: what connects them.
        batch: seconds that a GPU computes for a batch.
        batches: accumulated for a step, after the last of which gradients are exchanged.
    """
    parts = communication(strategy, network, gpus, cluster)
    forward, backward = OVERLAP * (1 - BACKWARD) * batch, OVERLAP * BACKWARD * batch
    exposed = batches * (parts.bare + max(0.0, parts.forward - forward)) + parts.tail
    exposed += (batches - 1) * max(0.0, parts.backward - backward)
    exposed += max(0.0, parts.backward + parts.last - backward)
    total = batches * (parts.forward + parts.backward + parts.bare) + parts.last + parts.tail
    return Step(batches * batch, total, exposed)


def hiding_batch(parts: Communication, clip: float) -> int:
    """Fewest clips of a GPU whose computation hides all communication but `bare` and `tail`.

    Args:
        parts: as `communication` returns them.
        clip: seconds that a GPU computes for a clip.
    """
    forward = parts.forward / (OVERLAP * (1 - BACKWARD) * clip)
    backward = (parts.backward + parts.last) / (OVERLAP * BACKWARD * clip)
    return max(1, math.ceil(max(forward, backward)))
