"""What a checkpoint says of its model."""

from functools import partial

import pytest

from hiera_video import create_model
from hiera_video.tasks.description import describe

SMALL = {"embed_dim": 8, "num_classes": 3}


@pytest.mark.parametrize(
    "factory",
    [
        partial(create_model, name="hiera_tiny_224", **SMALL),
        partial(create_model, "hiera_tiny_224", **SMALL),
    ],
    ids=["by name", "by position"],
)
def test_the_name_of_a_model(factory):
    description = describe(factory(), factory, None)
    assert description.name == "hiera_tiny_224"
    assert description.kind == "classifier"
    assert description.arguments == SMALL
