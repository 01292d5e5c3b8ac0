"""What of a trainer is refused before it is made."""

import pytest
import torch
from omegaconf import OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.processes import (
    check_accelerator,
    check_precision_of_training,
    devices_to_predict,
)


def check(accelerator):
    check_accelerator(OmegaConf.create({"trainer": {"accelerator": accelerator}}))


def machine_with(monkeypatch, cuda=False, mps=False, build=True):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: build)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(monkeypatch, accelerator):
    machine_with(monkeypatch)
    with pytest.raises(UsageError, match=rf"^trainer.accelerator={accelerator}: .*use trainer=cpu"):
        check(accelerator)


def test_a_build_without_cuda_is_named(monkeypatch):
    machine_with(monkeypatch, build=False)
    with pytest.raises(UsageError, match="no CUDA GPU on this machine, as it is a build for the"):
        check("gpu")


def test_what_is_there_passes(monkeypatch):
    machine_with(monkeypatch)
    for accelerator in ("cpu", "auto", "tpu"):  # others are Lightning's to refuse
        check(accelerator)
    machine_with(monkeypatch, cuda=True)
    for accelerator in ("gpu", "cuda", "auto"):
        check(accelerator)


@pytest.mark.parametrize("accelerator", ["gpu", "mps", "auto"])
def test_gpus_of_apple_are_refused(monkeypatch, accelerator):
    machine_with(monkeypatch, mps=True, build=False)
    with pytest.raises(UsageError, match=r"no CUDA GPU on this machine; use trainer=cpu"):
        check(accelerator)
    check("cpu")


@pytest.mark.parametrize(("accelerator", "devices"), [("auto", 4), ("gpu", 4), ("cpu", 1)])
def test_a_cpu_predicts_in_one_process(monkeypatch, accelerator, devices):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices_to_predict(accelerator, 9) == devices
    assert devices_to_predict(accelerator, 1) == 1


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_are_not_trained_in_16_bits(precision):
    mixed = precision.replace("true", "mixed")
    with pytest.raises(UsageError, match=rf"{precision} keeps weights .*; train with {mixed}$"):
        check_precision_of_training(precision)
    for other in (mixed, "32-true", "bf16", "16", "64-true"):
        check_precision_of_training(other)
