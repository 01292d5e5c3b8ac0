import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import DatasetError
from hiera_video.metrics.ava import DetectedBoxes
from hiera_video.results import ava_csv
from hiera_video.results.ava_csv import check_ground_truth, read_ava_csv, write_ava_csv

ROW = "v,0902,0.1,0.2,0.3,0.4,5,0.5"


def slow_rows(text):
    """(video, second, x1, y1, x2, y2, action id, score) of each row, and the row's number."""
    rows = []
    for number, line in enumerate(text.lstrip("\ufeff").split("\n"), 1):
        cells = next(csv.reader([line.rstrip("\r")]), [])
        if cells:
            rest = [float(c) for c in cells[2:6]] or [np.nan] * 4
            action = int(cells[6]) if len(cells) > 6 else -1
            score = float(cells[7]) if len(cells) > 7 else 1.0
            rows.append((cells[0], float(cells[1]), *rest, action, score, number))
    return rows


def rows_of(found):
    names = [found.videos[i] for i in found.video]
    columns = (names, found.second, *found.box.T, found.action_id, found.score, found.row)
    return list(zip(*(list(c) for c in columns), strict=True))


number = st.floats(0, 1, width=32).map(repr) | st.sampled_from(["0", "1.", ".5", "1e-05", "0.077"])
line = st.one_of(
    st.tuples(
        st.sampled_from(["v", "a b", "1", "ü-x", '"q"']),
        st.sampled_from(["0902", "902.5", "1798.123456"]),
        st.lists(number, min_size=4, max_size=4).map(",".join),
        st.sampled_from(["1", "080"]),
        number,
    ).map(",".join),
    st.just("v,0903,0,0,1,1,7"),
    st.sampled_from(["v,0904", "w,904.25", ""]),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(line, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_reads_what_python_reads(tmp_path_factory, lines, end, closed, mark, block):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    text = end.join(lines) + (end if closed else "")
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ava_csv, "BLOCK", block)
        found = rows_of(read_ava_csv(path))
    expected = slow_rows(text)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1:], b[1:])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v,0902,0.1", r"expected video,second,.*\(no header\), not 'v,0902,0.1'"),
        (ROW + ",1", "expected video,second"),
        ("video,second,x1,y1,x2,y2,action,score", "second is no number: 'second'"),
        (ROW.replace("0.1", "left"), "x1 is no number: 'left'"),
        (ROW.replace("0.1", ""), "x1 is no number: ''"),
        (ROW.replace(",5,", ",5.5,"), "action id is no whole number: '5.5'"),
        (ROW.replace(",5,", ",+5,"), "action id is no whole number"),
        (ROW.replace(",5,", ",99999999999999999999,"), "action id is no whole number"),
        (ROW.replace(",5,", ",-5,"), "has an action id below 0"),
        (ROW.replace("0.5", "nan"), "has a number that is not finite"),
        (ROW.replace("0.4", "inf"), "has a number that is not finite"),
        (ROW.replace("0902", "-2"), "has a second that is none"),
        (ROW.replace("0902", "nan"), "has a second that is none"),
        (ROW.replace("v", ""), "has no name of a video"),
        (ROW.replace("v", "\udcff"), "video is no text in UTF-8"),
        (ROW.replace("v", '"a,b"'), "expected video,second"),
        (ROW.replace("0.3", "0\r.3"), "a carriage return within the row"),
        (ROW.replace(",5", "\r,5"), "a carriage return within the row"),
    ],
)
@pytest.mark.parametrize("block", [40, 1 << 20])
def test_wrong_rows_are_named(tmp_path, monkeypatch, line, message, block):
    monkeypatch.setattr(ava_csv, "BLOCK", block)
    path = tmp_path / "rows.csv"
    lines = [ROW, "v,0903", "", ROW, line, ROW, line]
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=f"rows.csv, row 5: {message}") as error:
        read_ava_csv(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("0.1", "-0.01"), "row 2: has a box that is not within"),
        (ROW.replace("0.4", "1.01"), "row 2: has a box that is not within"),
        (ROW.replace("0.1", "0.3"), "row 2: has a box without x1 < x2"),
        (ROW.replace("0.4", "0.1"), "row 2: has a box without x1 < x2"),
    ],
)
def test_boxes_of_the_ground_truth(tmp_path, row, message):
    path = tmp_path / "gt.csv"
    path.write_text(f"v,0903\n{row}\n")
    with pytest.raises(DatasetError, match=message):
        check_ground_truth(read_ava_csv(path))
    path.write_text(f"v,0903\n{ROW}\n")
    check_ground_truth(read_ava_csv(path))
    path.write_text("")
    with pytest.raises(DatasetError, match="no rows"):
        check_ground_truth(read_ava_csv(path))


def test_no_file(tmp_path):
    with pytest.raises(DatasetError, match="no.csv: not readable"):
        read_ava_csv(tmp_path / "no.csv")


def test_written_numbers_come_back(tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.random((50, 4)).astype(np.float32)
    scores = (rng.random((50, 3)) ** 20).astype(np.float32)
    detected = DetectedBoxes(
        np.arange(50) % 2, np.array([2.0, 902.5, 1.0, 1798.0, 12345.123456] * 10), boxes, scores
    )
    path = tmp_path / "pred.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ava_csv, "BLOCK", 2000)  # several parts
        with open(path, "wb") as file:
            write_ava_csv(file, ["a b", "ü"], detected, [7, 3, 12])
    found = read_ava_csv(path, widths=(8,))
    assert path.read_text().startswith("a b,0002,")
    assert found.videos == ("a b", "ü")
    np.testing.assert_array_equal(found.video.reshape(50, 3)[:, 0], detected.video)
    np.testing.assert_array_equal(found.second.reshape(50, 3)[:, 0], detected.second)
    np.testing.assert_array_equal(found.action_id.reshape(50, 3)[0], [7, 3, 12])
    np.testing.assert_array_equal(found.box.astype(np.float32).reshape(50, 3, 4)[:, 0], boxes)
    np.testing.assert_array_equal(found.score.astype(np.float32).reshape(50, 3), scores)
    with open(path, "wb") as file:
        write_ava_csv(file, [], DetectedBoxes(*(values[:0] for values in detected)), [7, 3, 12])
    assert path.read_text() == ""


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\rb", "a\nb", "a\udcffb"])
def test_a_name_that_no_csv_can_have(tmp_path, name):
    detected = DetectedBoxes(
        np.ones(1, int), np.ones(1), np.zeros((1, 4), np.float32), np.zeros((1, 1), np.float32)
    )
    with (
        open(tmp_path / "pred.csv", "wb") as file,
        pytest.raises(DatasetError, match=r"^a csv cannot name the video 'a.*b': rename it"),
    ):
        write_ava_csv(file, ["c", name], detected, [7])
    assert (tmp_path / "pred.csv").read_bytes() == b""
