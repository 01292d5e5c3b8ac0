"""Damage video files at random and read them: frames or a VideoDecodeError, nothing else.

    python -m tests.fuzz_decoding [--mutants 10000] [--seed 0] [--data FOLDER ...] [--processes 1]

Mutants are made of small files in every container and codec that PyAV writes here, and of the
videos below the given folders. Mutant n of a seed is the same on every machine. Each is read in a
process of its own that may crash or hang; the exit code is 1 if one does, takes more than 5 seconds
of CPU time or 500 MiB of memory, or raises another error.
"""

import argparse
import functools
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import VideoDecodeError
from datamodules.loading.file_workers import Lost, work
from datamodules.suffixes import VIDEO_SUFFIXES
from datamodules.video.decoding import VideoFile
from tests.video_files import moving_frames, write_video

CPU_SECONDS, MEMORY = 5.0, 500 << 20  # that one mutant may take
PATIENCE = 60.0  # seconds by the clock, on a machine that may be busy

_X264 = {"options": {"x264-params": "keyint=8:bframes=2"}}
WRITTEN = {
    "h264.mp4": _X264,
    "h264.mkv": _X264,
    "h264.ts": _X264,
    "h264.flv": _X264,
    "h264.avi": _X264,
    "h264.h264": _X264,
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, **_X264},
    "edited.mp4": {"start": -5, **_X264},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "options": {"cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "ffv1.mkv": {"codec": "ffv1"},
    "qtrle.mov": {"codec": "qtrle", "pix_fmt": "rgb24"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8", "rate": 25},
    "wmv2.wmv": {"codec": "wmv2"},
}


class Outcome(NamedTuple):
    """What reading one mutant gave."""

    kind: str  # "frames", "error" or "fault"
    reason: str
    seconds: float  # of CPU time
    memory: int  # bytes by which the process grew, where it grew more than ever before


def write_sources(folder: Path) -> list[Path]:
    """Write the files of WRITTEN."""
    frames = moving_frames(24)
    return [write_video(folder / name, frames, **how) for name, how in WRITTEN.items()]


# ---------------------------------------------------------------- mutations


def _flip_bits(content: bytearray, rng: random.Random, other: bytes) -> None:
    start = rng.choice([0, max(0, len(content) - 4096), rng.randrange(len(content))])
    for _ in range(rng.choice([1, 8, 64])):
        content[rng.randrange(start, min(start + 4096, len(content)))] ^= 1 << rng.randrange(8)


def _cut_off(content: bytearray, rng: random.Random, other: bytes) -> None:
    del content[rng.choice([rng.randrange(64), rng.randrange(len(content))]) :]


def _splice(content: bytearray, rng: random.Random, other: bytes) -> None:
    """The beginning of another file before the end of this one."""
    begin = rng.choice([64, 1024, len(other) // 2])
    content[: rng.randrange(len(content))] = other[:begin]


def _overwrite(content: bytearray, rng: random.Random, other: bytes) -> None:
    length = rng.choice([1, 4, 100, 5000])
    place = rng.randrange(len(content))
    piece = other[rng.randrange(len(other)) :][:length]
    content[place : place + length] = rng.choice([bytes(length), b"\xff" * length, piece])


def _repeat_or_drop(content: bytearray, rng: random.Random, other: bytes) -> None:
    place, length = rng.randrange(len(content)), rng.choice([1, 188, 4000])
    content[place : place + length] = content[place : place + length] * rng.choice([0, 2, 20])


def _set_numbers(content: bytearray, rng: random.Random, other: bytes) -> None:
    """Sizes, counts and times are 32-bit numbers in most containers, in the first or last bytes."""
    for _ in range(rng.choice([1, 3])):
        place = rng.randrange(min(2048, len(content)))
        place = rng.choice([place, len(content) - 1 - place])
        number = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(16)])
        content[place : place + 4] = number.to_bytes(4, rng.choice(["big", "little"]))


MUTATIONS = (_flip_bits, _cut_off, _splice, _overwrite, _repeat_or_drop, _set_numbers)


def mutant(number: int, seed: int, sources: Sequence[Path]) -> tuple[Path, bytes, random.Random]:
    """The file that mutant ``number`` is made of, its content, and its source of randomness."""
    rng = random.Random(f"{seed} {number}")
    source, other = rng.choice(sources), rng.choice(sources)
    content = bytearray(_content(source))
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if content:
            rng.choice(MUTATIONS)(content, rng, _content(other))
    return source, bytes(content), rng


@functools.cache
def _content(path: Path) -> bytes:
    return path.read_bytes()


# ---------------------------------------------------------------- reading them


def read_mutant(
    number: int, alive: Callable[[], None], *, seed: int, sources: Sequence[Path], folder: Path
) -> Outcome:
    """Make a mutant and read frames of it."""
    source, content, rng = mutant(number, seed, sources)
    path = folder / f"{os.getpid()}{source.suffix}"
    path.write_bytes(content)
    before, highest = _resident(), _highest()
    begin = time.process_time()
    kind, reason = _read(path, rng)
    seconds = time.process_time() - begin
    after = _highest()
    return Outcome(kind, reason, seconds, after - before if after > highest else 0)


def _read(path: Path, rng: random.Random) -> tuple[str, str]:
    times = [rng.uniform(0, 2), 0.3, rng.choice([0.0, 1.0, 60.0, 1e9])]
    try:
        with VideoFile(path, threads=rng.choice([1, 1, 3])) as file:
            height, width = file.height, file.width
            crop = rng.choice([None, (width // 2, height // 2, width, height)])
            if rng.random() < 0.5:
                times.append(rng.uniform(0, file.duration))
            frames = file.frames_at(times, size=(48, 64), crop=crop)
            assert frames.shape == (len(times), 48, 64, 3)
    except VideoDecodeError as error:
        return "error", error.reason
    except Exception as error:
        return "fault", f"{type(error).__name__}: {error}"
    return "frames", ""


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _highest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(
    numbers: Sequence[int], seed: int, sources: Sequence[Path], processes: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Read mutants; what hangs, crashes, or takes too much is a fault."""
    with tempfile.TemporaryDirectory() as folder:
        read = functools.partial(
            read_mutant, seed=seed, sources=tuple(sources), folder=Path(folder)
        )
        results = work(read, numbers, processes=processes, patience=PATIENCE)
        for number, outcome in results:
            if isinstance(outcome, Lost):
                outcome = Outcome("fault", outcome.reason, 0.0, 0)
            elif outcome.seconds > CPU_SECONDS:
                outcome = outcome._replace(kind="fault", reason=f"{outcome.seconds:.1f} s")
            elif outcome.memory > MEMORY:
                outcome = outcome._replace(kind="fault", reason=f"{outcome.memory >> 20} MiB")
            yield number, outcome


def main() -> int:
    """Print faults as they come, then a summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of videos")
    parser.add_argument("--keep", type=Path, help="folder to keep what ends in a fault")
    arguments = parser.parse_args()
    kinds: Counter[str] = Counter()
    seconds = memory = 0.0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        sources = write_sources(Path(folder))
        for data in arguments.data:
            sources += sorted(p for p in data.rglob("*") if p.suffix in VIDEO_SUFFIXES)
        numbers = range(arguments.first, arguments.first + arguments.mutants)
        for number, outcome in fuzz(numbers, arguments.seed, sources, arguments.processes):
            kinds[outcome.kind] += 1
            seconds, memory = max(seconds, outcome.seconds), max(memory, outcome.memory)
            if outcome.kind == "fault":
                source, content, _ = mutant(number, arguments.seed, sources)
                print(f"mutant {number} of {source.name}: {outcome.reason}", flush=True)
                if arguments.keep:
                    (arguments.keep / f"{number}{source.suffix}").write_bytes(content)
            if time.monotonic() - begin > arguments.seconds:
                break
    print(
        f"{kinds.total()} mutants in {time.monotonic() - begin:.0f} s: {dict(kinds)}; worst: "
        f"{seconds:.2f} CPU s, {memory / 2**20:.0f} MiB"
    )
    return 1 if kinds["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
