"""Something-Something V2: both generations of its files."""

import json
import logging

import numpy as np
import pytest

from datamodules.errors import DatasetError
from datamodules.manifests.lists import NO_LABEL
from datamodules.ssv2 import SSv2DataModule
from tests.video_files import write_video

OLD = "something-something-v2-"
VIDEOS = "20bn-something-something-v2"
CLIP = {"num_frames": 4, "size": (32, 32), "batch_size": 2, "eval_batch_size": 2}
TEMPLATES = ["Holding [something] next to [something]", "Pushing [something]"]
LABELS = {"Holding something next to something": "0", "Pushing something": "1"}


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def records(*templates):
    """Records with the ids 100, 101, ..., as published."""
    return [
        {"id": str(100 + i), "label": "holding übung", "template": t, "placeholders": ["übung"]}
        for i, t in enumerate(templates)
    ]


def module(root, **kwargs):
    return SSv2DataModule(root, **{"num_classes": None, **CLIP, **kwargs})


def rows(manifest):
    return [(manifest.path(i), manifest.label(i)) for i in range(len(manifest))]


@pytest.fixture(scope="module")
def ssv2(tmp_path_factory):
    """Three labelled and two other videos of 24 frames, 12 a second; frame i has brightness 10 i.

    A webm file does not say how long it is.
    """
    root = tmp_path_factory.mktemp("ssv2")
    (root / VIDEOS).mkdir()
    level = 10 * np.arange(24, dtype=np.uint8)[:, None, None, None]
    frames = np.broadcast_to(level, (24, 40, 48, 3))
    for number in (100, 101, 102):
        write_video(root / VIDEOS / f"{number}.webm", frames, rate=12, codec="libvpx-vp9")
    for number in (200, 201):
        write_video(root / VIDEOS / f"{number}.webm", frames, rate=12, codec="libvpx-vp9")
    labels = root / "labels"
    write(labels / "labels.json", LABELS)
    write(labels / "train.json", records(*TEMPLATES, TEMPLATES[0]))
    write(labels / "validation.json", records(*TEMPLATES))
    write(labels / "test.json", [{"id": "200"}, {"id": 201}])
    return root


def brightness(clips):
    """Nearest frame of each frame of clips ``(n, 3, T, H, W)``."""
    return (clips.float().mean((1, 3, 4)) / 10).round().int().tolist()


