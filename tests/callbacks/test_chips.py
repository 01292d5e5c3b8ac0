"""Peaks of chips, by the names that drivers give them."""

import pytest
import torch

from hiera_video.callbacks.chips import chip_peak, device_peak


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_dense_operations_in_half_precision(name, peak):
    assert chip_peak(name, "bf16-mixed") == chip_peak(name, "16-true") == peak


def test_single_precision(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert chip_peak("NVIDIA A100-SXM4-80GB", "32-true") == 156e12
    assert chip_peak("NVIDIA A100-SXM4-80GB", "64-true") is None
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert chip_peak("NVIDIA A100-SXM4-80GB", "32-true") is None


def test_a_cpu_has_no_known_peak():
    assert device_peak(torch.device("cpu"), "bf16-mixed") is None
