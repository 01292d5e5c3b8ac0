import gc
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.ava import clips as keyframe_clips
from datamodules.ava.clips import LEAST_VISIBLE
from datamodules.ava.data_module import AVADataModule
from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.video.decoding import VideoFile
from datamodules.video.frame_folder import FrameFolder, holds_pictures
from tests.fake_processes import two_processes
from tests.video_files import write_video

WIDTH, HEIGHT, RATE, SECONDS = 96, 64, 10, 6
LABELS = 'item {\n name: "walk"\n id: 12\n}\nitem {\n name: "sit"\n id: 11\n}\n'
RED = "0.125,0.25,0.250,0.75"  # of the two boxes that are painted
GREEN = "0.500,0.500,0.75,1.0"
TRUTH = [f"a,0002,{RED},12,0", f"a,0002,{RED},11,0", f"a,0002,{GREEN},12,1", f"b,3,{RED},11,0"]
PERSONS = [f"a,2,{RED},,0.95", f"a,2,{GREEN},,0.5", f"b,3,{GREEN},,0.8", f"b,4,{RED},,0.9"]


def picture(second):
    """A red and a green box before a blue that grows with time."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[..., 2] = 20 + 30 * second
    for channel, text in enumerate((RED, GREEN)):
        x1, y1, x2, y2 = np.array(text.split(","), float) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
        frame[int(y1) : int(y2), int(x1) : int(x2)] = 0
        frame[int(y1) : int(y2), int(x1) : int(x2), channel] = 255
    return frame


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ava")
    frames = np.stack([picture(i / RATE) for i in range(SECONDS * RATE)])
    for name in "ab":
        path = folder / f"{name}.mp4"
        write_video(path, frames, RATE, pix_fmt="yuv444p", options={"crf": "1", "g": "10"})
        (folder / name).mkdir()
        for i, frame in enumerate(frames, 1):
            Image.fromarray(frame).save(folder / name / f"{name}_{i:06d}.png")
    return folder


@pytest.fixture
def root(tmp_path, videos):
    """A data set with two videos as files, and as folders of frames."""
    for folder, names in (("videos", ("a.mp4", "b.mp4")), ("frames", "ab")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).symlink_to(videos / name)
    write(tmp_path, "ava_train_v2.2.csv", TRUTH)
    write(tmp_path, "ava_val_v2.2.csv", TRUTH)
    write(tmp_path, "persons.csv", PERSONS)
    (tmp_path / "labels.pbtxt").write_text(LABELS)
    return tmp_path


def write(root, name, rows):
    (root / name).write_text("".join(f"{row}\n" for row in rows))


def make(root, **kwargs):
    small = {
        "label_map": "labels.pbtxt",
        "person_boxes": {"val": "persons.csv", "test": "persons.csv"},
        "num_frames": 4,
        "stride": 3,
        "size": (32, 32),
        "short_side": (32, 48),
        "batch_size": 1,
        "eval_batch_size": 8,
    }
    return AVADataModule(root, **{**small, **kwargs})


def seen_box(video, channel):
    """Where the red or the green box is in a clip ``(3, T, H, W)``, shares of it."""
    bright = video[channel, 0] > 128
    y, x = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    height, width = bright.shape
    return np.array([x[0] / width, y[0] / height, (x[-1] + 1) / width, (y[-1] + 1) / height])


def test_evaluation_batches(root):
    data = make(root)
    data.setup("test")
    assert data.class_names == ("sit", "walk")
    assert data.action_ids == (11, 12)
    assert data.video_names("test") == ("a", "b")
    (batch,) = list(data.test_dataloader())
    assert batch["video"].shape == (3, 3, 4, 32, 32)
    assert batch["video"].dtype == torch.uint8
    assert batch["video_id"].tolist() == [0, 1, 1]
    assert batch["second"].tolist() == [2, 3, 4]
    assert batch["box_clip"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(batch["box_score"], [0.95, 0.8, 0.9])
    assert batch["box_labels"].tolist() == [[0, 0]] * 3
    expected = [[float(v) for v in text.split(",")] for text in (RED, GREEN, RED)]
    np.testing.assert_allclose(batch["boxes_original"], expected)
    kinds = {key: value.dtype for key, value in batch.items() if key != "failed"}
    assert {key for key, kind in kinds.items() if kind == torch.float32} == {
        "boxes",
        "box_labels",
        "box_score",
        "boxes_original",
    }
    assert {kinds[key] for key in ("seed", "video_id", "box_clip")} == {torch.int64}
    assert kinds["second"] == torch.float64


def test_ground_truth_boxes_carry_labels_and_equal_boxes_are_one(root):
    equal = "a,2,0.5,0.50,0.750,1,12,1"  # GREEN in other digits
    write(root, "ava_val_v2.2.csv", [*TRUTH, "a,2,0.126,0.25,0.250,0.75,11,3", "b,5", equal])
    data = make(root, eval_boxes="ground_truth", person_boxes=None)
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    assert batch["box_clip"].tolist() == [0, 0, 0, 1]
    assert batch["box_labels"].tolist() == [[1, 1], [0, 1], [1, 0], [1, 0]]
    assert batch["box_score"].tolist() == [1, 1, 1, 1]
    truth = data.ground_truth("test")
    assert truth.action.tolist() == [12, 11, 12, 11, 11, -1, 12]
    without_box = truth.where(~truth.has_box)
    assert (without_box.video.tolist(), without_box.second.tolist()) == ([1], [5])


@pytest.mark.parametrize("folder", ["videos", "frames"])
@pytest.mark.parametrize("pad", [None, (64, 128)])
def test_boxes_follow_the_evaluation_geometry(root, folder, pad):
    write(root, "ava_val_v2.2.csv", [TRUTH[0], TRUTH[2]])
    data = make(
        root,
        videos=folder,
        frame_rate=RATE,
        eval_boxes="ground_truth",
        size=(64, 64),
        short_side=(64, 64),
        eval_pad=pad,
        eval_short_side=None if pad is None else 48,
    )
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    video = batch["video"][0].numpy()
    assert video.shape == (3, 4, *(pad or (64, 64)))
    if pad is None:  # the centre crop takes half of the red box, and all of the green one
        np.testing.assert_allclose(batch["boxes"][0], [0, 0.25, 0.125, 0.75], atol=1e-6)
    else:
        assert not video[:, :, 48:].any()
        assert not video[:, :, :, 72:].any()
        assert video[2, :, 10, 71].all()
    for channel in (0, 1):
        seen = seen_box(video, channel)
        np.testing.assert_allclose(batch["boxes"][channel], seen, atol=1.5 / 64)


def test_boxes_outside_of_the_crop_are_scored_all_the_same(root):
    left = "0.0,0.1,0.05,0.3"
    write(root, "persons.csv", [f"a,2,{left},,0.9"])
    data = make(root)
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    np.testing.assert_allclose(batch["boxes"], [[0, 0.1, 0, 0.3]], atol=1e-6)
    np.testing.assert_allclose(batch["boxes_original"], [[0, 0.1, 0.05, 0.3]])
    assert len(data.ground_truth("test").video) == len(TRUTH)


@pytest.mark.parametrize("folder", ["videos", "frames"])
def test_clips_are_centred_and_clamped(root, folder):
    rows = [f"a,{second},{RED},12,0" for second in (0, 2, 5)]
    write(root, "ava_val_v2.2.csv", rows)
    # 4 frames, 0.5 s apart, the third of which is the keyframe
    data = make(
        root, videos=folder, frame_rate=RATE, stride=15, eval_boxes="ground_truth", size=(64, 64),
        short_side=(64, 64),
    )  # fmt: skip
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    blue = batch["video"][:, 2, :, 2, 2].numpy().astype(float)
    times = (blue - 20) / 30
    expected = [[0, 0, 0, 0.5], [1, 1.5, 2, 2.5], [4, 4.5, 5, 5.5]]
    np.testing.assert_allclose(times, expected, atol=0.06)


def test_clips_of_seconds_with_decimals(root):
    write(root, "ava_val_v2.2.csv", [f"a,2.5,{RED},12,0", f"a,2,{RED},12,0"])
    data = make(root, eval_boxes="ground_truth", person_boxes=None)
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    assert batch["second"].tolist() == [2, 2.5]
    blue = batch["video"][:, 2, 2, 2, 31].numpy().astype(float)  # of the keyframe itself
    np.testing.assert_allclose((blue - 20) / 30, [2, 2.5], atol=0.06)


def test_timestamps_count_from_the_offset(root):
    write(root, "ava_val_v2.2.csv", [f"a,0902,{RED},12,0"])
    with pytest.raises(
        DatasetError,
        match=r"ava_val_v2.2.csv, row 1: second 902 .* 0 to 6; is data.timestamp_offset=0 right",
    ):
        make(root, eval_boxes="ground_truth", person_boxes=None).setup("test")
    data = make(root, timestamp_offset=900, eval_boxes="ground_truth", person_boxes=None)
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    assert batch["second"].tolist() == [902]
    assert abs(int(batch["video"][0, 2, 2, 2, 31]) - 80) < 5
    with pytest.raises(DatasetError, match="second 902"):
        make(root, timestamp_offset=903, eval_boxes="ground_truth", person_boxes=None).setup("test")


def test_training_boxes_follow_the_crop_and_those_outside_are_dropped(root):
    write(root, "ava_train_v2.2.csv", [TRUTH[0], TRUTH[2]])
    data = make(root, size=(48, 48), short_side=(48, 64), repeats=40)
    data.setup("fit")
    (batch,) = list(data.train_dataloader())
    assert batch["video"].shape == (40, 3, 4, 48, 48)
    assert batch["skipped"].tolist() == [0]
    dropped = 0
    for clip in range(40):
        mine = batch["box_clip"] == clip
        labels = batch["boxes_original"][mine][:, 0]
        for channel, x in ((0, 0.125), (1, 0.5)):
            box = batch["boxes"][mine][labels == x]
            dropped += not len(box)
            if len(box) and (box[0, 2] - box[0, 0]) > 0.05:
                video = batch["video"][clip].numpy()
                np.testing.assert_allclose(box[0], seen_box(video, channel), atol=1.6 / 48)
    assert 0 < dropped < 80


def test_boxes_that_barely_stay_are_dropped(root):
    """Of a box that fills the left 1 / 3 of the picture, some crops keep less than a tenth."""
    write(root, "ava_train_v2.2.csv", ["a,2,0.0,0.0,0.34,1.0,12,0"])
    data = make(root, short_side=(32, 32), repeats=60)
    data.setup("fit")
    (batch,) = list(data.train_dataloader())
    # A crop of 2 / 3 of the width that begins at x keeps (0.34 - x) / 0.34.
    widths = (batch["boxes"][:, 2] - batch["boxes"][:, 0]).numpy()
    assert widths.min() >= LEAST_VISIBLE * 0.34 / (2 / 3) - 0.01
    assert len(widths) < 60 or widths.min() > 0.01


def test_keyframes_without_a_box_are_replaced_and_counted(root):
    rows = [f"a,{second},0.0,0.0,0.02,0.02,12,0" for second in (1, 2, 3)]
    write(root, "ava_train_v2.2.csv", [*rows, "b,3,0,0,1,1,11,0"])
    data = make(root, size=(32, 32), short_side=(60, 60), batch_size=4)
    data.setup("fit")
    loader = data.train_dataloader()
    skipped, batches = 0, 0
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            assert batch["failed"] == []
            assert batch["video"].shape[0] == 4
            assert set(batch["box_clip"].tolist()) == {0, 1, 2, 3}
            skipped, batches = skipped + int(batch["skipped"].sum()), batches + 1
    assert batches == 4
    assert skipped > 0
    nothing = ["a,2,0.0,0.0,0.001,0.001,12,0"]
    write(root, "ava_train_v2.2.csv", nothing)
    data = make(root, short_side=(300, 300))
    data.setup("fit")
    with pytest.raises(DatasetError, match="none of 1 training items"):
        list(data.train_dataloader())


def test_training_takes_confident_labelled_person_boxes_too(root):
    shifted = "0.13,0.25,0.25,0.75"
    write(
        root,
        "train_persons.csv",
        [
            f"a,2,{RED},11,0.99",  # the same text: the same box
            f"a,2,{shifted},12,0.9",
            f"a,2,{shifted},11,0.9",
            f"a,2,{GREEN[:-1]}00,,0.85",  # a negative
            "a,2,0.1,0.1,0.2,0.2,12,0.7",
        ],
    )
    write(root, "ava_train_v2.2.csv", [TRUTH[0]])
    data = make(
        root, size=(64, 64), short_side=(64, 64), person_boxes={"train": "train_persons.csv"}
    )
    keyframes = data.keyframes("train").keyframes
    assert len(keyframes) == 1
    assert keyframes.labels.astype(int).tolist() == [[1, 1], [1, 1], [0, 0]]
    np.testing.assert_allclose(keyframes.score, [1, 0.9, 0.85])
    write(root, "train_persons.csv", [f"a,2,{RED},,0.99"])
    with pytest.raises(DatasetError, match="would teach that nobody does anything"):
        make(root, person_boxes={"train": "train_persons.csv"}).keyframes("train")


def test_excluded_keyframes_leave_ground_truth_and_detections(root):
    write(root, "excluded.csv", ["a,0002"])
    data = make(root, excluded={"test": "excluded.csv"})
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    assert batch["video_id"].tolist() == [1, 1]
    assert data.ground_truth("test").video.tolist() == [1]
    assert data.video_names("test") == ("a", "b")


def test_videos_that_fail_stay_in_the_ground_truth(root, caplog):
    (root / "videos" / "a.mp4").unlink()
    (root / "videos" / "a.mp4").write_bytes(b"no video")
    data = make(root, num_workers=1)
    data.setup("test")
    (batch,) = list(data.test_dataloader())
    assert [data.manifests["test"].path(f.video_id) for f in batch["failed"]] == [
        str(root / "videos" / "a.mp4")
    ]
    assert batch["video"].shape[0] == 2
    assert batch["box_clip"].tolist() == [0, 1]
    assert len(data.ground_truth("test").video) == len(TRUTH)


def test_missing_videos(root, caplog):
    (root / "videos" / "a.mp4").unlink()
    (root / "videos" / "a").mkdir()
    (root / "videos" / "a" / "._a_000001.jpg").touch()  # as macOS writes it
    with pytest.raises(DatasetError, match=r"ava_val_v2.2.csv: 1 of 2 .* first in row 1: videos/a"):
        make(root).setup("test")
    with caplog.at_level(logging.WARNING):
        data = make(root, max_missing_share=0.5)
        data.setup("test")
    assert "1 of 2 videos is missing" in caplog.text
    assert set(data.manifests["test"].table["keyframe"].to_pylist()) == {1, 2}
    assert len(data.ground_truth("test").video) == len(TRUTH)


def test_a_video_to_train_and_to_validate_is_said(root, caplog):
    write(root, "ava_train_v2.2.csv", TRUTH[:2])
    make(root).setup("fit")
    (warning,) = [record.message for record in caplog.records]
    assert warning.startswith("1 of the 2 videos of val is in train, too: videos/a.mp4; leave")


def test_person_boxes_of_other_videos_are_left_out(root, caplog):
    write(root, "persons.csv", [f"0other,7000,{RED},,0.9", *PERSONS])
    data = make(root)
    with caplog.at_level(logging.WARNING):
        data.setup("test")
    assert "1 of its videos are not in the ground truth" in caplog.text
    (batch,) = list(data.test_dataloader())
    assert batch["video_id"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("kwargs", "what"),
    [
        ({"person_boxes": None}, r"person_boxes.test is null"),
        ({"person_boxes": {"test": "none.csv"}}, r"data.person_boxes.test=none.csv: no such file"),
        ({"excluded": {"test": "none.csv"}}, r"data.excluded.test=none.csv: no such file"),
        ({"label_map": "none.pbtxt"}, r"data.label_map=none.pbtxt: no such file"),
        ({"test": "other"}, r"no such file, and no ava_\*.csv"),
        ({"test": None}, r"data.test is null"),
        ({"videos": "nowhere"}, r"set data.videos"),
        ({"videos": "../.."}, r"outside data.root"),
        ({"min_person_score": 0.99}, r"no keyframe is left"),
    ],
)
def test_wrong_data(root, kwargs, what):
    with pytest.raises(DatasetError, match=what):
        make(root, **kwargs).setup("test")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"eval_boxes": "all"},
        {"eval_pad": (256, 300)},
        {"eval_pad": 256},
        {"eval_short_side": 16},
        {"short_side": (16, 32)},
        {"box_jitter": (0.9, 0.1)},
        {"box_jitter": (0.1, 0.2, 0.3)},
        {"box_jitter": 0.2},
        {"timestamp_offset": float("nan")},
        {"timestamp_offset": float("inf")},
        {"frame_rate": float("nan")},
        {"min_person_score": 2},
        {"person_boxes": {"training": "a.csv"}},
        {"frame_rate": 0},
    ],
)
def test_wrong_arguments(root, kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        make(root, **kwargs)


def test_the_order_of_box_jitter_is_said(root):
    with pytest.raises(
        ValueError, match=r"box_jitter must be \[width, height\], each in \[0, 0.5\]"
    ):
        make(root, box_jitter=(0.2, 0.9))
    assert make(root, box_jitter=(0.2, 0.1)).box_jitter == (0.2, 0.1)


def test_ground_truth_without_an_action_is_named(root):
    for action in ("", "-1"):
        write(root, "ava_val_v2.2.csv", [*TRUTH, f"b,1,{RED},{action},0"])
        with pytest.raises(DatasetError, match=r"ava_val_v2\.2\.csv, row 5: no action id"):
            make(root).setup("test")


def test_keyframes_without_a_box_lie_within_their_video(root):
    write(root, "ava_val_v2.2.csv", [*TRUTH, "b,7", f"a,9,{RED},12,0"])
    with pytest.raises(DatasetError, match="row 5: second 7 is not within the video b"):
        make(root).setup("test")
    write(root, "ava_val_v2.2.csv", [*TRUTH, "c,99"])  # of a video that is not there
    data = make(root, max_missing_share=0.5)
    data.setup("test")
    assert data.ground_truth("test").names == ("a", "b", "c")
    with pytest.raises(DatasetError, match="first in row 5: videos/c"):
        make(root).setup("test")


def test_all_videos_are_missing(root):
    hint = " (100.0%, and data.max_missing_share=0.25); `hiera-video check` lists them"
    for share, limit in ((0.25, hint), (1.0, "")):
        write(root, "ava_val_v2.2.csv", [f"other,2,{RED},12,0"])
        with pytest.raises(DatasetError) as error:
            make(root, max_missing_share=share).setup("test")
        assert str(error.value).endswith(f"the first in row 1: videos/other{limit}")


def test_names_that_no_file_can_have_are_missing(root):
    write(root, "ava_val_v2.2.csv", [*TRUTH, f"{'x' * 300},2,{RED},12,0"])
    with pytest.raises(
        DatasetError, match=f"1 of 3 videos is missing in {root}, the first in row 5"
    ):
        make(root).setup("test")


def test_a_leftover_folder_makes_no_file_missing(root):
    (root / "videos" / "a").mkdir()
    data = make(root)
    data.setup("test")
    assert data.manifests["test"].path(0) == str(root / "videos" / "a.mp4")


def test_each_video_is_a_file_or_a_folder(root):
    (root / "videos" / "a.mp4").unlink()
    (root / "videos" / "a").symlink_to(root / "frames" / "a")
    (root / "videos" / "more").mkdir()
    (root / "videos" / "b.mp4").rename(root / "videos" / "more" / "b.mp4")
    data = make(root, frame_rate=RATE)
    data.setup("test")
    manifest = data.manifests["test"]
    assert {manifest.path(i) for i in range(len(manifest))} == {
        str(root / "videos" / "a"),
        str(root / "videos" / "more" / "b.mp4"),
    }
    (root / "videos" / "b").symlink_to(root / "frames" / "b")
    with pytest.raises(DatasetError, match=r"row 4: a file and a folder .*b\.mp4 and .*b; remove"):
        make(root).setup("test")


def test_names_cannot_leave_the_folder(root):
    write(root, "ava_val_v2.2.csv", [f"../b,2,{RED},12,0"])
    with pytest.raises(DatasetError, match="row 1: '../b' cannot be the name of a video"):
        make(root, eval_boxes="ground_truth", person_boxes=None).setup("test")


def test_the_map_of_evaluation_may_have_fewer_classes(root):
    (root / "some.pbtxt").write_text('item {\n name: "sit"\n id: 11\n}\n')
    data = make(root, eval_label_map="some.pbtxt")
    data.find_class_names()
    assert (data.action_ids, data.evaluated_action_ids) == ((11, 12), (11,))
    (root / "some.pbtxt").write_text('item {\n name: "stand"\n id: 11\n}\n')
    with pytest.raises(DatasetError, match="no action 11, 'stand'"):
        make(root, eval_label_map="some.pbtxt").find_class_names()


def test_the_first_of_two_processes_reads_the_files(root):
    both = []
    for trainer in two_processes():
        data = make(root)
        data.trainer = trainer
        if both:
            shutil.rmtree(root)
        data.setup("test")
        both.append((data.class_names, data.action_ids, data.keyframes("test")))
    assert both[0] == both[1]
    assert both[0][1] == (11, 12)


def test_batches_do_not_depend_on_workers_and_training_resumes(root):
    rows = [f"{name},{second},{GREEN},12,0" for name in "ab" for second in (1, 2, 3, 4)]
    write(root, "ava_train_v2.2.csv", rows)

    def batches(workers, state=None):
        options = {"box_jitter": (0.2, 0.1), "batch_size": 2, "person_boxes": None}
        data = make(root, num_workers=workers, **options)
        data.keyframes("train")
        loader = data.train_dataloader()
        if state:
            loader.load_state_dict(state)
        batches_and_states = []
        for batch in loader:
            batches_and_states.append((batch, loader.state_dict()))
        return batches_and_states

    one, two = batches(0), batches(2)
    rest = batches(0, one[1][1])
    assert len(one) == 4
    for (batch, _), (other, _) in zip(one + one[2:], two + rest, strict=True):
        assert batch.keys() == other.keys()
        for key in batch.keys() - {"failed"}:
            assert torch.equal(batch[key], other[key]), key


class CountingSource:
    """A file whose reads are counted."""

    read = 0

    def __init__(self, path):
        self.name = path

    def open(self):
        file = open(self.name, "rb")  # noqa: SIM115
        original = file.read

        class Wrapper:
            name = self.name

            def read(self, size=-1):
                data = original(size)
                CountingSource.read += len(data)
                return data

            def __getattr__(self, key):
                return getattr(file, key)

        return Wrapper()


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    """60 seconds of noise, with a keyframe each second."""
    root = tmp_path_factory.mktemp("long")
    (root / "videos").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (60 * 25, 32, 48, 3), np.uint8)
    options = {"preset": "ultrafast", "g": "25", "crf": "20"}
    write_video(root / "videos" / "long.mp4", frames, 25, options=options)
    write(root, "ava_val_v2.2.csv", [f"long,{second},{RED},12,0" for second in range(60)])
    (root / "labels.pbtxt").write_text(LABELS)
    return root


def long_data(root):
    data = make(root, train=None, eval_boxes="ground_truth", person_boxes=None, num_frames=2)
    data.setup("test")
    return data.evaluation_views(data.keyframes("test"), "test")


def test_a_file_is_not_read_from_its_start(long_file, monkeypatch):
    clips = long_data(long_file)
    monkeypatch.setattr(keyframe_clips, "VideoFile", lambda path: VideoFile(CountingSource(path)))
    size = (long_file / "videos" / "long.mp4").stat().st_size
    assert size > 1_000_000
    for index in (3, 30, 57):
        CountingSource.read = 0
        clips[0, index]
        assert 0 < CountingSource.read < size / 5


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_keyframes_of_one_file(long_file):
    clips = long_data(long_file)

    def resident(count):
        for k in range(count):
            clips[0, k * 37 % 60]
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    before = resident(100)
    assert resident(1000) - before < 6_000_000


def test_frame_folders_are_read_as_files_are(videos):
    times = [0.0, 2.05, 2.1 - 1e-9, 99, -1]
    with VideoFile(str(videos / "a.mp4")) as file, FrameFolder(str(videos / "a"), RATE) as folder:
        assert (folder.width, folder.height) == (file.width, file.height)
        assert folder.duration == pytest.approx(file.duration)
        for kwargs in ({}, {"size": 32}, {"size": (20, 30), "crop": (8, 4, 70, 60)}):
            one, other = (f.frames_at(times, **kwargs).astype(int) for f in (file, folder))
            assert one.shape == other.shape
            assert abs(one - other).max() < 12
        with pytest.raises(ValueError, match="finite"):
            folder.frames_at([np.nan])


def test_wrong_frame_folders(tmp_path):
    with pytest.raises(VideoDecodeError, match="No such file"):
        FrameFolder(str(tmp_path / "none"))
    with pytest.raises(VideoDecodeError, match="no numbered"):
        FrameFolder(str(tmp_path))
    folder = tmp_path / "v"
    folder.mkdir()
    for i in (1, 2, 4):
        Image.new("RGB", (8, 6)).save(folder / f"v_{i:06d}.jpg")
    with pytest.raises(VideoDecodeError, match="after number 2 is missing"):
        FrameFolder(str(folder))
    (folder / "v_000003.jpg").write_bytes((folder / "v_000001.jpg").read_bytes()[:200])
    os.utime(folder, (1, 1))
    frames = FrameFolder(str(folder), 1)
    assert frames.frames_at([0, 3]).shape == (2, 6, 8, 3)
    with pytest.raises(VideoDecodeError, match=r"v_000003\.jpg"):
        frames.frames_at([2])
    Image.new("RGB", (9, 6)).save(folder / "v_000003.jpg")
    with pytest.raises(VideoDecodeError, match="size changes"):
        frames.frames_at([2])


def test_huge_pictures_are_no_crash(tmp_path, monkeypatch):
    for i in (1, 2):
        Image.new("RGB", (8, 6)).save(tmp_path / f"v_{i:06d}.png")
    folder = FrameFolder(str(tmp_path))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # Pillow refuses twice as many
    with pytest.raises(VideoDecodeError, match="decompression bomb"):
        folder.frames_at([0])
    os.utime(tmp_path, (1, 1))
    with pytest.raises(VideoDecodeError, match="decompression bomb"):
        FrameFolder(str(tmp_path))


def test_folders_of_pictures(tmp_path):
    assert not holds_pictures(str(tmp_path / "none"))
    assert not holds_pictures(str(tmp_path))
    (tmp_path / "notes.txt").write_text("")
    assert not holds_pictures(str(tmp_path))
    assert not holds_pictures(str(tmp_path / "notes.txt"))
    (tmp_path / "._v_000001.jpg").write_text("")  # as macOS writes it
    assert not holds_pictures(str(tmp_path))
    with pytest.raises(VideoDecodeError, match="no numbered"):
        FrameFolder(str(tmp_path))
    (tmp_path / "v_000001.JPG").write_text("")
    assert holds_pictures(str(tmp_path))
