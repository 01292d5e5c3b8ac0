import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.video.mp4 import boxes_end, truncation
from datamodules.video.probing import probe
from tests.video_files import moving_frames, write_video

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
GOP = {"g": "10"}


@given(st.binary(max_size=60))
def test_any_bytes_have_an_end(data):
    assert boxes_end(io.BytesIO(data), len(data)) >= len(data)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=4), st.data())
def test_a_box_that_is_cut_is_noticed(boxes, data):
    files = [
        struct.pack(">I4sQ", 1, b"mdat", 16 + size) + bytes(size)
        if is_long
        else struct.pack(">I4s", 8 + size, b"moof") + bytes(size)
        for size, is_long in boxes
    ]
    whole = b"".join(files)
    assert not truncation(io.BytesIO(whole))
    size = data.draw(st.integers(0, len(whole)))
    ends = {len(b"".join(files[:n])) for n in range(len(files) + 1)}
    assert bool(truncation(io.BytesIO(whole[:size]))) == (size not in ends)


def test_the_last_box_may_reach_to_the_end_of_the_file():
    assert not truncation(io.BytesIO(struct.pack(">I4s", 0, b"mdat") + bytes(5)))


@pytest.mark.parametrize("every_frame", [True, False])
def test_a_fragmented_file_that_is_cut_off_is_bad(tmp_path, every_frame):
    path = tmp_path / "a.mp4"
    write_video(path, moving_frames(60), options=GOP, container_options=FRAGMENTED)
    content = path.read_bytes()
    assert probe(str(path), every_frame).ok
    second = content.index(b"moof", content.index(b"moof") + 4) - 4
    # In a box of samples, and in one that says which come next.
    for size in (content.index(b"mdat", second) + 40, second + 30):
        path.write_bytes(content[:size])
        facts = probe(str(path), every_frame)
        assert not facts.ok
        assert facts.reason
    assert facts.reason.startswith(f"truncated: {size} of at least ")
