"""Lists as people and tools write them: read right, or refused with the row."""

import csv
import io
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import DatasetError
from datamodules.manifests.labels import label_ids
from datamodules.manifests.layout import LABEL_NAMES, PATH_NAMES
from datamodules.manifests.lists import is_media
from datamodules.manifests.text_lists import read_list

ROOT = Path("/videos")


def rows_of(file, text):
    """The path below the root and the label of each row."""
    file.write_bytes(text.encode())
    return [(row.video.removeprefix(f"{ROOT}/"), row.label) for row in read_list(file, ROOT)]


def read(tmp_path, text):
    return rows_of(tmp_path / "list.csv", text)


VIDEOS = [("a b/ü.mp4", "walk"), ("c.MKV", "jump high")]


@pytest.mark.parametrize(
    "header",
    [
        *("path,label", "Path,Label", "video_path,label", "filename,class", "FILE NAME,Class Name"),
        *("file,category", "video,target", "name,action", "clip,label_id", '"videoPath","Class"'),
        *("id,path", "\ufeffpath,label", "video-name , labels"),
    ],
)
def test_headers_of_any_usual_spelling(tmp_path, header):
    if header == "id,path":  # of paths without a class, this is a list with an unknown column
        with pytest.raises(
            DatasetError, match="row 1: the header has no column for the label .* only: id, pat"
        ):
            read(tmp_path, "id,path\n1,a.mp4\n")
        return
    assert read(tmp_path, f"{header}\na b/ü.mp4,walk\nc.MKV,jump high\n") == VIDEOS


@pytest.mark.parametrize(
    "text",
    [
        "label,path\nwalk,a b/ü.mp4\njump high,c.MKV\n",
        ",class_id,fps,path,class\n0,7,30,a b/ü.mp4,walk\n1,3,25,c.MKV,jump high\n",
        "split,label,name,video_path\ntrain,walk,x,a b/ü.mp4\ntrain,jump high,y,c.MKV\n",
        "path\tlabel\na b/ü.mp4\twalk\nc.MKV\tjump high\n",
        "a b/ü.mp4\twalk\nc.MKV\tjump high\n",
        "label;path\nwalk;a b/ü.mp4\njump high;c.MKV\n",
        "a b/ü.mp4;walk\r\nc.MKV;jump high\r\n",
        "path,label\ra b/ü.mp4,walk\rc.MKV,jump high\r",
        "#by hand, mostly\n\npath,label\n#\na b/ü.mp4,walk\n  # x.mp4,run\nc.MKV,jump high\n",
        "#path,label\na b/ü.mp4,walk\nc.MKV, jump high",
    ],
)
def test_columns_in_any_order_other_delimiters_and_comments(tmp_path, text):
    assert read(tmp_path, text) == VIDEOS


@pytest.mark.parametrize(
    "text",
    [
        "a b.mp4 2\nc, d.mp4 0\n",  # PySlowFast, VideoMAE, mmaction2
        "path label\na b.mp4 2\nc, d.mp4 0\n",
        "label path\n2 a b.mp4\n0 c, d.mp4\n",
        '"a b.mp4",2\n"c, d.mp4",0\n',
    ],
)
def test_paths_with_spaces_and_commas(tmp_path, text):
    assert read(tmp_path, text) == [("a b.mp4", "2"), ("c, d.mp4", "0")]


def test_a_row_that_begins_with_a_hash_is_not_lost(tmp_path):
    text = "label,path\nwalk,a.mp4\n#1 fan,fan/clip.mp4\n"
    with pytest.raises(DatasetError, match=r"row 3: a comment or a row\? '#1 fan,fan/clip.mp4'; "):
        read(tmp_path, text)
    rows = [("a.mp4", "walk"), ("fan/clip.mp4", "#1 fan")]
    assert read(tmp_path, text.replace("#1 fan", '"#1 fan"')) == rows
    for text in ("label path\nwalk a.mp4\n#1 fan/clip.mp4\n", "label,path\nwalk,a\n#1,fan\n"):
        with pytest.raises(DatasetError, match=r"row 3: a comment or a row\?"):
            read(tmp_path, text)
    with pytest.raises(DatasetError, match=r"row 1: a comment or a row\?"):
        read(tmp_path, "#1/a.mp4 3\nb.mp4 4\n")
    assert read(tmp_path, "./#1/a.mp4 3\nb.mp4 4\n") == [("#1/a.mp4", "3"), ("b.mp4", "4")]


@pytest.mark.parametrize("text", ["path\na.mp4\nb c.mp4\n", "a.mp4\nb c.mp4\n", "# x\nVideo\n"])
def test_videos_without_labels(tmp_path, text):
    if "mp4" in text:
        assert read(tmp_path, text) == [("a.mp4", ""), ("b c.mp4", "")]
        assert read(tmp_path, text.replace("b c.mp4", '"b,c.mp4"'))[1] == ("b,c.mp4", "")
    else:
        with pytest.raises(DatasetError, match=r"list.csv: no rows below its header"):
            read(tmp_path, text)


