import csv
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.ava import annotations
from datamodules.ava.annotations import read_boxes, read_csv, read_excluded
from datamodules.ava.box_table import (
    NO_ACTION,
    check_actions,
    check_boxes,
    check_labelled,
    check_scores,
    keyframe_keys,
    keyframes_of_keys,
)
from datamodules.ava.label_map import read_label_map
from datamodules.errors import DatasetError


@pytest.fixture
def file(tmp_path):
    def write(text, name="ava_train_v2.2.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_published_ground_truth(file):
    path = file(
        "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\n"
        "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1\n"
        "1j20qq1JyX4,1798,0,0,1,1.0,11,22\n"
    )
    table = read_boxes(path)
    assert table.names == ("-5KQ66BBWC4", "1j20qq1JyX4")
    assert table.video.tolist() == [0, 0, 1]
    assert table.second.tolist() == [902, 902, 1798]
    np.testing.assert_array_equal(table.boxes[0], [0.077, 0.151, 0.283, 0.811])
    assert table.action.tolist() == [80, 9, 11]
    assert table.score.tolist() == [1, 1, 22]
    check_boxes(table)
    check_labelled(table)
    check_actions(table, [9, 11, 80])


def test_person_boxes_keyframes_without_boxes_and_seven_columns(file):
    table = read_boxes(file("a,0902,0.1,0.2,0.3,0.4,,0.912\r\na,903,0.1,0.2,0.3,0.4,7,0.5\r\n"))
    assert table.action.tolist() == [NO_ACTION, 7]
    assert table.score.tolist() == [0.912, 0.5]
    check_scores(table)
    table = read_boxes(file("\ufeffa,1,0.1,0.2,0.3,0.4,1\n\nb,0901\na,2,0.1,0.2,0.3,0.4,1\n"))
    assert table.row.tolist() == [1, 3, 4]
    assert table.names == ("a", "b")
    assert table.has_box.tolist() == [True, False, True]
    assert (table.video.tolist(), table.second.tolist()) == ([0, 1, 0], [1, 901, 2])
    assert table.action.tolist() == [1, NO_ACTION, 1]
    assert np.isnan(table.boxes[1]).all()
    assert np.isnan(table.score).all()
    for check in (check_boxes, check_labelled):  # a keyframe without a box is right
        check(table)
    with pytest.raises(DatasetError, match="row 1: expected a person score"):
        check_scores(table)


def test_seconds_may_have_decimals(file):
    table = read_boxes(file("a,902.000000,0.1,0.2,0.3,0.4,1,0\na,903.5\na,0904.\n"))
    assert table.second.tolist() == [902, 903.5, 904]
    assert read_excluded(file("a,902.000000\n")).second.tolist() == [902]


def test_spaces_and_quotes_around_cells(file):
    table = read_boxes(file('a b, 2, 0.1, 0.2, 0.3, 0.4, , 0.5\n"a b","0003",0,0,1,1,"5",1\n'))
    assert table.names == ("a b",)
    assert table.second.tolist() == [2, 3]
    assert table.action.tolist() == [NO_ACTION, 5]
    assert read_boxes(file(" a,1\na ,2\n  \na,3\n")).video.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a,2,0.3,0.2,0.3,0.4,1,0", "is empty"),
        ("a,2,0.1,0.5,0.3,0.4,1,0", "is empty"),
        ("a,2,-0.1,0.2,0.3,0.4,1,0", r"not within \[0, 1\]"),
        ("a,2,0.1,0.2,0.3,224,1,0", r"not within \[0, 1\]"),
        ("a,2,0.1,0.2,0.3,0.4,3,0", "action id 3 is not in the label map"),
        ("a,2,0.1,0.2,0.3,0.4,,0", "no action id"),
        ("a,2,0.1,0.2,0.3,0.4,-1,0", "no action id"),
    ],
)
def test_wrong_boxes_are_named(file, row, what):
    path = file(f"a,1,0.1,0.2,0.3,0.4,1,0\n\n{row}\n")
    table = read_boxes(path)
    with pytest.raises(DatasetError, match=rf"{path}, row 3: .*{what}"):
        check_boxes(table), check_labelled(table), check_actions(table, [1, 2])


def test_only_boxes_of_a_detector_may_have_no_action(file):
    table = read_boxes(file("a,1,0.1,0.2,0.3,0.4,,0.9\na,2,0.1,0.2,0.3,0.4,-1,0.9\n"))
    check_actions(table, [1])
    with pytest.raises(DatasetError, match="row 1: no action id"):
        check_labelled(table)


def test_the_map_of_sixty_classes_says_what_to_do(file):
    table = read_boxes(file("a,1,0.1,0.2,0.3,0.4,80,0\n"))
    with pytest.raises(DatasetError, match="use the map of all 80"):
        check_actions(table, range(1, 61))


def test_pickles_are_refused_and_empty_files_too(tmp_path, file):
    path = tmp_path / "boxes.pkl"
    path.write_bytes(pickle.dumps({"a,0902": np.zeros((1, 5))}))
    with pytest.raises(DatasetError, match="pickles are not read, .* csv .* json"):
        read_boxes(path)
    with pytest.raises(DatasetError, match="no rows"):
        read_boxes(file(""))


