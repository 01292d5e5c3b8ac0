"""Names of cameras and streams, and how FFmpeg opens them."""

import re
import sys
from typing import NamedTuple

_NAME = re.compile(r"camera:(\d+)|(rtsps?|https?)://\S+")
# A stream must not make FFmpeg open a local file.
_PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtsp,rtsps,crypto"


class Opening(NamedTuple):
    """What `av.open` takes.

    Attributes:
        file: a device or an address.
        format: of the device; None: found by reading.
        options: for FFmpeg.
    """

    file: str
    format: str | None
    options: dict[str, str]


def is_live(name: str) -> bool:
    """Whether a name is a camera or a stream: ``camera:0``, ``rtsp://...``, ``https://...``."""
    return _NAME.fullmatch(name) is not None


def opening_of(name: str) -> Opening:
    """How to open a camera or a stream.

    Args:
        name: see `is_live`. Cameras are counted as the system does: ``/dev/video0`` on Linux.

    Raises:
        ValueError: the name is none of these.
    """
    if (match := _NAME.fullmatch(name)) is None:
        raise ValueError(f"{name!r}: expected camera:N, or an rtsp:// or http:// address")
    number = match[1]
    if number is None:
        options = {"protocol_whitelist": _PROTOCOLS}
        return Opening(
            name, None, options | ({"rtsp_transport": "tcp"} if match[2][0] == "r" else {})
        )
    if sys.platform == "darwin":
        return Opening(f"{number}:none", "avfoundation", {"framerate": "30"})
    return Opening(f"/dev/video{number}", "v4l2", {})
