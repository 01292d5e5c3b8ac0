"""Kinetics: the published csv and what lies on the disk."""

import csv
import io
import logging
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import DatasetError
from datamodules.kinetics import KineticsDataModule
from datamodules.manifests.lists import NO_LABEL
from datamodules.video.decoding import VideoFile
from tests.fake_processes import two_processes
from tests.video_files import moving_frames, write_video

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
CLIP = {"num_frames": 4, "stride": 2, "size": (32, 32), "batch_size": 2, "eval_batch_size": 2}


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def module(root, **kwargs):
    return KineticsDataModule(root, **{"num_classes": None, **CLIP, **kwargs})


def listed(root, split="train", class_names=None, **kwargs):
    """Rows of a split: (path below the root, name of the label), and the data module."""
    data = module(root, **kwargs)
    manifest = data.list_split(split, class_names)
    names = [*manifest.class_names, None]  # the last is the one of NO_LABEL = -1
    rows = [
        (manifest.path(i).removeprefix(f"{root}/"), names[manifest.label(i)])
        for i in range(len(manifest))
    ]
    return rows, data


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "x.mp4", moving_frames(20, 48, 64))


@pytest.fixture
def kinetics(tmp_path, video):
    """All three splits in the layouts that exist, with real videos; one of eleven is missing."""

    def put(path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, tmp_path / path)

    labels = ("jumping (high)", "eating 'übung', quick")
    rows = []
    for i in range(10):
        label = labels[i % 2]
        folder = label.replace(" ", "_").replace("(", "").replace(")", "").replace("'", "")
        put(f"train/{folder}/-id_{i}_00000{i}_0000{i + 10}.mp4")
        rows.append([label, f"-id_{i}", str(i), f"{i + 10}.0", "train", "0"])
    rows.append([labels[0], "gone", "1", "11", "train", "0"])
    text = io.StringIO()
    csv.writer(text).writerows([HEADER.strip().split(","), *rows])
    write(tmp_path / "annotations/kinetics-400_train.csv", text.getvalue())
    put("val/a_000417_000427.webm.mp4".replace(".webm", ""))
    put("val/b_000417_000427.mp4")
    text = f'{HEADER}{labels[0]},a,417,427,validate,0\n"{labels[1]}",b,417,427,validate,0\n'
    write(tmp_path / "annotations/validate.csv", text)
    put("test/c_000001_000011.mp4")
    put("test/d_000001_000011.mp4")
    text = "youtube_id,time_start,time_end,split\nc,1,11,test\nd,1,11,test\n"
    write(tmp_path / "annotations/test.csv", text)
    return tmp_path


def test_fit_test_and_predict(kinetics, caplog):
    data = module(kinetics, repeats=2, max_missing_share=0.1, num_classes=2)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    places = f"{kinetics}, the first in row 12"
    assert f"1 of 11 videos is missing in {places}: train/gone_000001_000011" in caplog.text
    assert data.class_names == ("eating 'übung', quick", "jumping (high)")
    train = data.manifests["train"]
    assert [train.label(i) for i in range(10)] == [1, 0] * 5
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape == (4, 3, 4, 32, 32)
    assert batch["label"].tolist() == [train.label(int(i)) for i in batch["video_id"]]

    data = module(kinetics, test_views=(2, 3))
    data.setup("test")  # of the validation split
    assert data.class_names == ("eating 'übung', quick", "jumping (high)")
    assert "train" not in data.manifests  # its videos were not looked for
    (batch,) = data.test_dataloader()
    assert batch["video"].shape == (12, 3, 4, 32, 32)
    assert batch["label"].tolist() == [1] * 6 + [0] * 6
    assert batch["failed"] == []

    one = kinetics / "val/a_000417_000427.mp4"
    data = module(kinetics, predict=[str(kinetics / "annotations/test.csv"), str(one)])
    data.setup("predict")
    (first, second) = data.predict_dataloader()
    assert torch.cat([first["label"], second["label"]]).unique().tolist() == [NO_LABEL]
    paths = [data.manifests["predict"].path(i) for i in range(3)]
    assert paths == [*(str(kinetics / f"test/{n}_000001_000011.mp4") for n in "cd"), str(one)]


