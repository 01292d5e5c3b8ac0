"""The estimate for trainer=fsdp2 beside what FSDP2 allocates in two processes on the CPU."""

from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh

from hiera_video import create_model
from hiera_video.commands.training_memory import training_memory
from hiera_video.models.sharding import shard
from hiera_video.tasks import ClassificationTask
from tests.allocations import most_allocated

SIZE, CLIPS, PROCESSES = (8, 64, 64), 8, 2


def task(checkpointing):
    network = {"input_size": SIZE, "embed_dim": 64, "stages": (1, 2, 3, 1), "drop_path_rate": 0.2}
    create = partial(create_model, "hiera_tiny_16x224", **network)
    return ClassificationTask(partial(create, grad_checkpointing=checkpointing))


def train(checkpointing, half):
    """Two steps, the second with the gradients of the first still there."""
    network = task(checkpointing).create_network()
    mesh = init_device_mesh("cpu", (PROCESSES,))
    shard(network, mesh, torch.bfloat16 if half else None)
    optimizer = torch.optim.AdamW(network.parameters())
    for _ in range(2):
        clips = torch.zeros(CLIPS, 3, *SIZE, dtype=torch.uint8)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network(clips.float()).float()
        F.cross_entropy(logits, torch.zeros(CLIPS, dtype=torch.int64)).backward()
        optimizer.step()


def process(rank, folder, checkpointing, half):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    own = folder / str(rank)
    own.mkdir()
    peak = most_allocated(partial(train, checkpointing, half), own)
    (own / "peak").write_text(str(peak))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_estimate_of_sharding_is_within_15_percent(precision, checkpointing, tmp_path):
    arguments = (tmp_path, checkpointing, precision == "bf16-mixed")
    torch.multiprocessing.spawn(process, arguments, PROCESSES)
    measured = max(int((tmp_path / str(rank) / "peak").read_text()) for rank in range(PROCESSES))
    estimate = training_memory(
        task(checkpointing), precision, devices=PROCESSES, sharded=True, gpu=False
    )
    assert estimate.peak(CLIPS) == pytest.approx(measured, rel=0.15)
