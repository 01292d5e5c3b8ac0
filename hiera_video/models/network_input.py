"""Clips as a network takes them: one of images takes pictures, which are clips of one frame."""

from torch import Tensor, nn


def takes_images(network: nn.Module) -> bool:
    """Whether a network takes pictures: its ``input_size`` is (height, width), without frames."""
    size = getattr(network, "input_size", None)  # a network of the user's own may have none
    return isinstance(size, tuple | list) and len(size) == 2


def network_input(network: nn.Module, clips: Tensor) -> Tensor:
    """Drop the frame axis of pictures for a network of images; leave other clips alone.

    Args:
        network: takes ``(B, 3, T, H, W)``, or ``(B, 3, H, W)`` if its ``input_size`` has two
            numbers.
        clips: ``(B, 3, T, H, W)``.

    Raises:
        ValueError: clips of several frames for a network of images.
    """
    if not takes_images(network):
        return clips
    if clips.ndim != 5 or clips.shape[2] != 1:
        raise ValueError(f"a network of images takes clips of one frame, not {tuple(clips.shape)}")
    return clips.squeeze(2)  # (B, 3, H, W)
