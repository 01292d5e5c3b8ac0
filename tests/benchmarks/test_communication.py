"""The model of communication against numbers worked out by hand and a simulated ring."""

import pytest
import torch

from benchmarks.communication import (
    INFINIBAND,
    STRATEGIES,
    Cluster,
    Sizes,
    communication,
    sent,
    sizes,
    step,
)
from tests.models.small import tiny_model

SIZES = Sizes((3_000_000,) * 20, 1_000_000)


@pytest.mark.parametrize("ring", [1, 2, 3, 5, 8])
def test_a_ring_sends_what_the_formula_says(ring):
    """Each rank passes one of `ring` chunks on: ring - 1 times to reduce, and again to gather."""
    size, held = 840, [[1] * ring for _ in range(ring)]
    bytes_sent = 0
    for turn in range(ring - 1):
        chunks = [(rank, (rank - turn) % ring) for rank in range(ring)]
        moved = [(rank, chunk, held[rank][chunk]) for rank, chunk in chunks]
        for rank, chunk, value in moved:
            held[(rank + 1) % ring][chunk] += value
        bytes_sent += size // ring
    assert all(held[rank][(rank + 1) % ring] == ring for rank in range(ring))
    assert sent(size, ring) == bytes_sent


def test_gradients_are_four_bytes_for_each_parameter():
    with torch.device("meta"):
        network = tiny_model()
    assert sizes(network).gradients == 4 * sum(p.numel() for p in network.parameters())


def test_seconds_by_hand():
    cluster = Cluster(node=2, nvlink=100.0, network=10.0, latency=0.0)
    # 80 bytes on 2 nodes of 2: 40 bytes within; of a half, 20 bytes to the other node.
    assert cluster.collective(80, 4, 1) == pytest.approx(40 / 100 + 20 / 10)
    parts = communication("hybrid", Sizes((20,), 5), 4, cluster)
    assert parts.forward == pytest.approx(20 / 100)  # 40 bytes in bfloat16, half of them sent
    assert parts.last == pytest.approx(40 / 100 + 2 * 20 / 10)
    assert parts.tail == pytest.approx(2 * 10 / 100 + 2 * 5 / 10)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_gpus_communicate_longer(strategy):
    steps = [step(strategy, SIZES, gpus, INFINIBAND, 0.05) for gpus in (8, 16, 64, 512)]
    times = [estimate.communication for estimate in steps]
    assert times == sorted(times)
    assert all(0 < estimate.efficiency <= 1 for estimate in steps)
