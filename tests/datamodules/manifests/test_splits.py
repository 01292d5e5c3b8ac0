import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import DatasetError
from datamodules.manifests.lists import NO_LABEL
from datamodules.manifests.parquet import ManifestMetadata, write_manifest
from datamodules.manifests.splits import list_split, list_videos, read_split


def videos_of(sources):
    """Lists among the sources are relative to their folders."""
    return list_videos(sources, lambda file: list_split(file, file.parent, None))


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def rows(manifest):
    return [(manifest.path(i), manifest.label(i)) for i in range(len(manifest))]


def test_class_folders_are_sorted_and_other_files_left_out(tmp_path, caplog):
    b, a = touch(tmp_path / "walk/b.MP4"), touch(tmp_path / "jump/x/a.webm")
    touch(tmp_path / "jump/notes.txt")
    touch(tmp_path / "c.mp4")
    touch(tmp_path / "walk/.DS_Store")
    touch(tmp_path / ".cache/c.mp4")
    manifest = read_split(tmp_path, tmp_path, None)
    assert manifest.class_names == ("jump", "walk")
    assert rows(manifest) == [(str(a), 0), (str(b), 1)]
    assert caplog.messages == [f"{tmp_path}: 2 files are skipped, such as {tmp_path / 'c.mp4'}"]
    caplog.clear()
    videos_of([tmp_path / "jump"])
    assert caplog.messages == [
        f"{tmp_path / 'jump'}: 1 file is skipped, such as {tmp_path / 'jump/notes.txt'}"
    ]


OLD_AND_RARE = (".3gp", ".3g2", ".asf", ".gif", ".m2ts", ".mts", ".mxf", ".nut", ".ogv", ".VOB")


@pytest.mark.parametrize("suffix", OLD_AND_RARE)
def test_suffixes_of_videos(tmp_path, suffix):
    path = touch(tmp_path / f"walk/a{suffix}")
    assert rows(read_split(tmp_path, tmp_path, None)) == [(str(path), 0)]


def test_class_folders_keep_the_ids_of_known_classes(tmp_path):
    touch(tmp_path / "walk/b.mp4")
    manifest = read_split(tmp_path, tmp_path, ["swim", "walk"])
    assert manifest.label(0) == 1
    with pytest.raises(DatasetError, match="walk: not one of the 1 known classes"):
        read_split(tmp_path, tmp_path, ["swim"])


@pytest.mark.parametrize("header", ["path,label\n", ""])
def test_csv_with_names(tmp_path, header):
    text = f'{header}a b/ü.mp4,walk\n"c,d.mp4",jump\n\n'
    manifest = read_split(write(tmp_path / "train.csv", text), tmp_path, None)
    assert manifest.class_names == ("jump", "walk")
    assert rows(manifest) == [(str(tmp_path / "a b/ü.mp4"), 1), (str(tmp_path / "c,d.mp4"), 0)]


def test_csv_whose_names_look_like_ids_of_a_list(tmp_path):
    source = write(tmp_path / "train.csv", "a.mp4,class 0\nb.mp4,class 1\n")
    manifest = read_split(source, tmp_path, None)
    assert manifest.class_names == ("class 0", "class 1")
    assert rows(manifest) == [(str(tmp_path / "a.mp4"), 0), (str(tmp_path / "b.mp4"), 1)]


