"""A video of a lamp that is on or off, with sound if wanted, and a network that says which."""

import threading
import time
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import numpy as np
import torch

from datamodules.clips.format import ClipFormat
from hiera_video.predicting.classifier import Predictor

CLIP = ClipFormat(num_frames=4, stride=1, fps=30, height=32, width=32)
NAMES = ("lamp is on", "lamp is off", "nothing to see")
RATE = 44_100  # of the sound


class Brightness(torch.nn.Module):
    """Logits: how bright a clip is, how dark, and a constant that is always less."""

    def forward(self, video):
        level = video.mean(dim=(1, 2, 3, 4))  # (B,), about -2 for black and 2.4 for white
        return torch.stack([3 * level, -3 * level, torch.full_like(level, -6.0)], dim=1)


def predictor(network=None, clip=CLIP, **kwargs):
    """A classifier of lamps."""
    return Predictor(network or Brightness(), NAMES, clip, (1, 1), device="cpu", **kwargs)


def write_lamp(path, on, rate=10, size=(48, 64), codec=None, layout="stereo", delay=0, **options):
    """Write a video that is white while the lamp is on, and beeps then.

    Args:
        on: for each frame, whether the lamp is on.
        rate: frames a second.
        codec: of the sound; None: no sound.
        layout: mono or stereo.
        delay: frames by which everything starts later than 0.
        options: of `av.open`.
    """
    height, width = size
    with av.open(str(path), "w", **options) as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound: Any = codec and container.add_stream(codec, rate=RATE)
        if sound:
            sound.codec_context.layout = layout
        packets = []
        for i, lit in enumerate(on):
            picture = np.full((height, width, 3), 235 if lit else 16, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i + delay, Fraction(1, rate)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if sound:
            packets += _beeps(sound, np.repeat(on, RATE // rate), delay * RATE // rate)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def _beeps(stream, loud, start):
    samples = np.sin(np.arange(len(loud)) * 2 * np.pi * 440 / RATE) * 0.5 * loud
    packets = []
    for first in range(0, len(samples), 1024):
        part = samples[first : first + 1024].astype(np.float32)
        channels = np.ascontiguousarray(np.repeat(part[None], stream.codec_context.channels, 0))
        frame = av.AudioFrame.from_ndarray(
            channels, format="fltp", layout=stream.codec_context.layout.name
        )
        frame.sample_rate, frame.pts, frame.time_base = RATE, start + first, Fraction(1, RATE)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def hear(path):
    """The sound's codec, and the seconds in which it is first and last loud."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        loud = []
        for frame in container.decode(stream):
            samples = frame.to_ndarray().astype(float)
            if frame.format.name.startswith("s16"):
                samples /= 32768
            if not frame.format.is_planar:
                samples = samples.reshape(-1, frame.layout.nb_channels).T
            at = np.flatnonzero(np.abs(samples).max(0) > 0.2)
            assert frame.pts is not None
            if len(at):
                start = float(frame.pts * frame.time_base)
                loud += [start + at[0] / frame.sample_rate, start + at[-1] / frame.sample_rate]
        return stream.codec_context.codec.canonical_name, min(loud), max(loud)


@contextmanager
def stream_server(path, seconds):
    """Serve a file on this machine at the pace of a live stream; yields its address."""
    content = path.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # for chunks, which tell the end from a broken connection

        def do_GET(self):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            start, sent = time.monotonic(), 0
            while sent < len(content):
                passed = min(1.0, (time.monotonic() - start) / seconds + 0.02)
                chunk = content[sent : int(passed * len(content))]
                sent += len(chunk)
                try:
                    if chunk:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                except OSError:  # the client has gone
                    return
                time.sleep(0.02)
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/live.ts"
        finally:
            server.shutdown()
            thread.join()
