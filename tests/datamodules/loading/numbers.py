"""A data set whose items hold their own index; some of them go wrong."""

import faulthandler
import os
import signal
import time
from pathlib import Path

import torch

from datamodules.clips.sampling import sample_seed
from datamodules.errors import UnreadableVideo, VideoDecodeError
from datamodules.manifests.splits import make_manifest


class Numbers:
    """Items ``(repeats, 1, 1, 1, 3)`` whose pixels are their index.

    `faults` maps an index to what happens there: "error", "gone", "hang", "crash", "memory" or
    "bug", or "hang once" and "crash once", which leave a file in the folder `marks`.
    """

    def __init__(self, length, faults=None, repeats=1):
        names = [f"/videos/{i}.mp4" for i in range(length)]
        self.manifest = make_manifest(names, [i % 5 for i in range(length)], "abcde")
        self.faults = faults or {}
        self.marks = Path()
        self.item_shape = (repeats, 1, 1, 1, 3)

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, key):
        epoch, index = key
        fault = self.faults.get(index, "")
        if fault.endswith(" once"):
            mark = self.marks / f"{index}"
            fault = "" if mark.exists() else fault.removesuffix(" once")
            mark.touch()
        match fault:
            case "error":
                raise VideoDecodeError(self.manifest.path(index), "damaged data")
            case "gone":
                raise UnreadableVideo(self.manifest.path(index), "No such file or directory")
            case "hang":
                time.sleep(1000)
            case "crash":
                faulthandler.disable()  # else pytest's prints a traceback
                os.kill(os.getpid(), signal.SIGSEGV)
            case "memory":
                os.kill(os.getpid(), signal.SIGKILL)
            case "bug":
                raise KeyError("a bug")
        return self.item(epoch, index, self.item_shape[0])

    def empty(self, index):
        return self.item(0, index, 0)

    def item(self, epoch, index, clips):
        return {
            "video": torch.full((clips, *self.item_shape[1:]), index % 256, dtype=torch.uint8),
            "video_id": torch.full((clips,), index),
            "seed": torch.tensor(
                [sample_seed(0, epoch, index, r) for r in range(clips)], dtype=torch.int64
            ),
        }
