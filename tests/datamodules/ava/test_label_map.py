import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.ava.label_map import read_label_map
from datamodules.errors import DatasetError

ITEMS = """item {
  name: "bend/bow (at the waist)"
  id: 1
}
item {
  name: "watch (a person)"   # a comment
  id: 80
}
"""
LABELS = """label { name: "stand"
  label_id: 12
  label_type: PERSON_MOVEMENT }
label {
  name: "talk to (e.g., self, a person, a group)"
  label_id: 3
  label_type: PERSON_INTERACTION
}"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "actions.pbtxt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_both_published_forms(file):
    names = read_label_map(file(ITEMS))
    assert names == {1: "bend/bow (at the waist)", 80: "watch (a person)"}
    names = read_label_map(file(LABELS))
    assert list(names.items()) == [(3, "talk to (e.g., self, a person, a group)"), (12, "stand")]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('item { name: "a" id: 1 } item { name: "b" id: 2 }', {1: "a", 2: "b"}),
        ('item\n{\nname: "a"\nid: 1\n}\n', {1: "a"}),
        ('item: { id: 1, name: "a"; }', {1: "a"}),
        ("item { name: \"walk 'fast'\" id: 1 }", {1: "walk 'fast'"}),
        ("item { name: '\"a\"' id: 1 }", {1: '"a"'}),
        (r'item { name: "say \"hi\" \\" id: 1 }', {1: 'say "hi" \\'}),
        ('# item {\nitem { # } {\r\n name: "# { } a" # "\n id: 1 }', {1: "# { } a"}),
        ("item { name: walk id: 007 }", {7: "walk"}),
    ],
)
def test_other_ways_to_write_them(file, text, names):
    assert read_label_map(file(text)) == names


@pytest.mark.parametrize(
    ("text", "row", "what"),
    [
        ('item {\n name: "a"\n}\n', 3, "positive id"),
        ("item {\n id: 1\n}\n", 3, "a name"),
        ('item {\n name: "a"\n id: 0\n}\n', 4, "positive id"),
        ('item {\n name: "a"\n id: 10000000\n}\n', 4, "positive id"),
        ('item {\n name: "a"\n id: 1\n label_id: 2\n}\n', 5, "positive id"),
        ('item {\n name: "a"\n name: "b"\n id: 1\n}\n', 3, "name is repeated"),
        ('item {\n name: "a"\n id: 1\n}\nitem {\n name: "b"\n id: 1\n}\n', 8, "is repeated"),
        ('item {\n name: "a"\n id: 1\n}\nitem {\n name: "a"\n id: 2\n}\n', 8, "is repeated"),
        ("1,stand\n", 1, "item {"),
        ('item { name: "a" id: 1 }\n"b"\n', 2, "item {"),
        ('item { name: "a" id: 1 }\nitem\n', 2, "item {"),
        ('item { name: "a" id: 1 }\n}\n', 2, "item {"),
        ('item {\n name: "a"\n id: 1\nitem {\n name: "b"\n id: 2\n}\n', 4, "'}', not 'item'"),
        ('item {\n name: "a"\n id: 1\n', 3, "'}'"),
        ('item {\n name: "a\n id: 1\n}\n', 2, "not part of a label map"),
        ('item {\n name: "a" "b"\n id: 1\n}\n', 2, "'name: value'"),
        ('item {\n name: "a\\n"\n id: 1\n}\n', 4, "escape"),
    ],
)
def test_wrong_label_maps_are_named(file, text, row, what):
    path = file(text)
    with pytest.raises(DatasetError) as error:
        read_label_map(path)
    assert str(error.value).startswith(f"{path}, row {row}: ")
    assert what in str(error.value)


def test_an_empty_file_is_none(file):
    for text in ("", "# nothing\n\n"):
        with pytest.raises(DatasetError, match="not a label map"):
            read_label_map(file(text))


@given(st.dictionaries(st.integers(1, 999_999), st.text("ab'\"\\{}# :é", min_size=1), min_size=1))
def test_what_is_written_is_read(tmp_path_factory, names):
    names = {number: f"{name}{number}" for number, name in names.items()}
    path = tmp_path_factory.mktemp("map") / "actions.pbtxt"
    escaped = {n: name.replace("\\", "\\\\").replace('"', '\\"') for n, name in names.items()}
    path.write_text(
        " ".join(f'item {{ name: "{name}" id: {n} }}' for n, name in escaped.items()), "utf-8"
    )
    assert read_label_map(path) == names
