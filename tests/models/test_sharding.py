"""A sharded network in one process; `tests/integration/test_sharding.py` has two."""

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from hiera_video import create_model
from hiera_video.models.sharding import gather_for_evaluation, reshard_for_training, shard, whole


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
