"""Two processes of a run, one after the other."""

from collections import deque
from types import SimpleNamespace
from typing import Any


def two_processes() -> list[Any]:
    """Trainers of the first and the second process: the second is sent what the first has sent."""
    sent = deque()

    def send(value):
        sent.append(value)
        return value

    return [
        SimpleNamespace(world_size=2, is_global_zero=first, strategy=SimpleNamespace(broadcast=way))
        for first, way in ((True, send), (False, lambda _: sent.popleft()))
    ]