def test_labels_that_look_like_something_else(tmp_path):
    assert read(tmp_path, "a.mp4,class 0\nb.mp4,label\n") == [
        *(("a.mp4", "class 0"), ("b.mp4", "label"))
    ]
    assert read(tmp_path, 'a.mp4,"wave, one hand"\n') == [("a.mp4", "wave, one hand")]


WRONG = [
    ("walk,a.mp4\njump,b.mp4\n", "row 1: the label 'a.mp4' is the name of a video, and the path"),
    (
        "path,label\nwalk,a.mp4\n",
        "row 2: the label 'a.mp4' .* path is 'walk'; write the path first",
    ),
    ("a.mp4,walk\njump,b.mp4\n", "row 2: the label 'b.mp4' is the name of a video"),
    ("a.mp4,b.mp4\n", "row 1: the label 'b.mp4' is the name of a video, and so is the path"),
    ("clips/a 120 3\nclips/b 90 1\n", "row 1: 'clips/a 120 3' looks like a folder of frames"),
    ("a.mp4 1 4\nb.mp4 2\n", "row 1: 2 values after the path, not one label"),
    ("a.mp4 2\nb.mp4 1 4\n", "row 2: 2 values after the path, not one label"),
    ("a.mp4,1,4\nb.mp4,2,3\n", "row 1: 2 values after the path, not one label"),
    ('path,label\na.mp4,"1,4"\n', r"row 2: several labels \(1,4\); a video has one class"),
    ("a.mp4,1 4\n", r"row 1: several labels \(1 4\)"),
    ("a.mp4 0\nb.mp4 -1\n", "row 2: label -1 is not the id of a class"),
    ("clip_of,sport\na.mp4,ski\n", "row 1: neither a video nor a header .*'clip_of,sport'"),
    (
        "path,sport\na.mp4,ski\n",
        "row 1: the header has no column for the label .* only: path, sport",
    ),
    (
        "clip_of,label\na.mp4,ski\n",
        "row 1: the header has no column for the path .* only: clip_of, label",
    ),
    ("path,label,split\na.mp4,x,train\nb.mp4,y,val\n", r"several splits \(train, val\); write a"),
    (
        "path,label\na.mp4,walk\nb.mp4\n",
        "row 3: expected 2 cells, as in the header, not 1: 'b.mp4'",
    ),
    ("path,label\na.mp4,walk\nb.mp4,\n", "row 3: expected a path and a label, not 'b.mp4,'"),
    ("a.mp4,walk\nb.mp4\n", "row 2: expected 'path,label', 'path id' or"),
    ("a.mp4\nnotes\n", "row 2: expected the path of a video, not 'notes'"),
    ("path,label\n../a.mp4,walk\n", r"row 2: '../a.mp4' lies outside data.root"),
    ("path,label\n/etc/a.mp4,walk\n", r"row 2: '/etc/a.mp4' lies outside data.root"),
    ("path,label\n.,walk\n", r"row 2: '.' is not a file"),
    ("path,label\n", "no rows below its header"),
    ("path,label\na.mp4,x\npath,label\nb.mp4,x\n", "row 3: the header again; a list has one"),
    ("# nothing\n\n", "no rows"),
    ("", "no rows"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_list_names_file_and_row(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message) as error:
        read(tmp_path, text)
    assert str(tmp_path / "list.csv") in str(error.value)
    assert "\n" not in str(error.value)


def ids_of(tmp_path, text, class_names=None):
    """Ids of the rows, and the classes."""
    file = tmp_path / "list.csv"
    file.write_text(text)
    return label_ids(file, read_list(file, ROOT), class_names)


def numbered(labels):
    return "".join(f"{i}.mp4 {label}\n" for i, label in enumerate(labels))


@pytest.mark.parametrize(
    ("labels", "ids", "names"),
    [
        ([1, 0, 2], [1, 0, 2], "012"),
        ([1, 3, 2], [0, 2, 1], "123"),  # from 1: no class 0
        ([5, 0, 12], [1, 0, 2], ["0", "5", "12"]),  # gaps: three classes, in the order of numbers
        (["001", "010", "002"], [0, 2, 1], ["001", "002", "010"]),
        (["1.0", "0.0", "10.0"], [1, 0, 2], ["0", "1", "10"]),  # from a spreadsheet
        (["07", "7"], [0, 0], ["7"]),
        (["1", "x", "10"], [0, 2, 1], ["1", "10", "x"]),  # names
    ],
)
def test_numbers_as_labels_make_no_classes_that_do_not_occur(tmp_path, labels, ids, names):
    assert ids_of(tmp_path, numbered(labels)) == (ids, tuple(names))


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        ([3, 1], "123", [2, 0]),  # of a training split that numbers from 1
        (["2", "01"], ["001", "002"], [1, 0]),
        (["001"], "12", [0]),
        ([0, 1, 2], "xyz", [0, 1, 2]),  # ids, where the classes have real names
        (["02"], "xyz", [2]),
        (["1", "01"], ["01", "1"], [1, 0]),
    ],
)
def test_the_labels_of_another_split_mean_the_same(tmp_path, labels, names, ids):
    assert ids_of(tmp_path, numbered(labels), names)[0] == ids


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([1, 0], "123", "row 2: label '0' is not one of the 3 known classes"),
        ([1, 3], "xyz", r"row 2: label '3' is not one of the 3 known classes \(x, y, z\) or their"),
        (["walk"], ["Swim", "Walk"], r"row 1: label 'walk' is not one .*; did you mean Walk\?$"),
        (["x", "0"], "xy", "row 2: label '0' is not one of the 2"),
        (
            ["fly"],
            "abcdefg",
            r"row 1: label 'fly' is not one of the 7 .*\(a, b, c, d, e and 2 more\)",
        ),
    ],
)
def test_a_label_of_no_class_names_the_row(tmp_path, labels, names, message):
    with pytest.raises(DatasetError, match=message):
        ids_of(tmp_path, numbered(labels), names)