def test_fit_test_and_predict(ssv2):
    data = module(ssv2, num_classes=2, repeats=2)
    data.setup("fit")
    assert data.class_names == tuple(LABELS)
    assert [data.manifests["train"].label(i) for i in range(3)] == [0, 1, 0]
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape == (4, 3, 4, 32, 32)
    for shown in brightness(batch["video"]):
        assert [frame // 6 for frame in shown] == [0, 1, 2, 3]  # one frame of each segment
    assert len({tuple(shown) for shown in brightness(batch["video"])}) > 1

    data = module(ssv2)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["view"].tolist() == [0, 1, 2] * 2
    assert batch["label"].tolist() == [0] * 3 + [1] * 3
    assert brightness(batch["video"]) == [[3, 9, 15, 21]] * 6  # centred

    data = module(ssv2, predict=[str(ssv2 / "labels/test.json")], test_views=(2, 1))
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["label"].tolist() == [NO_LABEL] * 4
    # A quarter and three quarters into each segment of six frames.
    assert brightness(batch["video"]) == [[1, 7, 13, 19], [4, 10, 16, 22]] * 2
    assert rows(data.manifests["predict"])[1] == (f"{ssv2}/{VIDEOS}/201.webm", NO_LABEL)


@pytest.mark.parametrize("prefix", ["", OLD])
@pytest.mark.parametrize("folder", ["labels", "annotations", ".", "somewhere/else"])
def test_where_the_annotation_is_looked_for(tmp_path, prefix, folder):
    write(tmp_path / folder / f"{prefix}labels.json", LABELS)
    write(tmp_path / folder / f"{prefix}train.json", records(TEMPLATES[1]))
    touch(tmp_path / VIDEOS / "100.mp4")  # written anew
    data = module(tmp_path, val=None, annotations=folder if "else" in folder else None)
    data.setup("fit")
    assert data.class_names == tuple(LABELS)
    assert rows(data.manifests["train"]) == [(f"{tmp_path}/{VIDEOS}/100.mp4", 1)]


def test_both_generations_of_an_annotation_are_one_too_many(tmp_path):
    for prefix in ("", OLD):
        write(tmp_path / f"labels/{prefix}train.json", records(TEMPLATES[1]))
    with pytest.raises(DatasetError, match="are both annotations of the split 'train'"):
        module(tmp_path).setup("fit")
    touch(tmp_path / VIDEOS / "100.webm")
    split = f"labels/{OLD}train.json"
    assert len(module(tmp_path).list_split(split, None)) == 1


def test_ids_are_those_of_the_labels_file_and_not_alphabetical(tmp_path):
    write(tmp_path / "labels.json", {"Pushing something": 0, "Holding something": 1})
    write(tmp_path / "train.json", records("Holding [something]"))
    touch(tmp_path / VIDEOS / "100.webm")
    data = module(tmp_path, val=None)
    data.setup("fit")
    assert data.class_names == ("Pushing something", "Holding something")
    assert data.manifests["train"].label(0) == 1


def test_answers_of_the_test_split(tmp_path):
    write(tmp_path / "labels.json", LABELS)
    write(tmp_path / "train.json", records(TEMPLATES[0]))
    write(tmp_path / "test.json", [{"id": "100"}])
    touch(tmp_path / VIDEOS / "100.webm")
    data = module(tmp_path, test="test")
    assert data.list_split("test", tuple(LABELS)).label(0) == NO_LABEL
    answers = write(tmp_path / "test-answers.csv", "101;Pushing something\n100;Pushing something\n")
    assert data.list_split("test", tuple(LABELS)).label(0) == 1
    answers.write_text("101;Pushing something\n")
    with pytest.raises(DatasetError, match=r"test.json, record 1: test-answers.csv has no '100'"):
        data.list_split("test", tuple(LABELS))
    answers.write_text("100,Pushing something\n")
    with pytest.raises(DatasetError, match=r"test-answers.csv, row 1: expected 'id;label'"):
        data.list_split("test", tuple(LABELS))


def test_lists_have_the_ids_of_the_labels_file(tmp_path):
    write(tmp_path / "labels.json", LABELS)
    write(tmp_path / "train.csv", f"{VIDEOS}/a b.webm 1\n{VIDEOS}/gone.webm 0\n")
    touch(tmp_path / VIDEOS / "a b.webm")
    data = module(tmp_path, train="train.csv", val=None, max_missing_share=0.5)
    data.setup("fit")
    assert data.class_names == tuple(LABELS)
    assert rows(data.manifests["train"]) == [(f"{tmp_path}/{VIDEOS}/a b.webm", 1)]


def test_missing_and_repeated_videos(tmp_path, caplog):
    file = write(tmp_path / "train.json", records(*[TEMPLATES[0]] * 20) + records(TEMPLATES[0]))
    for number in range(100, 119):
        touch(tmp_path / VIDEOS / f"{number}.webm")
    data = module(tmp_path, missing_videos=tmp_path / "missing.csv")
    with caplog.at_level(logging.WARNING):
        assert len(data.list_split("train", None)) == 19
    assert f"{file}: repeats 1 of its 21 rows; each is used once" in caplog.text
    missing = f"1 of 20 videos is missing in {tmp_path}, the first in row 20: {VIDEOS}/119"
    assert f"{file}: {missing}" in caplog.text
    assert (tmp_path / "missing.csv").read_text() == (
        f"split,video,file,row\ntrain,{VIDEOS}/119,{file},20\n"
    )
    (tmp_path / VIDEOS / "118.webm").unlink()
    with pytest.raises(DatasetError, match=r"2 of 20 videos .* in row 19.*\(10.0%, and"):
        data.list_split("train", None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[{", r"train.json: not valid JSON"),
        ("[" * 10**5, r"train.json: not valid JSON"),
        ({"id": 1}, "expected a list of records"),
        ([], "expected a list of records"),
        ([*records(TEMPLATES[0]), {"id": "7"}], "record 2: expected an object whose template"),
        ([{"id": 1.0, "template": TEMPLATES[0]}], "record 1: id 1.0 is neither a text nor a whole"),
        ([{"id": "1", "label": "holding a cup"}], "no record has a template, which is its class"),
        ([*records(TEMPLATES[0]), "x"], "record 2: expected an object whose id"),
        ([{"id": "", "template": TEMPLATES[0]}], "record 1: expected an object whose id"),
        ([{"id": "1", "template": " "}], "record 1: expected an object whose template"),
        ([{"id": ["1"], "template": TEMPLATES[0]}], r"record 1: id \['1'\] is neither a text"),
        (records("Flying [something]"), "record 1: label 'Flying something' is not one of the 2"),
        ([{"id": "../x", "template": TEMPLATES[0]}], "record 1: '../x' is not the id"),
        ([{"id": "/x", "template": TEMPLATES[0]}], "record 1: '/x' is not the id"),
        ([{"id": ".."}], "record 1: '..' is not the id"),
        (
            records(TEMPLATES[0]) + records(TEMPLATES[1]),
            r"record 2: .*100 is 'Pushing something', and 'Holding .*' in record 1",
        ),
    ],
)
def test_a_wrong_record_names_file_and_number(tmp_path, value, message):
    touch(tmp_path / VIDEOS / "100.webm")
    write(tmp_path / "labels.json", LABELS)
    file = write(tmp_path / "train.json", value)
    with pytest.raises(DatasetError, match=message) as error:
        module(tmp_path).setup("fit")
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "expected an object that maps classes to ids"),
        ({"a": "0", "b": "2"}, "the 2 classes do not have the ids from 0 on"),
        ({"a": "0", "b": "0"}, "the 2 classes do not have the ids from 0 on"),
        ({"a": "0", "[a]": "1"}, "a class is empty or occurs twice"),
        (LABELS, r"train.json: 2 classes, not 174; set data.num_classes=null"),
    ],
)
def test_wrong_labels(tmp_path, labels, message):
    write(tmp_path / "labels.json", labels)
    write(tmp_path / "train.json", records(TEMPLATES[0]))
    with pytest.raises(DatasetError, match=message):
        module(tmp_path, num_classes=174).setup("fit")


def test_two_files_of_one_video(tmp_path):
    write(tmp_path / "train.json", records(TEMPLATES[0]))
    one, two = (touch(tmp_path / VIDEOS / f"100{suffix}") for suffix in (".mp4", ".webm"))
    with pytest.raises(DatasetError, match=f"record 1: two files, {one} and {two}; remove one"):
        module(tmp_path).list_split("train", None)
    with pytest.raises(DatasetError, match="lies outside data.root"):
        module(tmp_path, videos="../x").list_split("train", None)
