"""The sound of a file, as packets for an mp4 file that shows the same video."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError

from datamodules.video.container import Source, errors_of, name_of, open_container, reason_of
from datamodules.video.in_order import InOrder

log = logging.getLogger(__name__)

# Codecs whose packets mp4 holds as they are, and that players expect there.
_COPIED = {"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}
_AAC_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)


class Sound:
    """The first, or best, audio stream of a file. Use it in a ``with`` statement.

    Packets are copied where mp4 can hold them; else they are decoded and encoded again as AAC, of
    one or two channels. Sound that is damaged ends before the damage, with a warning: what matters
    is the video.

    Args:
        source: a local file, or another source that `VideoFile` takes; it has a video stream.

    Attributes:
        name: of the source.
        codec: name of the stream's codec in FFmpeg; None if the file has no sound.

    Raises:
        VideoDecodeError: the file cannot be read.
    """

    def __init__(self, source: str | Source) -> None:
        self.name = name_of(source)
        with InOrder(source) as frames:  # whose first frame starts at second 0 of the new file
            self._origin = next(iter(frames)).start * frames.time_base
        with errors_of(self.name):
            self._container, self._file = open_container(source)
        self._stream: Any = self._container.streams.best("audio")
        if self._stream is not None and self._stream.codec_context is None:
            self._stream = None  # this FFmpeg cannot decode it
        codec = self._stream and self._stream.codec_context.codec
        self.codec: str | None = codec and codec.canonical_name
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None

    def __enter__(self) -> "Sound":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        if self._file is not None:
            self._file.close()

    def add_to(self, output: Any) -> None:
        """Add a stream to an mp4 file, PyAV's container, which has no packets yet."""
        if self._stream is None:
            return
        if self._can_be_copied():
            target = output.add_stream_from_template(self._stream)
            packets = self._copied()
        else:
            source = self._stream.codec_context
            rate = source.sample_rate if source.sample_rate in _AAC_RATES else _AAC_RATES[0]
            target = output.add_stream("aac", rate=rate)
            target.codec_context.layout = "mono" if source.channels == 1 else "stereo"
            packets = self._encoded(target)
        self._packets = self._until_damage(packets, target)
        self._next = next(self._packets, None)

    def packets(self, until: Fraction | None = None) -> Iterator[Any]:
        """Yield the packets, for the new file, that start before a time and were not yielded yet.

        Args:
            until: seconds from the start of the first frame of the video; None: to the end.
        """
        while self._next is not None:
            if until is not None and self._next.pts * self._next.time_base >= until:
                return
            yield self._next
            self._next = next(self._packets, None)

    def _can_be_copied(self) -> bool:
        # The header of mp4 needs what raw AAC has in each packet only.
        known = self.codec != "aac" or self._stream.codec_context.extradata
        return bool(self.codec in _COPIED and known)

    def _copied(self) -> Iterator[Any]:
        for packet in self._read():
            ticks = round(self._origin / packet.time_base)
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
            yield packet

    def _encoded(self, target: Any) -> Iterator[Any]:
        codec = target.codec_context
        resampler = av.AudioResampler(codec.format or "fltp", codec.layout, codec.sample_rate)
        samples: int | None = None  # of the new stream so far, from the first frame of the video on
        for packet in self._read():
            for frame in packet.decode():
                if samples is None:
                    first = packet if frame.pts is None else frame
                    seconds = first.pts * first.time_base - self._origin
                    samples = round(seconds * codec.sample_rate)
                for resampled in resampler.resample(frame):
                    resampled.pts, resampled.time_base = samples, Fraction(1, codec.sample_rate)
                    samples += resampled.samples
                    yield from codec.encode(resampled)
        if samples is not None:
            yield from codec.encode(None)

    def _read(self) -> Iterator[Any]:
        """The packets that hold sound and have a time."""
        for packet in self._container.demux(self._stream):
            if packet.size and packet.pts is not None and packet.dts is not None:
                yield packet

    def _until_damage(self, packets: Iterator[Any], target: Any) -> Iterator[Any]:
        try:
            for packet in packets:
                packet.stream = target
                yield packet
        except (FFmpegError, OSError, ValueError) as error:
            log.warning(f"{self.name}: its sound ends where it is damaged ({reason_of(error)})")