words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).map(
    lambda text: " ".join(text.split())
)
paths = words.map(lambda name: f"v/{name.replace('/', '_')}.mp4")
labels = words.filter(
    lambda text: text and not text[0].isdecimal() and text[0] != "-" and not is_media(text)
)
spelt = {
    "upper": str.upper,
    "title": str.title,
    "plain": str,
    "wide": lambda name: f' "{name}" ',
}


@given(
    st.lists(st.tuples(paths, labels), min_size=1, max_size=10),
    st.sampled_from([",", "\t", ";"]),
    st.sampled_from(PATH_NAMES),
    st.sampled_from(LABEL_NAMES),
    st.sampled_from(sorted(spelt)),
    st.permutations(["path", "label", "fps", ""]),
    st.sampled_from(["\n", "\r\n"]),
    st.randoms(use_true_random=False),
)
def test_any_table_with_a_header_is_read(
    tmp_path_factory, videos, delimiter, path, label, spelling, order, newline, rng
):
    name_of = {"path": spelt[spelling](path), "label": spelt[spelling](label)}
    lines = [delimiter.join(name_of.get(column, column) for column in order)]
    for video, of in videos:
        cells = {"path": video, "label": of, "fps": "30"}
        line = io.StringIO()
        csv.writer(line, delimiter=delimiter, lineterminator="").writerow(
            [cells.get(column, "") for column in order]
        )
        lines.append(line.getvalue())
    lines = [part for line in lines for part in rng.choice([[line], ["# x", "", line]])]
    file = tmp_path_factory.getbasetemp() / "table.csv"
    if not any(re.match(r"\s*#", line) and line != "# x" for line in lines):
        assert rows_of(file, newline.join(lines)) == videos
    elif not any(re.match(r"\s*#+(\s|$)", line) and line != "# x" for line in lines):
        with pytest.raises(DatasetError, match="a comment or a row|no rows below"):
            rows_of(file, newline.join(lines))


@given(st.lists(st.tuples(paths, st.integers(0, 500)), min_size=1, max_size=20), st.booleans())
def test_any_file_name_survives_a_list(tmp_path_factory, videos, has_header):
    header = "path label\n" if has_header else ""
    file = tmp_path_factory.getbasetemp() / "train.txt"
    text = header + "".join(f"{path} {i}\n" for path, i in videos)
    assert rows_of(file, text) == [(path, str(i)) for path, i in videos]


pieces = st.sampled_from(
    ["a.mp4", "walk", "path", "label", "7", "-1", ",", ";", "\t", " ", "\n", '"', "#", "..", "\r"]
)


@settings(max_examples=300)
@given(st.lists(pieces, max_size=25).map("".join))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    try:
        rows, message = rows_of(file, text), ""
    except DatasetError as error:
        rows, message = [], str(error)
    assert bool(rows) != bool(message)
    assert not message or str(file) in message
    assert "\n" not in message
    assert all(path and not label.endswith(".mp4") for path, label in rows)
    assert len({bool(label) for _, label in rows}) <= 1


def test_another_encoding_names_the_row(tmp_path):
    (tmp_path / "list.csv").write_bytes("a.mp4,gehen\nb.mp4,h\u00fcpfen\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="row 2: not a readable text file; save it as UTF-8"):
        read_list(tmp_path / "list.csv", ROOT)


def test_a_large_list_is_decided_by_its_first_lines(tmp_path):
    lines = [f"{i}.mp4 {i % 7}" for i in range(3000)]
    random.Random(0).shuffle(lines)
    assert len(read(tmp_path, "\n".join(lines))) == 3000
    with pytest.raises(DatasetError, match="row 3001: expected 'path,label'"):
        read(tmp_path, "\n".join([*lines, "x"]))
