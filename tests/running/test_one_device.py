"""Which device and precision predictions without a trainer take."""

import pytest
import torch
from omegaconf import OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.one_device import device_and_precision


@pytest.fixture
def current(monkeypatch):
    """The devices that became the current one, on a machine of two GPUs."""
    devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    return devices


def placed(accelerator, devices, precision="bf16-mixed"):
    trainer = {"accelerator": accelerator, "devices": devices, "precision": precision}
    return device_and_precision(OmegaConf.create({"trainer": trainer}))


# A run that was trained on several devices is used on one of them.
@pytest.mark.parametrize(("devices", "index"), [("auto", 0), (1, 0), ([1], 1), (8, 0), ([1, 2], 0)])
def test_a_gpu_can_be_named(current, devices, index):
    for accelerator in ("auto", "gpu", "cuda"):
        device = torch.device("cuda", index)
        assert placed(accelerator, devices) == {"device": device, "precision": "bf16-mixed"}
        assert current.pop() == device
    assert placed("cpu", devices)["device"] == torch.device("cpu")
    assert not current


def test_a_gpu_that_is_not_there(current):
    with pytest.raises(
        UsageError, match=r"^trainer.devices=\[2\]: the GPUs of this .* are 0 to 1$"
    ):
        placed("auto", [2])


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placed("auto", "auto", "32") == {"device": torch.device("cpu"), "precision": "32-true"}
    with pytest.raises(UsageError, match="^trainer.accelerator=gpu: .* use auto or cpu$"):
        placed("gpu", "auto")
