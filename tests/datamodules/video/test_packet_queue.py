"""Which queued packets are asked for, when requests follow one another."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from datamodules.video.packet_queue import PacketQueue

TICKS = st.lists(st.integers(0, 400), min_size=1, max_size=6).map(sorted)


def make_packets(frames):
    """Packets of frames of 10 ticks in the order of display, the first one a keyframe."""
    return [
        SimpleNamespace(pts=10 * i, dts=10 * i, is_keyframe=i == 0, size=1) for i in range(frames)
    ]


@given(requests=st.lists(st.tuples(TICKS, st.integers(0, 5)), min_size=1, max_size=4))
def test_a_frame_that_is_asked_for_is_never_hidden(requests):
    """Whether a request is new, or the rest of one before it."""
    packets = make_packets(60)
    queue = PacketQueue(iter(tuple(packets)))
    for ticks, taken in requests:
        for i in range(len(ticks)):
            queue.read_ahead(ticks[i:], far=1000)
            shown = {tick // 10 * 10 for tick in ticks[i:]}
            assert not any(queue.is_hidden(p) for p in packets if p.pts in shown)
        for _ in range(taken):
            packets.remove(queue.take())


def test_others_are_hidden_up_to_the_last_that_is_asked_for():
    packets = make_packets(60)
    queue = PacketQueue(iter(packets))
    for ticks, seen in (
        ([100, 250], [0, 100, 250]),
        ([250], [0, 100, 250]),  # the rest of that: 100 is on display by now
        ([125, 250], [0, 120, 250]),
    ):
        queue.read_ahead(ticks, far=1000)
        assert [p.pts for p in packets[:26] if not queue.is_hidden(p)] == seen
