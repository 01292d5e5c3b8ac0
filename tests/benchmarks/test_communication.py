"""The model of communication against numbers by hand, a simulated ring, and two processes."""

import math

import pytest
import torch
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from benchmarks.communication import (
    ETHERNET,
    INFINIBAND,
    STRATEGIES,
    Cluster,
    Sizes,
    communication,
    hiding_batch,
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
    assert parts.backward == parts.forward
    assert parts.last == pytest.approx(40 / 100 + 2 * 20 / 10)
    assert parts.bare == pytest.approx(10 / 100)
    assert parts.tail == pytest.approx(10 / 100 + 2 * 5 / 10)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_gpus_communicate_longer(strategy):
    steps = [step(strategy, SIZES, gpus, INFINIBAND, 0.05) for gpus in (8, 16, 64, 512)]
    times = [estimate.communication for estimate in steps]
    assert times == sorted(times)
    assert all(0 < estimate.efficiency <= 1 for estimate in steps)


def test_ddp_splits_gradients_into_buckets():
    """60 MiB: 1 and 25 and 9 during the backward pass, and 25 after it."""
    gradients = Sizes((), 60 * 2**20 // 4)
    hops = Cluster(node=2, nvlink=math.inf, latency=1.0)
    parts = communication("ddp", gradients, 2, hops)  # an all-reduce of two: two hops
    assert (parts.last, parts.tail) == (3 * 2, 2)
    bytes_alone = Cluster(node=2, nvlink=2**20, latency=0.0)
    parts = communication("ddp", gradients, 2, bytes_alone)  # half of the bytes, twice
    assert (parts.last, parts.tail) == (35, 25)


def test_fsdp2_sends_what_is_counted_by_hand():
    """Each of four GPUs sends three quarters of all that is gathered or reduced."""
    cluster = Cluster(node=4, nvlink=1.0, latency=0.0)
    parts = communication("fsdp2", Sizes((40, 80), 20), 4, cluster)
    assert parts.forward == 0.75 * 2 * 120
    assert parts.backward == 0.75 * 2 * 120
    assert parts.last == 0.75 * 4 * 120
    assert parts.bare == parts.tail == 0.75 * 4 * 20
    assert step("fsdp2", Sizes((40, 80), 20), 4, cluster, 1.0).communication == 840
    # Of a second batch, only the parameters are gathered.
    assert step("fsdp2", Sizes((40, 80), 20), 4, cluster, 1.0, 2).communication == 840 + 360 + 60


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("cluster", [INFINIBAND, ETHERNET])
def test_the_hiding_batch_is_the_smallest(strategy, cluster):
    clip = 1e-3
    parts = communication(strategy, SIZES, 64, cluster)
    fewest = hiding_batch(parts, clip)
    never_hidden = parts.bare + parts.tail

    def exposed(clips: int) -> float:
        return step(strategy, SIZES, 64, cluster, clips * clip).exposed

    assert fewest > 1
    assert exposed(fewest) == pytest.approx(never_hidden)
    assert exposed(fewest - 1) > never_hidden + 1e-6


def count_bytes(rank: int, folder: str) -> None:
    """Train one batch with DDP in bfloat16, and write the bytes of all buckets."""
    torch.set_num_threads(1)  # threads of two processes on two cores wait for one another
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    network = DistributedDataParallel(tiny_model())
    buckets: list[int] = []

    def counted(state, bucket):
        buckets.append(bucket.buffer().nbytes)
        return allreduce_hook(state, bucket)

    network.register_comm_hook(None, counted)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.rand(1, 3, 4, 64, 64)).sum()
    loss.backward()
    torch.save(sum(buckets), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ddp_sends_float32_gradients_under_autocast(tmp_path):
    """The one check against reality: what two processes give to their all-reduces."""
    # Forks of a process that has used OpenMP would hang.
    start_processes(count_bytes, (str(tmp_path),), nprocs=2, start_method="spawn")
    with torch.device("meta"):
        expected = sizes(tiny_model()).gradients
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)] == [expected] * 2