def test_a_labelled_annotation_is_predicted_without_its_labels(kinetics):
    file = kinetics / "annotations/validate.csv"
    data = module(kinetics, predict=[str(file)], class_names=["other"])  # of another model
    data.setup("predict")
    assert data.manifests["predict"].class_names == ()
    assert data.manifests["predict"].label(1) == NO_LABEL


def test_videos_lie_flat_or_in_folders_whose_names_may_have_changed(tmp_path):
    for name in ("a b/x_000417_000427.mp4", "ride_a_horse_quick/y_000000_000010.MKV"):
        touch(tmp_path / "clips" / name)
    touch(tmp_path / "clips/z_000001_000011.webm")
    touch(tmp_path / "clips/notes_000001_000011.txt")
    touch(tmp_path / "clips/.trash/z_000001_000011.mp4")
    touch(tmp_path / "clips/v_000001_000011.mp4/clip.mp4")  # a folder of that name
    (tmp_path / "clips/z_000001_000011.mp4").symlink_to(tmp_path / "nothing.mp4")
    text = f"{HEADER}a b,x,417.0,427.,train,0\n"
    text += "\"ride 'a' horse (quick)\",y,0,10,train,0\na b,z,1,11,train,0\n"
    write(tmp_path / "annotations/train.csv", text)
    touch(tmp_path / "annotations/._train.csv")  # as macOS writes it
    rows, _ = listed(tmp_path, videos={"train": "clips"})
    assert rows == [
        ("clips/a b/x_000417_000427.mp4", "a b"),
        ("clips/ride_a_horse_quick/y_000000_000010.MKV", "ride 'a' horse (quick)"),
        ("clips/z_000001_000011.webm", "a b"),
    ]


def test_columns_in_any_order_and_comments(tmp_path):
    touch(tmp_path / "train/x_000001_000011.mp4")
    text = "# of today\nSplit,time_end,time_start,youtube_id,Label\ntrain,11,1,x,#a\n"
    write(tmp_path / "train.csv", text)
    assert listed(tmp_path)[0] == [("train/x_000001_000011.mp4", "#a")]


def test_ids_of_a_list_are_kept_where_the_number_of_classes_is_known(tmp_path):
    touch(tmp_path / "a.mp4")
    write(tmp_path / "train.csv", "a.mp4 3\n")
    for num_classes, names, label in ((5, "01234", 3), (3, None, None), (None, "3", 0)):
        data = module(tmp_path, num_classes=num_classes, val=None, batch_size=1)
        if names is None:
            with pytest.raises(DatasetError, match="train.csv: 1 classes, not 3"):
                data.setup("fit")
            continue
        data.setup("fit")
        assert data.class_names == tuple(names)
        assert data.manifests["train"].label(0) == label


def test_of_several_files_the_one_of_the_label_is_taken(tmp_path):
    write(tmp_path / "train.csv", f"{HEADER}run fast,x,1,11,train,0\nsit,y,1,11,train,0\n")
    touch(tmp_path / "train/run_fast/x_000001_000011.mp4")
    touch(tmp_path / "train/other/x_000001_000011.mp4")
    touch(tmp_path / "train/y_000001_000011.mp4")
    rows, _ = listed(tmp_path)
    assert rows[0] == ("train/run_fast/x_000001_000011.mp4", "run fast")
    shutil.move(tmp_path / "train/run_fast", tmp_path / "train/another")
    with pytest.raises(DatasetError, match="row 2: two files") as error:
        listed(tmp_path)
    for folder in ("another", "other"):
        assert f"train/{folder}/x_000001_000011.mp4" in str(error.value)


def test_the_folder_is_asked_once_and_not_for_each_row(tmp_path, monkeypatch):
    for i in range(200):
        touch(tmp_path / f"train/l{i % 4}/x{i}_000000_000010.mp4")
    rows = "".join(f"l{i % 4},x{i},0,10,train,0\n" for i in range(200))
    write(tmp_path / "train.csv", HEADER + rows)
    asked = []
    scandir = __import__("os").scandir
    monkeypatch.setattr("os.scandir", lambda path: asked.append(path) or scandir(path))
    monkeypatch.setattr("os.path.exists", lambda path: pytest.fail("a row was asked for"))
    assert len(listed(tmp_path)[0]) == 200
    assert len(asked) == 5


