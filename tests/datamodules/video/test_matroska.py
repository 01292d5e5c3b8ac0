import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.video.matroska import read_size, segment_end, truncation
from tests.video_files import moving_frames, write_video

FRAMES = moving_frames(5)
HEADER = bytes.fromhex("1a45dfa3" + "83" + "4286" + "80")  # three bytes long
SEGMENT = bytes.fromhex("18538067")


def written(number, length):
    """An integer as RFC 8794 has it: zeros and a one, then the number in seven bits per byte."""
    bits = "0" * (length - 1) + "1" + format(number, f"0{7 * length}b")
    return int(bits, 2).to_bytes(length, "big")


@given(st.data(), st.integers(1, 8), st.binary(max_size=4))
def test_a_size_that_was_written_is_read(data, length, rest):
    number = data.draw(st.integers(0, 2 ** (7 * length) - 2))
    assert read_size(written(number, length) + rest) == (length, number)


@pytest.mark.parametrize("length", range(1, 9))
def test_all_ones_are_an_unknown_size(length):
    assert read_size(written(2 ** (7 * length) - 1, length)) == (length, None)


@given(st.binary(max_size=12))
def test_any_bytes_are_a_size_or_none(data):
    length, number = read_size(data)
    if length == 0:
        first = format(data[0], "08b") if data else ""
        assert number is None
        assert "1" not in first or first.index("1") >= len(data)
    elif number is not None:
        assert written(number, length) == data[:length]


@given(st.binary(max_size=40), st.sampled_from([b"", HEADER, HEADER + SEGMENT]))
def test_any_bytes_are_a_file(data, start):
    end = segment_end(io.BytesIO(start + data))
    assert end is None or end >= len(HEADER)


def test_little_is_read_whatever_the_header_claims():
    class Counting(io.BytesIO):
        count = 0

        def read(self, size=-1):
            assert size > 0
            self.count += size
            return super().read(size)

    huge = written(2**56 - 2, 8)
    file = Counting(HEADER + SEGMENT + huge + bytes(10_000))
    assert segment_end(file) == len(HEADER + SEGMENT + huge) + 2**56 - 2
    assert file.count < 32
    assert segment_end(io.BytesIO(HEADER[:4] + huge + SEGMENT + huge)) is None


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mpeg4"), ("a.webm", "libvpx")])
def test_the_size_of_a_file(tmp_path, name, codec):
    data = write_video(tmp_path / name, FRAMES, codec=codec).read_bytes()
    whole = len(data)
    assert segment_end(io.BytesIO(data)) == whole
    assert truncation(io.BytesIO(data)) == truncation(io.BytesIO(data + b"more")) == ""
    for size in (whole - 1, whole // 2, 60):
        assert truncation(io.BytesIO(data[:size])) == f"truncated: {size} of {whole} bytes"
    assert truncation(io.BytesIO(data[:30])) == ""  # no segment: not even a Matroska file
    assert truncation(io.BytesIO()) == ""
    live = {"live": "1"}
    data = write_video(tmp_path / name, FRAMES, codec=codec, container_options=live).read_bytes()
    assert segment_end(io.BytesIO(data)) is None
    assert truncation(io.BytesIO(data[: len(data) // 2])) == ""


def test_other_containers(tmp_path):
    data = write_video(tmp_path / "a.mp4", FRAMES, codec="mpeg4").read_bytes()
    assert truncation(io.BytesIO(data[:1000])) == ""
