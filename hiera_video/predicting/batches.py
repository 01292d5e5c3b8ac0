"""What all predictions from Python share: clips to the device, through the network, and back.

The command ``predict`` for classification does not use this. There, Lightning's trainer sets the
precision and moves batches, which the loader's processes read ahead, to every device; a task's
``predict_step`` is only normalisation and network.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.clips.format import ClipFormat
from datamodules.clips.sampling import last_frame_time
from datamodules.clips.videos import clips_and_crops
from datamodules.video.decoding import VideoFile
from datamodules.video.opening import open_media
from datamodules.video.pictures import PictureFile
from hiera_video.augment.basic import Normalize
from hiera_video.errors import ChoiceError
from hiera_video.models.network_input import network_input
from hiera_video.models.precision import AUTOCAST

CLIPS_AT_ONCE = 8  # in one forward pass; bounds memory


class ClipNetwork:
    """A network in evaluation mode on its device, for uint8 clips.

    Args:
        network: takes a normalised float ``video`` ``(B, 3, T, H, W)``, and tensors by keyword.
        normalize: from uint8 to what the network takes; None: as for published video models.
        device: None: a GPU if there is one.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``, as Lightning names it.

    Raises:
        ValueError: another precision.
    """

    def __init__(
        self,
        network: nn.Module,
        normalize: Normalize | None = None,
        device: str | torch.device | None = None,
        precision: str = "32-true",
    ) -> None:
        if precision not in AUTOCAST:
            raise ValueError(f"precision must be {' or '.join(AUTOCAST)}, not {precision}")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device).eval()
        self.normalize = (normalize or Normalize()).to(self.device)
        self.autocast_type = AUTOCAST[precision]

    @torch.inference_mode()
    def normalized(self, clips: Tensor) -> Tensor:
        """Move uint8 ``(B, 3, T, H, W)`` to the device; float32 of the same shape."""
        return self.normalize(clips.to(self.device))

    @torch.inference_mode()
    def run(self, video: Tensor, **inputs: Tensor) -> Any:
        """The network's output for normalised ``(B, 3, T, H, W)``, on the device."""
        return self.run_with_gradient(video, **inputs)

    def run_with_gradient(self, video: Tensor, **inputs: Tensor) -> Any:
        """The same for whoever needs a gradient: outside of torch's inference mode."""
        inputs = {name: x.to(self.device) for name, x in inputs.items()}
        kind, enabled = self.autocast_type, self.autocast_type is not None
        with torch.autocast(self.device.type, kind, enabled):
            return self.network(network_input(self.network, video), **inputs)

    @torch.inference_mode()
    def apply(self, function: Callable[[Tensor], Any], video: Tensor) -> Any:
        """What a function computes with the network, in the network's precision.

        Args:
            function: takes the video as the network does.
            video: normalised float ``(B, 3, T, H, W)`` on the device.
        """
        kind, enabled = self.autocast_type, self.autocast_type is not None
        with torch.autocast(self.device.type, kind, enabled):
            return function(network_input(self.network, video))

    def logits(self, clips: Tensor, **inputs: Tensor) -> Tensor:
        """Run the network once.

        Args:
            clips: uint8 ``(B, 3, T, H, W)`` on the CPU.
            **inputs: whatever else the network takes.

        Returns:
            float32 ``(N, classes)`` on the CPU.
        """
        return self.run(self.normalized(clips), **inputs).float().cpu()


def clip_at(
    video: str | Path, clip: ClipFormat, second: float | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """One clip of a video, in the middle of the picture.

    Args:
        video: a file.
        clip: its format.
        second: the middle of the clip, seconds; None: the middle of the video.

    Returns:
        uint8 ``(T, H, W, 3)``; the times of its frames, float64 ``(T,)``, seconds, of which those
        before 0 show the first frame of the video; and the second from which on they show the last.

    Raises:
        VideoDecodeError: the file cannot be read as a video.
        ChoiceError: the video does not last so long, or the clip spans all of any video.
    """
    if second is not None and clip.sampling == "segments":
        raise ChoiceError("this model sees the whole of each video; leave out the second")
    with open_media(video) as file:
        if second is None:
            (times,) = clip.view_times(file.duration, float(file.rate), 1)
        else:
            check_second(file, second)
            times = clip.times(second - clip.span / 2)
        last = last_frame_time(file.duration, float(file.rate))
        return clips_and_crops(file, clip, [times], spatial=1)[0, 0], times, last


def check_second(file: VideoFile | PictureFile, second: float) -> None:
    """Raise a ChoiceError unless a second lies within a video."""
    if not 0 <= second <= file.duration:
        raise ChoiceError(
            f"{file.path}: lasts {file.duration:.1f} s; there is no second {second:g}"
        )


def batches(clips: Sequence[np.ndarray] | np.ndarray) -> Iterator[tuple[int, Tensor]]:
    """Batches of at most `CLIPS_AT_ONCE` clips, each uint8 ``(T, H, W, 3)``.

    Yields:
        The index of the first clip of the batch, and the batch, uint8 ``(B, 3, T, H, W)``.
    """
    for start in range(0, len(clips), CLIPS_AT_ONCE):
        batch = np.asarray(clips[start : start + CLIPS_AT_ONCE])
        yield start, torch.from_numpy(batch).permute(0, 4, 1, 2, 3)  # (B, 3, T, H, W)
