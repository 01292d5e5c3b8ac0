"""Values of another kind than an annotation are refused; what may be right is not."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from docs.recipes import configuration
from hiera_video.errors import UsageError
from hiera_video.running.configurations import configurations
from hiera_video.running.kinds import check_kinds, fits


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, float),
        (2.0, int),
        (True, int),
        ("text", str | None),
        (5, str),
        (None, int | None),
        ("folder", Path),
        ("folder", str | Path | None),
        (None, str | Path | None),
        ([1, 2], tuple[int, int]),
        ([1, 2, 3], tuple[int, ...]),
        (["a"], Sequence[str]),
        ("a", Sequence[str]),
        ({"a": 1}, Mapping[str, Any]),
        ({"_target_": "torch.nn.ReLU"}, nn.Module),
        ({"_target_": "torch.nn.ReLU"}, Callable[..., nn.Module]),
        ("cpu", torch.device),
        ("${seed}", int),
        ([0.9, 1], tuple[float | torch.Tensor, float | torch.Tensor]),
        ({"train": None}, Mapping[str, str | None]),
        (["any"], Any),
        (5, inspect.Parameter.empty),
    ],
)
def test_what_fits(value, annotation):
    assert fits(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("a", float),
        ("a", int | None),
        (None, int),
        ([1], int),
        (3, Path),
        (3, str | Path | None),
        ({"a": 1}, str),
        ([1], tuple[int, int]),
        (["a", 2], tuple[int, int]),
        (["a", "b"], tuple[float | torch.Tensor, float | torch.Tensor]),
        ("a", float | torch.Tensor),
        (["a"], tuple[int, ...]),
        (["a"], list[float]),
        ([[1, "a"]], Sequence[Sequence[int]]),
        ({"train": ["a"]}, Mapping[str, str | None]),
        ("a", Sequence[int]),
        ("sgd", Callable[..., nn.Module]),
        (5, nn.Module),
        (3, Mapping[str, Any]),
    ],
)
def test_what_does_not_fit(value, annotation):
    assert not fits(value, annotation)


def test_the_key_is_named():
    section = {"optimizer": {"_target_": "torch.optim.AdamW", "betas": [0.9]}}
    with pytest.raises(UsageError, match=r"^task\.optimizer\.betas: expected a list of 2 values"):
        check_kinds({"task": section})


def test_a_path_that_is_a_number():
    data = {"_target_": "datamodules.VideoFolderDataModule", "root": 2024}
    with pytest.raises(UsageError, match=r"^data\.root: .*, not 2024; .* of that name is \./2024$"):
        check_kinds({"data": data})
    check_kinds({"data": data | {"root": "./2024"}})


def test_values_of_a_list_are_described():
    model = {"_target_": "hiera_video.create_model", "stages": [1, "many"]}
    with pytest.raises(UsageError, match=r"^model\.stages: .* each a whole number, not \[1, 'many"):
        check_kinds({"model": model})


@pytest.mark.parametrize("name", sorted(configurations()))
def test_every_configuration_has_values_of_the_right_kinds(name):
    check_kinds(OmegaConf.to_container(configuration(name), resolve=False))
