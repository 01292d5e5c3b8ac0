import logging
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from datamodules.clips.sampling import sample_seed
from datamodules.errors import DatasetError
from datamodules.folder import VideoFolderDataModule
from datamodules.manifests.parquet import ManifestMetadata, write_manifest
from datamodules.video import opening
from datamodules.video.decoding import VideoFile
from tests.video_files import write_video

CLIP = {"num_frames": 4, "stride": 3, "size": (32, 32), "batch_size": 2, "eval_batch_size": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Wide and tall videos of 40 frames in two classes, and one that is no video."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for i, (name, shape) in enumerate([("a", (48, 96)), ("a", (96, 48)), ("b", (64, 64))]):
            noise = rng.integers(0, 256, (40, shape[0] // 8, shape[1] // 8, 3), np.uint8)
            (root / split / name).mkdir(parents=True, exist_ok=True)
            frames = noise.repeat(8, 1).repeat(8, 2)
            write_video(root / split / name / f"{i}.mp4", frames)
    (root / "test/b/broken.mp4").write_bytes(b"no video")
    return root


def read(path):
    with VideoFile(path) as file:
        return file.frames_at(np.arange(40) / 30)


def loaded(root, stage, **kwargs):
    data = VideoFolderDataModule(root, **{**CLIP, **kwargs})
    data.setup(stage)
    return data


def test_training_clips_are_cut_as_their_seeds_say(root):
    data = loaded(root, "fit", repeats=3, crop_scale=(1, 1), crop_ratio=(1, 1), size=(48, 48))
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape == (6, 3, 4, 48, 48)
    assert batch["video_id"].tolist() == sorted(
        batch["video_id"].tolist(), key=batch["video_id"].tolist().index
    )
    manifest = data.manifests["train"]
    for clip, seed, video_id, label, repeat in zip(
        *(batch[k] for k in ("video", "seed", "video_id", "label")), [0, 1, 2] * 2, strict=True
    ):
        assert seed == sample_seed(0, 0, int(video_id), repeat)
        assert label == manifest.label(int(video_id))
        with VideoFile(manifest.path(int(video_id))) as file:
            rng = np.random.default_rng(int(seed))
            start = rng.uniform(0, file.duration - 9 / 30)
            side = min(file.width, file.height)
        frames = read(manifest.path(int(video_id)))
        first = [np.floor((start + 0.1 * i) * 30 + 1e-6) for i in range(4)]
        if side == 48:  # the crop is the short side, so nothing is scaled: only where it is cut
            clip = clip.permute(1, 2, 3, 0).numpy()
            cuts = [
                frames[np.int64(first), y : y + 48, x : x + 48]
                for y in range(frames.shape[1] - 47)
                for x in range(frames.shape[2] - 47)
            ]
            assert any(np.array_equal(clip, cut) for cut in cuts)
    assert len(set(batch["seed"].tolist())) == 6


def test_repeats_and_views_open_a_file_once(root, monkeypatch):
    opened = []

    class Counted(VideoFile):
        def __init__(self, path, *args):
            opened.append(path)
            super().__init__(path, *args)

    monkeypatch.setattr(opening, "VideoFile", Counted)
    data = loaded(root, "fit", repeats=4)
    next(iter(data.train_dataloader()))
    assert len(opened) == 2
    data = loaded(root, "test", test_views=(3, 3), test="val")
    list(data.test_dataloader())
    assert len(opened) == 2 + 3


def test_a_loop_without_a_trainer_is_a_training(root):
    data = loaded(root, "fit", batch_size=1, val_views=(2, 1), test_views=(5, 3))
    assert sum(len(batch["video"]) for batch in data.val_dataloader()) == 3 * 2
    epochs = [[int(b["seed"]) for b in data.train_dataloader()] for _ in range(3)]
    loader = loaded(root, "fit", batch_size=1).train_dataloader()
    assert epochs == [[int(b["seed"]) for b in loader] for _ in range(3)]
    first = int(next(iter(data.train_dataloader()))["seed"])  # of an epoch that is not ended
    assert int(next(iter(data.train_dataloader()))["seed"]) == first
    data.load_state_dict({"epoch": 1, "used": 2, "videos": 3})
    resumed = [[int(b["seed"]) for b in data.train_dataloader()] for _ in range(2)]
    assert resumed == [epochs[1][2:], epochs[2]]


def test_views_are_left_centre_right_of_first_middle_last_frames(root):
    data = loaded(root, "test", test="val", test_views=(3, 3), size=(48, 48))
    batch = next(iter(data.test_dataloader()))
    manifest = data.manifests["test"]
    assert batch["view"].tolist() == [*range(9), *range(9)]
    for video_id in (0, 1):
        frames = read(manifest.path(video_id))
        views = batch["video"][batch["video_id"] == video_id].permute(0, 2, 3, 4, 1).numpy()
        for view, clip in enumerate(views):
            temporal, spatial = divmod(view, 3)
            begin = [0, 15, 30][temporal]  # 40 frames, a clip spans 10
            offset = [0, 24, 48][spatial]
            cut = frames[begin : begin + 10 : 3]
            wide = frames.shape[2] > frames.shape[1]
            cut = cut[:, :, offset : offset + 48] if wide else cut[:, offset : offset + 48]
            assert np.array_equal(clip, cut), (video_id, view)


def test_a_video_that_cannot_be_decoded_is_listed_in_evaluation(root):
    data = loaded(root, "test", test_views=(1, 2))
    batches = list(data.test_dataloader())
    failed = [f for batch in batches for f in batch["failed"]]
    assert len(failed) == 1
    video_id, label, reason, unreadable = failed[0]
    assert data.manifests["test"].path(video_id).endswith("broken.mp4")
    assert label == 1
    assert reason == "not a video, or cut off before its index"
    assert not unreadable
    seen = torch.cat([batch["video_id"] for batch in batches])
    assert sorted(seen.tolist()) == sorted([i for i in range(4) if i != video_id] * 2)


def test_workers_change_nothing(root):
    batches = [
        list(loaded(root, "fit", num_workers=n, repeats=2).train_dataloader()) for n in (0, 2)
    ]
    for one, two in zip(*batches, strict=True):
        assert one.pop("failed") == two.pop("failed") == []
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_class_names_of_a_file(root, tmp_path):
    (tmp_path / "names.txt").write_text("z\nb\n\na\n")
    data = loaded(root, "test", class_names=tmp_path / "names.txt", test="val")
    assert data.class_names == ("z", "b", "a")
    assert [data.manifests["test"].label(i) for i in range(3)] == [1, 2, 2]
    (tmp_path / "names.txt").write_text("a\na\n")
    with pytest.raises(DatasetError, match="names.txt: expected one class name a line"):
        VideoFolderDataModule(tmp_path, class_names="names.txt")
    with pytest.raises(DatasetError, match=f"^{tmp_path}/gone.txt: no such file$"):
        VideoFolderDataModule(tmp_path, class_names="gone.txt")
    with pytest.raises(DatasetError, match=f"^{tmp_path}: not a .* file .Is a directory.$"):
        VideoFolderDataModule(tmp_path, class_names=tmp_path)


def test_classes_are_counted_and_what_is_suspicious_is_said(root, tmp_path, caplog):
    def said(train, **kwargs):
        caplog.clear()
        (root / "counted.csv").write_text(train)
        with caplog.at_level(logging.INFO, "datamodules"):
            loaded(root, "fit", train="counted.csv", batch_size=1, **kwargs)
        return [(record.levelname, record.message) for record in caplog.records]

    a, b = "train/a/0.mp4", "train/b/2.mp4"
    val = "val: 3 videos of 2 classes: first 'a' 2, last 'b' 1, smallest 'b' 1"
    train = "train: 2 videos of 2 classes: first 'a' 1, last 'b' 1, smallest 'a' 1"
    assert said(f"class;file\nb;{b}\na;{a}\n") == [("INFO", train), ("INFO", val)]
    assert said(f"{b}\n{a}\n", val=None) == []
    line, none, one, _ = said(f"{a},a\n", class_names=["a", "b"])
    assert line[1] == "train: 1 video of 2 classes: first 'a' 1, last 'b' 0, smallest 'b' 0"
    assert none == ("WARNING", "train: 1 of 2 classes have no training videos: b")
    assert one == ("WARNING", "train: all videos are of one class, 'a'; an accuracy means nothing")
    assert said(f"{a},Walk\n{b},walk\n", val=None)[1:] == [
        ("WARNING", "train: the classes 'Walk' and 'walk' differ only in case")
    ]
    (_, warning), *_ = said(f"{a},caf\u00e9\n{b},cafe\u0301\n", val=None)[1:]
    assert warning.endswith("differ only in the Unicode form of their letters")
    assert said(f"{a},a\n", val=None)[0] == ("INFO", "train: 1 video of one class, 'a'")


def test_a_video_in_two_splits_is_said_before_training(root, caplog):
    (root / "train.csv").write_text("train/a/0.mp4,a\nval/b/2.mp4,b\n")
    loaded(root, "fit", train="train.csv", val="val", batch_size=1)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("1 of the 3 videos of val is in train, too: b/2.mp4; ")


def test_listed_videos_that_do_not_exist_are_found_before_training(root, tmp_path, caplog):
    (root / "some.txt").write_text("train/a/0.mp4 1\nval/b/2.mp4 2\ngone/x.mp4 3\n")
    options = {"train": "some.txt", "val": None, "batch_size": 1}
    options["missing_videos"] = tmp_path / "missing.csv"
    message = f"some.txt: 1 of 3 videos is missing in {root}, the first in row 3: gone/x.mp4 "
    message += r"\(33.3%, and"
    with pytest.raises(DatasetError, match=message):
        loaded(root, "fit", **options)
    data = loaded(root, "fit", max_missing_share=0.4, **options)
    assert f"1 of 3 videos is missing in {root}, the first" in caplog.text
    assert len(data.manifests["train"]) == 2
    assert data.class_names == ("1", "2", "3")
    assert (tmp_path / "missing.csv").read_text().splitlines()[1:] == [
        f"some.txt,gone/x.mp4,{root}/some.txt,3"
    ]
    data = loaded(root, "predict", predict=[str(root / "some.txt")])
    assert len(data.manifests["predict"]) == 2


def test_a_list_is_predicted_without_its_labels(root, tmp_path):
    videos = [f"{split}/b/2.mp4" for split in ("train", "val")]
    (root / "list.csv").write_text(f"{videos[0]},b\n{videos[1]},unknown\n")
    (root / "paths.txt").write_text(videos[0])
    for sources in (["list.csv"], ["list.csv", "paths.txt", "train/b"]):
        data = loaded(root, "predict", predict=[str(root / source) for source in sources])
        manifest = data.manifests["predict"]
        paths = [manifest.path(i) for i in range(len(manifest))]
        expected = [*videos, videos[0], videos[0]][: 2 if len(sources) == 1 else 4]
        assert paths == [str(root / video) for video in expected]
        assert {manifest.label(i) for i in range(len(manifest))} == {-1}


def predicted(root, lists, predict_root=None):
    data = VideoFolderDataModule(root, predict=[str(file) for file in lists], **CLIP)
    data.predict_root = predict_root
    data.setup("predict")
    manifest = data.manifests["predict"]
    return data, [manifest.path(i) for i in range(len(manifest))]


def test_paths_of_a_list_to_predict_start_from_its_folder_or_else_from_the_root(
    root, tmp_path, caplog
):
    file, own = tmp_path / "lists/list.txt", tmp_path / "lists/train/b/2.mp4"
    file.parent.mkdir()
    file.write_text("train/b/2.mp4\ntrain/b/gone.mp4\n")
    missing = "list.txt: 1 of 2 videos is missing in {}, the first in row 2: train/b/gone.mp4"
    for case in range(3):
        if case == 1:
            own.parent.mkdir(parents=True)
            own.touch()
        caplog.clear()
        folder = root if case != 1 else file.parent
        _, paths = predicted(root, [file], root if case == 2 else None)
        assert paths == [str(folder / "train/b/2.mp4")]
        assert missing.format(folder) in caplog.text
    file.write_text(f"../lists/train/b/2.mp4\n{root}/train/b/2.mp4\n")  # may lead anywhere
    assert predicted(root, [file])[1] == [str(own), str(root / "train/b/2.mp4")]


def test_a_list_to_predict_of_which_nothing_is_there(root, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("gone.mp4\ngone.mp4\n")
    missing = "list.txt: 2 of 2 videos are missing in {}, the first in row 1: gone.mp4; "
    advice = "data.root=DIR names another folder$"
    for given, places in ((None, f"{tmp_path} and {root}"), (root, root)):
        with pytest.raises(DatasetError, match=missing.format(places) + advice):
            predicted(root, [file], given)


def test_what_was_prepared_comes_first(root, tmp_path):
    ready = tmp_path / "ready"
    table = pa.table({"path": ["train/b/2.mp4"], "label": pa.array([0], pa.int64())})
    (root / "list.txt").write_text("train/a/0.mp4 0\ntrain/b/2.mp4 1\n")
    # A split below the root keeps its name, another one gets that of its role.
    for split, folder in (("list.txt", "list.txt"), (str(root / "list.txt"), "train")):
        assert len(loaded(root, "fit", train=split, val=None, batch_size=1).manifests["train"]) == 2
        (ready / folder).mkdir(parents=True)
        metadata = ManifestMetadata(["b"], str(root))
        write_manifest(ready / folder / "manifest.parquet", table, metadata)
        data = loaded(ready, "fit", train=split, val=None, batch_size=1)
        assert data.prepared_name("train") == folder
        assert [data.manifests["train"].path(0)] == [str(root / "train/b/2.mp4")]
        assert data.class_names == ("b",)


def test_training_videos_without_labels_beside_labelled_ones(root, tmp_path):
    for path in sorted((root / "train").rglob("*.mp4")):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / path.name).symlink_to(path)
    (tmp_path / "val").symlink_to(root / "val")
    data = loaded(tmp_path, "fit")  # as pretraining may have them
    assert [data.manifests["train"].label(i) for i in range(3)] == [-1] * 3
    assert [data.manifests["val"].label(i) for i in range(3)] == [0, 0, 1]


def test_a_split_that_is_not_there(root):
    data = VideoFolderDataModule(root, val=None, **CLIP)
    data.setup("fit")
    assert data.val_dataloader() == []
    with pytest.raises(DatasetError, match="data.test is null"):
        VideoFolderDataModule(root, test=None, **CLIP).setup("test")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"num_workers": -1}, "num_workers"),
        ({"test_views": (5,)}, r"test_views must be \[temporal, spatial\]"),
        ({"val_views": (0, 1)}, "val_views"),
        ({"test_views": (1.5, 1)}, r"test_views must be \[temporal, spatial\], whole numbers"),
        ({"size": 224}, r"size must be \[height, width\], whole numbers above 0, not 224"),
        ({"size": (224, 224, 3)}, "size must be"),
        ({"size": (0, -5), "short_side": (256, 320)}, "size must be"),
        ({"batch_size": math.inf}, "batch_size must be a whole number, not inf"),
        ({"decode_timeout": 0}, "decode_timeout must be positive"),
        ({"max_bad_share": 1.01}, r"max_bad_share must be in \[0, 1\]"),
        ({"max_missing_share": 2}, r"max_missing_share must be in \[0, 1\]"),
        ({"sampling": "uniform"}, "sampling must be one of clip, spread, segments, not"),
        (
            {"short_side": (200, 320)},
            r"short_side=\[200, 320\] is less than the crop of 224 pixels",
        ),
        ({"short_side": (320, 256)}, "short_side must be above 0, in ascending order"),
        ({"short_side": (256.5, 320)}, "short_side must be a whole number"),
        ({"short_side": 256}, r"short_side must be \[least, greatest\]"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        VideoFolderDataModule("x", **wrong)
