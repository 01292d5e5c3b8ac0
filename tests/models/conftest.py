import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """Models here are small; where other work shares the cores, threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
