"""Ports for processes that talk to one another."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A port that nobody listens at, and that no outgoing connection gets in the meantime."""
    while True:
        port = random.randrange(10_000, 32_768)  # Linux gives connections those above
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