@pytest.mark.parametrize("name", ["train.csv", "annotations/kinetics_700_train.csv", "k/train.csv"])
def test_where_the_annotation_is_looked_for(tmp_path, name):
    touch(tmp_path / "train/x_000000_000010.mp4")
    write(tmp_path / name, f"{HEADER}a,x,0,10,train,0\n")
    annotations = "k" if name.startswith("k/") else None
    assert listed(tmp_path, annotations=annotations)[0] == [("train/x_000000_000010.mp4", "a")]
    assert listed(tmp_path, split=name)[0] == [("train/x_000000_000010.mp4", "a")]
    write(tmp_path / "annotations/k600_train.csv", HEADER)
    if annotations is None:
        with pytest.raises(DatasetError, match=r"k600_train.csv.* are both annotations"):
            listed(tmp_path)


def test_lists_and_class_folders(tmp_path):
    touch(tmp_path / "a/1 2.mp4")
    touch(tmp_path / "b/ü.mp4")
    write(tmp_path / "train.csv", "a/1 2.mp4 0\nb/ü.mp4 1\n")
    write(
        tmp_path / "val.txt",
        f"split,video,class\nval,{tmp_path}/a/1 2.mp4,jump\nval,b/ü.mp4,walk\n",
    )
    write(tmp_path / "names.txt", "jump\n\nwalk\n")
    assert listed(tmp_path)[0] == [("a/1 2.mp4", "0"), ("b/ü.mp4", "1")]
    data = module(tmp_path, class_names="names.txt", num_classes=2)
    data.setup("fit")
    assert [data.manifests["train"].label(i) for i in range(2)] == [0, 1]
    assert data.manifests["val"].class_names == ("jump", "walk")
    shutil.move(tmp_path / "a", tmp_path / "folders/a")
    shutil.move(tmp_path / "b", tmp_path / "folders/b")
    assert listed(tmp_path, "folders")[0] == [("folders/a/1 2.mp4", "a"), ("folders/b/ü.mp4", "b")]


def test_missing_videos_are_listed_and_too_many_are_an_error(tmp_path):
    rows = "".join(f"a,x{i},0,10,train,0\n" for i in range(20))
    write(tmp_path / "train.csv", HEADER + rows)
    for i in range(1, 20):
        touch(tmp_path / f"train/x{i}_000000_000010.mp4")
    write(tmp_path / "val.txt", "train/x1_000000_000010.mp4 0\ntrain/gone, too.mp4 0\n")
    file = tmp_path / "lists/missing.csv"
    rows, data = listed(tmp_path, missing_videos=file)
    assert len(rows) == 19
    with pytest.raises(
        DatasetError, match=r"1 of 2 videos is missing in .*, the first in row 2: "
    ) as e:
        data.list_split("val", ["a"])
    assert str(e.value).endswith(f"(50.0%, and data.max_missing_share=0.05); listed in {file}")
    with open(file, newline="") as opened:
        assert list(csv.reader(opened)) == [
            ["split", "video", "file", "row"],
            ["train", "train/x0_000000_000010", f"{tmp_path}/train.csv", "2"],
            ["val", "train/gone, too.mp4", f"{tmp_path}/val.txt", "2"],
        ]
    touch(tmp_path / "train/x0_000000_000010.mp4")
    data.max_missing_share = 0.5
    data.list_split("train", None)  # what came back is on the list no more
    data.list_split("val", None)
    assert len(file.read_text().splitlines()) == 2
    (tmp_path / "train/x1_000000_000010.mp4").unlink()
    data.max_missing_share = 1
    with pytest.raises(DatasetError, match="2 of 2 videos"):
        data.list_split("val", None)