def test_excluded_timestamps(file):
    excluded = read_excluded(file("b,0902\n\nc,1700\nd,1\n"))
    table = read_boxes(file("b,902,0,0,1,1,1,0\nb,903,0,0,1,1,1,0\nc,1700\nc,1701\n", "gt.csv"))
    kept = table.without(excluded)
    assert kept.second.tolist() == [903, 1701]
    assert kept.row.tolist() == [2, 4]
    assert kept.names == table.names
    assert table.without(None) is table
    for line in ("a", "a,0902,0,0,1,1,1", "a,1,2"):
        with pytest.raises(DatasetError, match=r"row 2: expected video,second \(no header\)"):
            read_excluded(file(f"a,0902\n{line}\n"))


def test_rows_of_some_videos(file):
    table = read_boxes(file("b,1\na,2\nc,3\na,4\n"))
    chosen = table.of_videos(["c", "x", "a"])
    assert chosen.names == ("c", "x", "a")
    assert (chosen.video.tolist(), chosen.second.tolist()) == ([2, 0, 2], [2, 3, 4])
    assert not len(table.of_videos([]).row)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**23 - 1), st.integers(0, 2**40 - 1)), min_size=1, max_size=20
    )
)
def test_keys_of_keyframes(pairs):
    video, microseconds = np.array(pairs).T
    keys = keyframe_keys(video, microseconds / 1e6)
    assert (keys >= 0).all()
    found_video, found_second = keyframes_of_keys(keys)
    np.testing.assert_array_equal(found_video, video)
    np.testing.assert_array_equal(found_second, microseconds / 1e6)
    assert keys.argsort(kind="stable").tolist() == sorted(range(len(pairs)), key=lambda i: pairs[i])


IMAGES = [{"id": 70902, "movie": "a", "timestamp": 902, "width": 200, "height": 100}]


def test_boxes_of_alphaction(file):
    boxes = [{"image_id": 70902, "bbox": [20, 10, 100, 50], "score": 0.9, "category_id": 1}]
    apart = file(json.dumps(boxes), "boxes.json"), file(json.dumps({"images": IMAGES}), "gt.json")
    together = file(json.dumps({"images": IMAGES, "annotations": boxes}), "both.json")
    for table in (read_boxes(*apart), read_boxes(together)):
        np.testing.assert_allclose(table.boxes, [[0.1, 0.1, 0.6, 0.6]])
        assert (table.names, table.second.tolist()) == (("a",), [902])
        assert (table.action.tolist(), table.score.tolist()) == ([NO_ACTION], [0.9])
    with pytest.raises(DatasetError, match=r"list 'images'.*person_box_images"):
        read_boxes(apart[0])
    unknown = file(json.dumps([boxes[0], boxes[0] | {"image_id": 1}]), "unknown.json")
    with pytest.raises(DatasetError, match=rf"{unknown}, record 2: "):
        read_boxes(unknown, apart[1])
    for text in ("[", "{}", "[]"):
        with pytest.raises(DatasetError, match=r"boxes\.json"):
            read_boxes(file(text, "boxes.json"), apart[1])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ('"width": 0', "must be above 0"),
        ('"height": -5', "must be above 0"),
        ('"height": NaN', "must be above 0"),
        ('"width": Infinity', "must be above 0"),
        ('"width": 1' + "0" * 400, "without id, movie"),
        ('"timestamp": Infinity', "timestamp is not a finite number: inf"),
        ('"timestamp": NaN', "timestamp is not a finite number: nan"),
        ('"timestamp": 9' + "0" * 400, "without id, movie"),
        ('"id": []', "without id, movie"),
        ('"timestamp": null', "without id, movie"),
    ],
)
def test_wrong_images_of_alphaction_are_named(file, change, what):
    image = json.dumps(IMAGES[0])[:-1]
    boxes = '[{"image_id": 70902, "bbox": [20, 10, 100, 50], "score": 0.9}]'
    text = f'{{"images": [{image}}}, {image}, {change}}}], "annotations": {boxes}}}'
    path = file(text, "both.json")
    with pytest.raises(DatasetError) as error:
        read_boxes(path)
    message = str(error.value)
    assert message.startswith(f"{path}, record 2: ")
    assert what in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "change",
    [
        '"bbox": [1' + "0" * 400 + ", 1, 1, 1]",
        '"bbox": [NaN, 1, 1, 1]',
        '"bbox": [0, Infinity, 1, 1]',
    ],
)
def test_wrong_boxes_of_alphaction_are_named(file, change):
    text = f'[{{"image_id": 70902, "score": 0.9, {change}}}]'
    path, images = file(text, "boxes.json"), file(json.dumps({"images": IMAGES}), "images.json")
    with pytest.raises(DatasetError, match=r"boxes\.json, record 1: "):
        read_boxes(path, images)


