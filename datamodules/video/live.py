"""The newest frames of a camera or a stream: older ones are dropped, never queued."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import ExitError
from av.video.reformatter import VideoReformatter

from datamodules.errors import VideoDecodeError
from datamodules.video.container import reason_of, video_stream
from datamodules.video.decoding import displayed
from datamodules.video.live_source import Opening
from datamodules.video.orientation import orientation

TIMEOUT = (10.0, 10.0)  # seconds to open a stream, and to wait for its next packet


class Newest(NamedTuple):
    """Frames of a stream, the last of which is the newest.

    Attributes:
        pictures: one for each time that was asked for, in its order.
        time: seconds from the first frame of the stream to the newest.
        arrived: when the newest was decoded, by `time.monotonic`.
        dropped: frames so far that were never among those returned.
    """

    pictures: list[np.ndarray]
    time: float
    arrived: float
    dropped: int


@dataclass
class _Kept:
    """A frame in memory, and whether it was ever returned."""

    time: float
    picture: np.ndarray
    arrived: float
    used: bool = False


class LiveFrames:
    """Reads a stream in a thread of its own, which keeps its last seconds. Use it in ``with``.

    Args:
        name: of the stream, for messages.
        opening: how to open it.
        seconds: that are kept.
        prepare: makes a picture small, from RGB uint8 ``(height, width, 3)``; what it returns is
            kept.
    """

    def __init__(
        self,
        name: str,
        opening: Opening,
        seconds: float,
        prepare: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self._name, self._opening, self._seconds = name, opening, seconds
        self._prepare = prepare
        self._frames: deque[_Kept] = deque()
        self._changed = threading.Condition()
        self._first: float | None = None
        self._dropped, self._received = 0, 0
        self._stopped, self._ended = False, False
        self._error: VideoDecodeError | None = None
        # A read that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._read, name=f"reads {name}", daemon=True)

    def __enter__(self) -> "LiveFrames":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join(1.0)

    def wait(self, until: float) -> None:
        """Wait for a time, by `time.monotonic`, or for the end of the stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, max(0.0, until - time.monotonic()))

    def newest(self, ages: np.ndarray, after: float = -1.0) -> Newest | None:
        """Wait for the newest frames, and return those on display at some ages.

        Args:
            ages: seconds before the newest frame, float ``(n,)``, falling. All must have been
                received, unless the stream has ended.
            after: time of the newest frame of an earlier answer, than which it must be newer.

        Returns:
            None at the end of the stream, if no frame is newer.

        Raises:
            VideoDecodeError: the stream cannot be opened, or has failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._has(ages.max(), after))
            if not self._frames or self._frames[-1].time <= after:
                if self._error is not None:
                    raise self._error
                return None
            last = self._frames[-1]
            starts = np.array([frame.time for frame in self._frames])
            chosen = np.searchsorted(starts, last.time - ages + 1e-6, "right") - 1
            frames = [self._frames[i] for i in chosen.clip(0).tolist()]
            for frame in frames:
                frame.used = True
            pictures = [frame.picture for frame in frames]
            return Newest(pictures, last.time, last.arrived, self._dropped)

    def _has(self, age: float, after: float) -> bool:
        frames = self._frames
        return bool(
            frames and frames[-1].time > after and frames[-1].time - frames[0].time >= age - 1e-6
        )

    def _read(self) -> None:
        try:
            file, kind, options = self._opening
            with av.open(file, format=kind, options=options, timeout=TIMEOUT) as container:
                stream = video_stream(self._name, container)
                to_rgb, turn = VideoReformatter(), None
                for frame in container.decode(stream):
                    if self._stopped:
                        return
                    turn = orientation(frame) if turn is None else turn
                    self._keep(frame, displayed(frame, turn, to_rgb))
                if not self._received:
                    raise VideoDecodeError(self._name, "no frame can be decoded")
        except VideoDecodeError as error:
            self._error = error
        except ExitError:  # which is how FFmpeg calls our time limit
            wait = f"nothing came for {max(TIMEOUT):g} seconds"
            self._error = VideoDecodeError(self._name, wait)
        except Exception as error:  # PyAV raises nearly anything
            self._error = VideoDecodeError(self._name, reason_of(error))
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _keep(self, frame: Any, picture: np.ndarray) -> None:
        arrived = time.monotonic()
        start = arrived if frame.time is None else float(frame.time)
        picture = self._prepare(picture)
        with self._changed:
            frames = self._frames
            self._first = start if self._first is None else self._first
            self._received += 1
            if frames and start - self._first == frames[-1].time:  # never on display
                self._dropped += 1
                return
            if frames and start - self._first < frames[-1].time:  # the stream has begun again
                self._first = start - frames[-1].time - 1e-3
                self._forget(len(frames))
            frames.append(_Kept(start - self._first, picture, arrived))
            # The oldest is the one on display `seconds` ago.
            while len(frames) > 1 and frames[1].time <= frames[-1].time - self._seconds:
                self._forget(1)
            self._changed.notify_all()

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._dropped += not self._frames.popleft().used