WRONG = [
    ("a,x,0,10,train,0\n,y,0,10,train,0\n", "row 3: label is empty"),
    ("a,,0,10,train,0\n", "row 2: youtube_id is empty"),
    (",,,,,\n", "row 2: label is empty"),
    ("a,x,0,10,,0\n", "row 2: split is empty"),
    ("a,x,0,10,train\n", "row 2: 5 fields, not 6"),
    ("a,x,0,ten,train,0\n", "row 2: time_end 'ten' is not a whole number of seconds"),
    ("a,x,-1,10,train,0\n", "row 2: time_start '-1' is not a whole"),
    ("a,x,nan,10,train,0\n", "row 2: time_start 'nan' is not a whole"),
    ("a,x,0.5,10,train,0\n", "row 2: time_start '0.5' is not a whole"),
    ("fly,x,0,10,train,0\n", "row 2: label 'fly' is not one of the 2 known classes"),
    (
        "a,x,0,10,train,0\n\nb,x,0.0,10,train,0\n",
        r"row 4: .*x_000000_000010 is 'b', and 'a' in row 2",
    ),
    ("a,../x,0,10,train,0\n", "row 2: '../x' is not a youtube_id"),
    ("a,/x,0,10,train,0\n", "row 2: '/x' is not a youtube_id"),
    ("a,..,0,10,train,0\n", "row 2: '..' is not a youtube_id"),
    ("../a,x,0,10,train,0\n", "row 2: '../a' is not a label"),
    ("/a,x,0,10,train,0\n", "row 2: '/a' is not a label"),
    ("a,x,0,10,../train,0\n", "row 2: '../train' lies outside data.root"),
    ("a,x,0,10,/etc,0\n", "row 2: '/etc' lies outside data.root"),
    ('a,x,0,10,train,0\n"b,y,0,10,train,0\n', "row 3: not a line of a csv file"),
    ("", "no rows below the header"),
    (
        "a,x,0,10,train,0\nb,y,0,10,validate,0\nb,z,0,10,val,0\n",
        r"its rows are of several splits \(train, val\); write a file for each",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_row_names_file_and_row(tmp_path, text, message):
    touch(tmp_path / "train/x_000000_000010.mp4")
    file = write(tmp_path / "train.csv", HEADER + text)
    with pytest.raises(DatasetError, match=message) as error:
        listed(tmp_path, class_names=["a", "b"])
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "header",
    ["label,youtube_id,time_start,time_end", "lable,youtube_id,time_start,time_end,split"],
)
def test_a_wrong_header_says_what_was_expected(tmp_path, header):
    write(tmp_path / "train.csv", f"{header}\na,x,0,10,train\n")
    with pytest.raises(DatasetError, match=r"row 1: wrong header; expected label,youtube_id,"):
        listed(tmp_path)


def test_other_wrong_sources(tmp_path):
    with pytest.raises(DatasetError, match="train: no such folder or file, and no annotation"):
        listed(tmp_path)
    file = write(tmp_path / "train.csv", f"{HEADER}a,x,0,10,train,0\n")
    with pytest.raises(DatasetError, match="No such file or directory; set data.videos to"):
        listed(tmp_path)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not a readable text file"):
        listed(tmp_path)
    for wrong in ({"max_missing_share": 2}, {"num_classes": 3, "class_names": ["a"]}):
        with pytest.raises(ValueError, match="max_missing_share|1 classes, not 3"):
            module(tmp_path, **wrong)


def test_repeated_rows_are_used_once(tmp_path, caplog):
    touch(tmp_path / "train/x_000000_000010.mp4")
    row = "a,x,0,10,train,0\n"
    file = write(tmp_path / "train.csv", HEADER + 2 * row + row.replace(",0,", ",0.0,", 1))
    with caplog.at_level(logging.WARNING):
        assert len(listed(tmp_path)[0]) == 1
    assert f"{file}: repeats 2 of its 3 rows; each is used once" in caplog.text


def test_another_number_of_classes_is_a_subset(kinetics):
    with pytest.raises(
        DatasetError, match=r"train.csv: 2 classes, not 400; set data.num_classes=null"
    ):
        module(kinetics, num_classes=400).setup("test")


def test_a_run_of_two_processes_reads_once(kinetics):
    both = []
    for trainer in two_processes():
        data = module(kinetics)
        data.trainer = trainer
        if both:
            shutil.rmtree(kinetics)  # nothing is looked for
        data.setup("validate")
        both.append(data)
    assert both[0].class_names == both[1].class_names == ("eating 'übung', quick", "jumping (high)")
    assert both[0].manifests["val"] is both[1].manifests["val"]

    for trainer in two_processes():  # an error reaches both
        data = module(kinetics)
        data.trainer = trainer
        with pytest.raises(DatasetError, match="set data.root"):
            data.setup("validate")


def test_a_video_of_one_frame_makes_clips_of_it(tmp_path):
    frames = moving_frames(1, 48, 64)
    (tmp_path / "train").mkdir()
    write_video(tmp_path / "train/x_000000_000010.mp4", frames)
    write_video(tmp_path / "train/y_000000_000010.webm", frames, codec="libvpx-vp9")
    write(tmp_path / "train.csv", f"{HEADER}a,x,0,10,train,0\nb,y,0,10,train,0\n")
    for sampling in ("clip", "spread", "segments"):
        views = {"val": "train", "test": "train", "test_views": (3, 1), "sampling": sampling}
        data = module(tmp_path, **views, crop_scale=(1, 1), short_side=(32, 40))
        data.setup("fit")
        data.setup("test")
        for loader in (data.train_dataloader(), data.test_dataloader()):
            (batch,) = loader
            assert batch["failed"] == []
            assert (batch["video"] == batch["video"][:, :, :1]).all()  # all frames are that one


def test_short_side_crops_are_cut_from_the_picture(tmp_path, video):
    (tmp_path / "train/a").mkdir(parents=True)
    for i in range(2):
        shutil.copy(video, tmp_path / f"train/a/{i}.mp4")
    # The short side of 48 stays what it is, so that crops are pixels of the file.
    data = module(tmp_path, val=None, short_side=(48, 48), stride=1)
    data.setup("fit")
    with VideoFile(video) as file:
        frames = file.frames_at(np.arange(20) / 30)
    for clip in next(iter(data.train_dataloader()))["video"].permute(0, 2, 3, 4, 1).numpy():
        windows = np.lib.stride_tricks.sliding_window_view(frames, (4, 32, 32), (0, 1, 2))
        windows = windows.transpose(0, 1, 2, 4, 5, 6, 3)  # (begin, y, x, T, H, W, 3)
        assert (windows == clip).all((3, 4, 5, 6)).any()


text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
labels = text.map(str.strip).filter(
    lambda t: t and not t.isdecimal() and not t.startswith("/") and ".." not in t.split("/")
)
ids = text.map(lambda t: t.replace("/", "").strip()).filter(lambda t: t not in ("", ".", ".."))


@given(
    st.lists(st.tuples(labels, ids, st.integers(0, 9999)), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_any_label_and_id_survives_the_csv(tmp_path_factory, rows, end, mark, points, spaces):
    rows = list({(i, t): (label, i, t) for label, i, t in rows}.values())
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(HEADER.strip().split(","))
    for label, name, start in rows:
        pad = " " if spaces else ""
        time = f"{start}.0" if points else str(start)
        writer.writerow([label + pad, pad + name, time, start + 10, "train", "0"])
    root = tmp_path_factory.mktemp("csv")
    file = write(root / "train.csv", out.getvalue(), "utf-8-sig" if mark else "utf-8")
    videos, _ = module(root).read_annotation(file)
    expected = [
        (f"{root}/train/{name}_{start:06d}_{start + 10:06d}", label) for label, name, start in rows
    ]
    assert [(row.video, row.label) for row in videos] == expected
    assert [row.number for row in videos] == list(range(2, len(rows) + 2))


@given(st.text('ab0,"\r\n\t /.é\0', max_size=40), st.booleans())
def test_any_text_is_rows_or_one_clear_line(tmp_path_factory, noise, header):
    root = tmp_path_factory.mktemp("noise")
    file = write(root / "train.csv", (HEADER if header else "") + noise)
    try:
        rows, _ = module(root).read_annotation(file)
    except DatasetError as error:
        place, message = str(file), str(error)
    else:
        place, message = f"{root}/", " ".join(row.video for row in rows)
    assert message.startswith(place)