def test_images_of_alphaction_are_there_once(file):
    boxes = [{"image_id": 70902, "bbox": [20, 10, 100, 50], "score": 0.9}]
    other = [*IMAGES, IMAGES[0], IMAGES[0] | {"width": 100}]
    path = file(json.dumps({"images": other, "annotations": boxes}), "both.json")
    with pytest.raises(
        DatasetError, match=r"record 3: the image 70902 differs from an earlier one"
    ):
        read_boxes(path)


@given(st.text(alphabet="ab0129.,-\n\r\"' ", max_size=120))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "any.csv"
    path.write_bytes(text.encode())
    for read in (read_boxes, read_excluded, read_label_map):
        message = ""
        try:
            read(path)
        except DatasetError as error:
            message = str(error)
        assert not message or str(path) in message
        assert "\n" not in message


ROW = "v,0902,0.1,0.2,0.3,0.4,5,0.5"


def slow_rows(text):
    """(video, second, x1, y1, x2, y2, action id, score) of each row, and the row's number."""
    rows = []
    for number, line in enumerate(text.lstrip("\ufeff").split("\n"), 1):
        cells = next(csv.reader([line.rstrip("\r")]), [])
        if cells:
            rest = [float(c) for c in cells[2:6]] or [np.nan] * 4
            action = int(cells[6]) if len(cells) > 6 else -1
            score = float(cells[7]) if len(cells) > 7 else np.nan
            rows.append((cells[0], float(cells[1]), *rest, action, score, number))
    return rows


def rows_of(table):
    names = [table.names[i] for i in table.video]
    columns = (names, table.second, *table.boxes.T, table.action, table.score, table.row)
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


@settings(max_examples=60)
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
        patch.setattr(annotations, "BLOCK", block)
        rows_read = rows_of(read_csv(path))
    expected = slow_rows(text)
    assert len(rows_read) == len(expected)
    for a, b in zip(rows_read, expected, strict=True):
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1:], b[1:])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v,0902,0.1", r"expected video,second,.*\(no header\), not 'v,0902,0.1'"),
        (ROW + ",1", "expected video,second"),
        ("video,second,x1,y1,x2,y2,action,score", "second is not a number: 'second'"),
        (ROW.replace("0.1", "left"), "x1 is not a number: 'left'"),
        (ROW.replace("0.1", ""), "x1 is empty"),
        ("a,two", "second is not a number: 'two'"),
        ("a,2,0.1,nan,0.3,0.4,1,0", "y1 is not a finite number: nan"),
        ("a,2,0.1,0.2,0.3,0.4,one,0", "action is not a number: 'one'"),
        ("a,2,0.1,0.2,0.3,0.4,nan,0", "action is not a finite number: nan"),
        ("a,2,0.1,0.2,0.3,0.4,1.5,0", "action 1.5 is not a whole number"),
        ("a,2,0.1,0.2,0.3,0.4,9999999999,0", "action 9999999999 is not a whole number"),
        ("a,2,0.1,0.2,0.3,0.4,-2,0", "action -2 is below 0"),
        ("a,2,0.1,0.2,0.3,0.4,1,inf", "score is not a finite number: inf"),
        (",2,0.1,0.2,0.3,0.4,1,0", "name of the video is empty"),
        (" ,2", "name of the video is empty"),
        ("a,9" + "9" * 5000, "second is not a finite number: inf"),
        ("a,1099512,0.1,0.2,0.3,0.4,1,0", r"second 1099512 is not in \[0, "),
        ("a,-1,0.1,0.2,0.3,0.4,1,0", r"second -1 is not in \[0, "),
        (ROW.replace("0902", "nan"), "second is not a finite number: nan"),
        (ROW.replace("v", "\udcff"), "video is not text in UTF-8"),
        (ROW.replace("v", '"a,b"'), "expected video,second"),
        (ROW.replace("v", '"v'), "quotes are not around whole cells"),
        (ROW.replace("0.3", "0\r.3"), "a carriage return within the row"),
        (ROW.replace(",5", "\r,5"), "a carriage return within the row"),
    ],
)
@pytest.mark.parametrize("block", [40, 1 << 20])
def test_wrong_rows_are_named(tmp_path, monkeypatch, line, message, block):
    monkeypatch.setattr(annotations, "BLOCK", block)
    path = tmp_path / "rows.csv"
    lines = [ROW, "v,0903", "", ROW, line, ROW, line]
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=f"rows.csv, row 5: .*{message}") as error:
        read_csv(path)
    assert "\n" not in str(error.value)


def test_of_several_wrong_cells_the_first_is_named(file):
    path, messages = file("video,second,x1,y1,x2,y2,action,score\n"), set()
    for _ in range(500):
        with pytest.raises(DatasetError) as error:
            read_csv(path)
        messages.add(str(error.value))
    assert messages == {f"{path}, row 1: second is not a number: 'second'"}


def test_a_quote_that_is_not_closed_takes_no_other_row_along(file):
    with pytest.raises(DatasetError, match="row 2: quotes are not around whole cells"):
        read_csv(file('v,1,0,0,1,1,5,1\n"v,2,0,0,1,1,5,1\n",3,0,0,1,1,5,1\n'))


def test_no_file(tmp_path):
    with pytest.raises(DatasetError, match="no.csv: not readable"):
        read_boxes(tmp_path / "no.csv")
