"""Folders of pictures: batches of clips of one frame, with all that loaders guarantee."""

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DatasetError, ImageFolderDataModule, SyntheticShapesDataModule
from datamodules.images.shapes import CLASS_NAMES, draw_shape
from datamodules.manifests.packing import pack
from datamodules.preparing.check import check
from datamodules.preparing.prepare import prepare
from datamodules.video.transcoding import Encoding

SIZES = ((64, 96), (96, 64), (64, 64), (100, 50))


@pytest.fixture
def root(tmp_path):
    """Two classes of four pictures each in train and val; their red channel is their class."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i, size in enumerate(SIZES):
                pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
                pixels[..., 0] = 200 * label
                Image.fromarray(pixels).save(folder / f"{i}.{('jpg', 'png')[i % 2]}", quality=95)
    return tmp_path


def module(root, **options):
    return ImageFolderDataModule(
        root,
        **{"test": "val", "size": (32, 32), "batch_size": 4, "eval_batch_size": 3, **options},
    )


def batches(data):
    return list(data.train_dataloader())


def test_a_batch_of_pictures_is_a_batch_of_clips_of_one_frame(root):
    data = module(root)
    data.setup("fit")
    for batch in batches(data):
        assert batch["video"].shape == (4, 3, 1, 32, 32)
        assert batch["video"].dtype == torch.uint8
        red = batch["video"][:, 0].float().mean(dim=(1, 2, 3)) > 100
        assert (red.long() == batch["label"]).all()
    assert data.class_names == ("cat", "dog")
    batch = next(iter(data.val_dataloader()))
    assert batch["video"].shape == (3, 3, 1, 32, 32)
    assert batch["view"].tolist() == [0, 0, 0]


def test_evaluation_crops_the_centre_as_torchvision_does(root):
    from torchvision.transforms.v2 import functional as F

    data = module(root, size=(28, 28))
    data.setup("test")
    items = [item for batch in data.test_dataloader() for item in batch["video"]]
    for index, ours in enumerate(items):
        with Image.open(data.manifests["test"].path(index)) as image:
            scaled = F.resize(image.convert("RGB"), [32], F.InterpolationMode.BICUBIC)
        expected = F.pil_to_tensor(F.center_crop(scaled, [28, 28]))
        assert (ours[:, 0].int() - expected.int()).abs().max() <= 1


def test_spatial_views_move_along_the_longer_side_alone(root):
    data = module(root, size=(28, 28), test_views=(1, 3))
    data.setup("test")
    (first, *_) = data.test_dataloader()
    left, centre, right = first["video"][:3, :, 0]  # of a picture of 64x96
    assert (left[:, :, 10:] == centre[:, :, :18]).all()
    assert (centre[:, :, 10:] == right[:, :, :18]).all()


def test_the_order_and_the_crops_do_not_depend_on_workers_and_resume(root):
    whole, workers, stopped, rest = (
        module(root, num_workers=n, batch_size=2) for n in (0, 2, 0, 0)
    )
    for data in (whole, workers, stopped, rest):
        data.setup("fit")
    expected = batches(whole)
    for one, other in zip(expected, batches(workers), strict=True):
        assert (one["video"] == other["video"]).all()
    loader = stopped.train_dataloader()
    iterator = iter(loader)
    next(iterator)
    rest.load_state_dict(loader.state_dict())
    for one, other in zip(expected[1:], batches(rest), strict=True):
        assert (one["video"] == other["video"]).all()
        assert (one["seed"] == other["seed"]).all()
    iterator.close()


def test_a_bad_picture_is_replaced_in_training_and_listed(root):
    (root / "train/cat/0.jpg").write_bytes(b"no picture")
    listed = root / "bad.csv"
    data = module(root, bad_videos=listed, max_bad_share=0.2)
    data.setup("fit")
    done = batches(data)
    assert sum(len(batch["video"]) for batch in done) == 8
    assert [failure.reason[:16] for batch in done for failure in batch["failed"]] == [
        "not one of the p"
    ]
    assert "train/cat/0.jpg" in listed.read_text()


def test_other_files_are_skipped_and_named(root, caplog):
    (root / "train/cat/clip.mp4").write_bytes(b"x")
    (root / "train/cat/animated.gif").write_bytes(b"x")
    data = module(root)
    data.setup("fit")
    assert len(data.manifests["train"]) == 8
    assert "2 files are skipped, such as" in caplog.text


def test_a_folder_without_pictures_says_so(tmp_path):
    (tmp_path / "train/cat").mkdir(parents=True)
    (tmp_path / "train/cat/clip.mp4").write_bytes(b"x")
    with pytest.raises(DatasetError, match="no images; expected one folder of images per class"):
        module(tmp_path).setup("fit")


@pytest.mark.parametrize("text", ["path,label\nval/cat/0.jpg,cat\n", "val/cat/0.jpg cat\n"])
def test_lists_of_pictures(root, text):
    (root / "list.csv").write_text(text)
    data = module(root, train="list.csv", val=None, batch_size=1)
    data.setup("fit")
    assert [len(batch["label"]) for batch in batches(data)] == [1]


def test_pictures_to_predict(root):
    data = module(root, predict=[str(root / "val"), str(root / "train/cat/0.jpg")])
    data.setup("predict")
    assert len(data.manifests["predict"]) == 9
    assert next(iter(data.predict_dataloader()))["label"].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("encoding", [None, Encoding(short_side=32)])
def test_prepared_and_packed_pictures_are_read_alike(root, tmp_path, encoding):
    (root / "train/cat/0.jpg").write_bytes(b"no picture")
    data = module(root)
    data.setup("fit")
    out = tmp_path / "out/train"
    prepare(data.read_split("train"), data.manifests["train"].root, out, encoding=encoding)
    assert "not one of the pictures" in (out / "bad_videos.csv").read_text()
    pack(out, tmp_path / "packed/train", 1 << 30)
    loaded = []
    for place in ("out", "packed"):
        other = module(tmp_path / place, val=None)
        other.setup("fit")
        assert len(other.manifests["train"]) == 7
        manifest = other.read_split("train")
        assert manifest.table["ok"].to_pylist().count(False) == 1
        assert [f.kind for f in check(manifest, decode=True)] == ["corrupt"]
        loaded.append(batches(other)[0])
    assert (loaded[0]["video"] == loaded[1]["video"]).all()
    if encoding is not None:
        good = manifest.table.filter(manifest.table["ok"])
        sides = zip(good["width"].to_pylist(), good["height"].to_pylist(), strict=True)
        assert {min(side) for side in sides} == {32}
        assert set(good["codec"].to_pylist()) == {"jpeg"}


def test_shapes_differ_in_their_outline_alone(tmp_path):
    data = SyntheticShapesDataModule(
        tmp_path, images=(16, 8, 8), size=(64, 64), batch_size=16, eval_crop=1.0
    )
    data.prepare_data()
    data.setup("fit")
    (batch,) = batches(data)
    assert sorted(batch["label"].tolist()) == sorted([*range(8)] * 2)
    assert data.class_names == CLASS_NAMES
    means = [
        np.mean([draw_shape(name, np.random.default_rng(i)).mean() for i in range(40)])
        for name in CLASS_NAMES
    ]
    assert np.ptp(means) < 25  # grey levels
