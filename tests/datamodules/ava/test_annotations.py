import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.ava.annotations import (
    NO_ACTION,
    check_boxes,
    check_score,
    read_boxes,
    read_excluded,
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
    assert table.text[0].as_py() == "0.077,0.151,0.283,0.811"
    check_boxes(table, [9, 11, 80])


def test_person_boxes_keyframes_without_boxes_and_seven_columns(file):
    table = read_boxes(file("a,0902,0.1,0.2,0.3,0.4,,0.912\r\na,903,0.1,0.2,0.3,0.4,7,0.5\r\n"))
    assert table.action.tolist() == [NO_ACTION, 7]
    assert table.score.tolist() == [0.912, 0.5]
    check_score(table)
    table = read_boxes(file("\n\ufeffa,1,0.1,0.2,0.3,0.4,1\n\nb,0901\na,2,0.1,0.2,0.3,0.4,1\n"[1:]))
    assert table.row.tolist() == [1, 4]
    assert table.names == ("a", "b")
    assert table.empty.tolist() == [[1, 901]]
    assert np.isnan(table.score).all()
    with pytest.raises(DatasetError, match="row 1: expected a person score"):
        check_score(table)


def test_whole_seconds_may_have_decimals_in_all_rows(file):
    table = read_boxes(file("a,902.000000,0.1,0.2,0.3,0.4,1,0\na,903.000000\na,0904.\n"))
    assert table.second.tolist() == [902]
    assert table.empty.tolist() == [[0, 903], [0, 904]]
    assert table.empty_row.tolist() == [2, 3]
    assert read_excluded(file("a,902.000000\n")) == {("a", 902)}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a,2,0.1,0.2,0.3", "expected video,second,x1"),
        ("a,2,0.1,0.2,0.3,0.4,1,2,3", "expected video,second,x1"),
        ("a,two", "whole second"),
        ("a,2.5,0.1,0.2,0.3,0.4,1,0", "second is no whole number: '2.5'"),
        ("a,,0.1,0.2,0.3,0.4,1,0", "second is no whole number: ''"),
        ("a,2,0.1,x,0.3,0.4,1,0", "y1 is no number: 'x'"),
        ("a,2,0.1,nan,0.3,0.4,1,0", "y1 is no number: 'nan'"),
        ("a,2,0.1,0.2,0.3,0.4,one,0", "action is no whole number"),
        (",2,0.1,0.2,0.3,0.4,1,0", "video is empty"),
        ("a,903.5", "whole second"),
        ("a,9" + "9" * 5000, "whole second"),
        ("a,-1", "whole second"),
        ("a,1099512", r"second 1099512 is not in \[0, "),
        ("a,1099512,0.1,0.2,0.3,0.4,1,0", r"second 1099512 is not in \[0, "),
        ("a,-1,0.1,0.2,0.3,0.4,1,0", r"second -1 is not in \[0, "),
    ],
)
def test_malformed_rows_are_named(file, row, what):
    path = file(f"a,1,0.1,0.2,0.3,0.4,1,0\n\nb,0001\n{row}\na,3,0.1,0.2,0.3,0.4,1,0\n")
    with pytest.raises(DatasetError, match=rf"{path}, row 4: .*{what}"):
        read_boxes(path)


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
        check_boxes(table, [1, 2])


def test_only_boxes_of_a_detector_may_have_no_action(file):
    table = read_boxes(file("a,1,0.1,0.2,0.3,0.4,,0.9\na,2,0.1,0.2,0.3,0.4,-1,0.9\n"))
    check_boxes(table, [1], unlabelled=True)
    with pytest.raises(DatasetError, match="row 1: no action id"):
        check_boxes(table, [1])


def test_the_map_of_sixty_classes_says_what_to_do(file):
    table = read_boxes(file("a,1,0.1,0.2,0.3,0.4,80,0\n"))
    with pytest.raises(DatasetError, match="use that of all 80"):
        check_boxes(table, range(1, 61))


def test_pickles_are_refused_and_empty_files_too(tmp_path, file):
    path = tmp_path / "boxes.pkl"
    path.write_bytes(pickle.dumps({"a,0902": np.zeros((1, 5))}))
    with pytest.raises(DatasetError, match="pickles are not read, .* csv .* json"):
        read_boxes(path)
    with pytest.raises(DatasetError, match="no rows"):
        read_boxes(file(""))


def test_excluded_timestamps(file):
    path = file("a,0902\n\nb,1700\n")
    assert read_excluded(path) == {("a", 902), ("b", 1700)}
    table = read_boxes(file("a,902,0,0,1,1,1,0\na,903,0,0,1,1,1,0\nb,1700\nb,1701\n", "gt.csv"))
    kept = table.without(read_excluded(path))
    assert kept.second.tolist() == [903]
    assert kept.row.tolist() == [2]
    assert kept.empty.tolist() == [[1, 1701]]
    assert kept.empty_row.tolist() == [4]
    with pytest.raises(DatasetError, match="row 2: expected video,second"):
        read_excluded(file("a,0902\na\n"))


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
        ('"timestamp": Infinity', "no whole second"),
        ('"timestamp": NaN', "no whole second"),
        ('"timestamp": 902.7', "no whole second: 902.7"),
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
    with pytest.raises(DatasetError, match=r"record 3: the image 70902 is there twice"):
        read_boxes(path)


@given(st.text(alphabet="ab0129.,-\n\r\"' ", max_size=120))
@settings(max_examples=200, deadline=None)
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