def test_list_of_pyslowfast_with_spaces_in_paths(tmp_path):
    source = write(tmp_path / "train.csv", f"{tmp_path}/a b.mp4 2\nc, d.mp4 0\n")
    manifest = read_split(source, tmp_path, None)
    assert manifest.class_names == ("0", "1", "2")
    assert rows(manifest) == [(f"{tmp_path}/a b.mp4", 2), (f"{tmp_path}/c, d.mp4", 0)]
    named = read_split(source, tmp_path, ["x", "y", "z"])
    assert named.label(0) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,walk\nb.mp4\n", "row 3: expected"),
        ("path,label\na.mp4,walk\nb.mp4,\n", "row 3: expected"),
        ("path,label\na.mp4,fly\n", "row 2: label 'fly' is not one of the 2 known classes"),
        ("a.mp4 7\n", "row 1: label '7' is not one of"),
        ("path,label\n../a.mp4,walk\n", r"row 2: '../a.mp4' lies outside data.root"),
        ("path,label\n/etc/a.mp4,walk\n", r"row 2: '/etc/a.mp4' lies outside data.root"),
        ("path,label\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_wrong_lists_name_file_and_row(tmp_path, text, message):
    source = write(tmp_path / "list.csv", text)
    with pytest.raises(DatasetError, match=message) as error:
        read_split(source, tmp_path, ["jump", "walk"])
    assert str(source) in str(error.value)
    assert "\n" not in str(error.value)


def test_ids_or_names_are_told_apart_once_for_a_file(tmp_path):
    source = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 1\nc.mp4 2\n")
    found = [label for _, label in rows(read_split(source, tmp_path, ["1", "2", "3"]))]
    assert found == [0, 1, 2]  # ids, as "0" is not a name
    source = write(tmp_path / "list.txt", "a.mp4 1\nb.mp4 3\n")
    assert [x for _, x in rows(read_split(source, tmp_path, ["1", "2", "3"]))] == [0, 2]  # names


def test_videos_without_labels(tmp_path):
    source = write(tmp_path / "list.txt", "path\na.mp4\nb c.mp4\n")
    manifest = read_split(source, tmp_path, None)
    assert rows(manifest) == [(f"{tmp_path}/a.mp4", NO_LABEL), (f"{tmp_path}/b c.mp4", NO_LABEL)]
    touch(tmp_path / "flat/x.mp4")
    assert rows(read_split(tmp_path / "flat", tmp_path, None)) == [(f"{tmp_path}/flat/x.mp4", -1)]


def test_missing_empty_and_binary_sources(tmp_path):
    with pytest.raises(DatasetError, match="no such folder or file"):
        read_split(tmp_path / "train", tmp_path, None)
    with pytest.raises(DatasetError, match="no videos"):
        read_split(tmp_path, tmp_path, None)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DatasetError, match="not a readable text file"):
        read_split(tmp_path / "x.csv", tmp_path, None)


names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]), min_size=1)


@given(st.lists(st.tuples(names, st.integers(0, 500)), min_size=1, max_size=20))
def test_any_file_name_survives_a_list(tmp_path_factory, videos):
    root = tmp_path_factory.mktemp("lists")
    videos = [(f"v/{name.replace('/', '_').replace(chr(0), '')}.mp4", i) for name, i in videos]
    source = write(root / "train.txt", "".join(f"{path} {i}\n" for path, i in videos))
    manifest = read_split(source, root, None)
    assert rows(manifest) == [(f"{root}/{path}", i) for path, i in videos]


def test_videos_to_predict(tmp_path):
    a, b = touch(tmp_path / "x/a.mp4"), touch(tmp_path / "x/y/b.mkv")
    odd = touch(tmp_path / "no-suffix")
    manifest = videos_of([tmp_path / "x", odd])
    assert rows(manifest) == [(str(p), NO_LABEL) for p in (a, b, odd)]
    with pytest.raises(DatasetError, match="gone: no such file or folder"):
        videos_of([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no video files found"):
        videos_of([tmp_path / "empty"])


def test_a_manifest_to_predict(tmp_path):
    a = touch(tmp_path / "x/a.mp4")
    table = pa.table({"path": ["a.mp4"], "label": pa.array([0], pa.int64())})
    file = tmp_path / "manifest.parquet"
    write_manifest(file, table, ManifestMetadata(["jump"], str(tmp_path / "x")))
    b = touch(tmp_path / "y/b.mp4")
    for source in (file, tmp_path):  # the file, or the folder that holds it
        manifest = videos_of([source])
        assert rows(manifest) == [(str(a), NO_LABEL)]
        assert manifest.class_names == ()
    assert rows(videos_of([file, b])) == [(str(a), NO_LABEL), (str(b), NO_LABEL)]
    columns = {"shard": ["s.tar"], "offset": [0], "bytes": [1]}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    write_manifest(file, table, ManifestMetadata(["jump"], str(tmp_path / "x")))
    assert len(videos_of([tmp_path])) == 1
    with pytest.raises(DatasetError, match="its videos are packed; predict them alone"):
        videos_of([file, b])
