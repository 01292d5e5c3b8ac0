"""A sharded network in one process; `tests/integration/test_sharding.py` has two."""

from contextlib import nullcontext

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.debug import CommDebugMode
from torch.multiprocessing.spawn import start_processes

from hiera_video import create_model
from hiera_video.models.sharding import (
    gather_for_evaluation,
    gradients_stay,
    products,
    reshard_for_training,
    shard,
    whole,
)


@pytest.fixture
def mesh(tmp_path):
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_training_goes_on_after_an_evaluation_in_inference_mode(mesh):
    network = create_model("hiera_tiny_16x224", input_size=(4, 64, 64), embed_dim=8)
    video = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    network.eval()
    expected = network(video)
    network.zero_grad()
    expected.sum().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()

    shard(network, mesh)
    with torch.inference_mode():
        gather_for_evaluation(network)
        torch.testing.assert_close(network(video), expected)
        reshard_for_training(network)
    network(video).sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(whole(parameter.grad), gradients[name])


def network_and_clips():
    torch.manual_seed(0)
    network = create_model("hiera_tiny_16x224", input_size=(4, 64, 64), embed_dim=8)
    return network, torch.randn(4, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))


def add_up(rank, folder):
    """Two batches of a clip on each of two devices; writes what is exchanged, and the gradients."""
    torch.set_num_threads(1)  # threads of two processes on two cores wait for one another
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    network, clips = network_and_clips()
    shard(network, init_device_mesh("cpu", (2,)))
    counts = []
    for batch in (0, 1):
        with CommDebugMode() as exchanged, nullcontext() if batch else gradients_stay(network):
            network(clips[2 * batch + rank, None]).sum().div(2).backward()
        counts.append(exchanged.get_comm_counts()[torch.ops.c10d._reduce_scatter_base_])
    gradients = {name: whole(p.grad) for name, p in network.named_parameters()}
    torch.save((counts, gradients), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_gradients_that_are_added_up_are_exchanged_once(tmp_path):
    # Forks of a process that has used OpenMP would hang.
    start_processes(add_up, (str(tmp_path),), nprocs=2, start_method="spawn")
    network, clips = network_and_clips()
    network(clips).sum().div(4).backward()
    for rank in (0, 1):
        counts, gradients = torch.load(tmp_path / f"{rank}.pt")
        assert counts == [0, 1 + len(list(products(network)))]
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad, msg=name)
