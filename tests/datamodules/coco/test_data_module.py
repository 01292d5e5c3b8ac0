import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import CocoDataModule, DatasetError, SyntheticCocoDataModule, VideoDecodeError
from datamodules.coco.annotations import ground_truth, read_coco
from datamodules.coco.pictures import read_picture
from hiera_video.tasks.instance_segmentation import unpack_bits
from tests.datamodules.coco.small import annotation, content, write
from tests.fake_processes import two_processes

SIZE = (64, 96)


def module(root, **kwargs):
    options = {"batch_size": 1, "eval_batch_size": 2, "size": SIZE, "scale": (1.0, 1.0), **kwargs}
    return CocoDataModule(root, "train", "train", "train", **options)


def started(root, **kwargs):
    data = module(root, **kwargs)
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Synthetic pictures, 24 to train."""
    root = tmp_path_factory.mktemp("shapes")

    def make(**kwargs):
        options = {"batch_size": 4, "eval_batch_size": 4, "max_bad_share": 0.2, **kwargs}
        data = SyntheticCocoDataModule(root, (24, 6, 6), 96, size=(96, 96), **options)
        data.prepare_data()
        data.setup("fit")
        return data

    return make


def assert_same(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert value == two[key] if key == "failed" else torch.equal(value, two[key]), key


def test_a_batch_has_pictures_boxes_classes_and_masks(tmp_path):
    write(tmp_path)
    data = started(tmp_path, batch_size=2)
    assert (data.class_names, data.category_ids) == (("plane", "toothbrush"), (4, 90))
    (batch,) = data.train_dataloader()
    assert sorted(batch["video_id"].tolist()) == [0, 2]  # a picture without objects is left out
    assert batch["video"].shape == (2, 3, 1, *SIZE)
    assert batch["picture_size"].tolist() == [[64, 96]] * 2
    masks = unpack_bits(batch["masks"])
    assert masks.shape == (3, *SIZE)
    labels = {(2, 0): {1, 2}, (0, 2): {1, 2}}[tuple(batch["video_id"].tolist())]
    assert set(batch["box_labels"].tolist()) == labels
    for clip, box, mask in zip(batch["box_clip"], batch["boxes"], masks, strict=True):
        x1, y1, x2, y2 = box.int().tolist()
        assert mask.sum() == (x2 - x1) * (y2 - y1)
        assert mask[y1:y2, x1:x2].all()
        assert (batch["video"][clip, 0, 0][mask.bool()] == 255).all()
    whole = sum((batch["video"][:, 0, 0] == 255).flatten(1).sum(1).tolist())
    assert whole == masks.sum()  # crowds are no objects, and nothing is missing


def test_the_first_of_two_processes_reads_the_annotation(tmp_path):
    file, both = write(tmp_path), []
    for trainer in two_processes():
        data = module(tmp_path)
        data.trainer = trainer
        data.setup("fit")
        both.append((data.class_names, data.category_ids, data.manifests["train"]))
        file.unlink(missing_ok=True)
    assert both[0] == both[1]
    assert both[0][:2] == (("plane", "toothbrush"), (4, 90))


def test_evaluation_has_every_picture_once_and_no_objects(tmp_path):
    write(tmp_path)
    data = started(tmp_path, size=(96, 128))
    batches = list(data.val_dataloader())
    assert torch.cat([b["video_id"] for b in batches]).tolist() == [0, 1, 2]
    assert batches[0]["picture_size"].tolist() == [[85, 128]] * 2
    assert batches[0]["original_size"].tolist() == [[64, 96]] * 2
    assert (batches[0]["video"][:, :, 0, 85:] == 128).all()
    assert "masks" not in batches[0]


@pytest.mark.parametrize("keep_empty", [False, True])
def test_pictures_without_objects(tmp_path, keep_empty):
    value = content()
    value["annotations"] = value["annotations"][2:]  # the crowd is alone now
    write(tmp_path, value)
    data = started(tmp_path, keep_empty=keep_empty, batch_size=3 if keep_empty else 1)
    (batch,) = data.train_dataloader()
    assert len(batch["box_labels"]) == 1
    assert len(batch["video"]) == (3 if keep_empty else 1)


def test_batches_do_not_depend_on_workers_and_continue_where_they_stopped(shapes):
    alone, helped, resumed = shapes(), shapes(num_workers=2), shapes(num_workers=2)
    batches = list(alone.train_dataloader())
    loader = helped.train_dataloader()
    for one, two in zip(batches, loader, strict=True):
        assert_same(one, two)
    assert any((b["picture_size"] != 96).any() for b in batches)  # jitter is on
    other = next(iter(alone.train_dataloader()))  # of the next epoch
    stopping = shapes()
    stopped = iter(stopping.train_dataloader())
    next(stopped), next(stopped)
    resumed.load_state_dict(stopping.state_dict())
    assert_same(next(iter(resumed.train_dataloader())), batches[2])
    assert not torch.equal(other["seed"], batches[0]["seed"])


def test_a_bad_picture_is_replaced_and_listed(tmp_path):
    value = content()
    write(tmp_path, value)
    (tmp_path / "train" / "7.png").write_bytes(b"no picture")
    data = started(tmp_path, bad_videos=tmp_path / "bad.csv", max_bad_share=0.5)
    batches = list(data.train_dataloader())
    assert [b["video_id"].tolist() for b in batches] == [[2], [2]]
    assert "not one of the pictures read here" in (tmp_path / "bad.csv").read_text()
    failed = [f for b in data.val_dataloader() for f in b["failed"]]
    assert [f.video_id for f in failed] == [0]


def test_a_picture_of_another_size_or_an_impossible_mask_is_bad(tmp_path):
    value = content()
    value["images"][0]["width"] = 97
    value["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    write(tmp_path, value)
    data = started(tmp_path, max_bad_share=0.9)
    batches = data.val_dataloader()
    (failure,) = [f for b in batches for f in b["failed"]]
    assert failure.reason == "is 96x64, and the annotation says 97x64"
    clips = data.training_clips(data.training_manifest())
    with pytest.raises(VideoDecodeError, match="annotation 1: a polygon must"):
        clips[0, 1]


def test_pictures_are_turned_as_their_exif_data_says(tmp_path):
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(str(tmp_path / "a.png"), (6, 4)), pixels)
    assert np.array_equal(read_picture(str(tmp_path / "a.png"), (4, 6)), np.rot90(pixels, -1))
    assert read_picture(str(tmp_path / "a.png")).shape == (6, 4, 3)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert read_picture(str(tmp_path / "grey.png")).shape == (4, 6, 3)


@pytest.mark.parametrize("orientation", [1, 6])
def test_check_names_the_pictures_whose_size_training_refuses(tmp_path, orientation):
    value = content()
    for i, size in enumerate([(96, 64), (64, 96), (97, 64)]):
        value["images"][i].update(width=size[0], height=size[1])
    write(tmp_path, value)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data, refused = module(tmp_path), 0
    for image in value["images"]:
        path = data.image_folder("train") / image["file_name"]
        Image.new("RGB", (96, 64)).save(path, exif=exif)
        try:
            read_picture(str(path), (image["width"], image["height"]))
        except VideoDecodeError:
            refused += 1
    assert refused == (2 if orientation == 1 else 1)
    (diagnosis,) = data.diagnose(["train"])
    faults = [str(fault) for fault in diagnosis.faults]
    assert len([fault for fault in faults if " and not " in fault]) == refused, faults


def test_missing_pictures_are_counted_and_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "train" / "3.png").unlink()
    with pytest.raises(
        DatasetError, match=r"1 of 3 images is missing in .*, the first in .*3\.png"
    ):
        started(tmp_path)
    data = started(tmp_path, max_missing_share=0.5, batch_size=2)
    assert len(data.manifests["val"]) == 2


def test_the_training_manifest_needs_no_setup(tmp_path):
    write(tmp_path)
    assert len(module(tmp_path).training_manifest()) == 2  # as `doctor` reads it


def test_own_files_and_folders(tmp_path):
    file = write(tmp_path)
    file.rename(tmp_path / "mine.json")
    (tmp_path / "train").rename(tmp_path / "pictures")
    data = CocoDataModule(
        tmp_path, "mine.json", None, None, images="pictures", size=SIZE, batch_size=2
    )
    data.setup("fit")
    assert len(data.manifests["train"]) == 2
    outside = json.loads((tmp_path / "mine.json").read_text())
    outside["images"][0]["file_name"] = "../../x.png"
    (tmp_path / "mine.json").write_text(json.dumps(outside))
    with pytest.raises(DatasetError, match="lies outside data.root"):
        CocoDataModule(tmp_path, "mine.json", images="pictures", size=SIZE).setup("fit")


def test_splits_must_have_the_same_categories(tmp_path):
    write(tmp_path)
    other = content()
    other["categories"] = [{"id": 90, "name": "plane"}, {"id": 4, "name": "toothbrush"}]
    write(tmp_path, other, "val")
    data = CocoDataModule(tmp_path, "train", "val", size=SIZE)
    line = (
        f"{tmp_path}/annotations/instances_val.json: 2 categories, and other ones than the 2 of "
        f"train, {tmp_path}/annotations/instances_train.json (here alone: 4 toothbrush, 90 plane; "
        "there alone: 4 plane, 90 toothbrush); all splits must have the same ids and names"
    )
    with pytest.raises(DatasetError) as caught:
        data.setup("fit")
    assert str(caught.value) == line
    for name, faults in (("train", []), ("val", [f"wrong  {line}"])):  # as `check` asks
        (diagnosis,) = data.diagnose([name])
        assert [str(fault) for fault in diagnosis.faults] == faults


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["annotations"][0].update(image_id=99), "annotation 1 is of image 99"),
        (lambda v: v["annotations"][1].update(category_id=1), "annotation 2 is of category 1"),
        (lambda v: v["annotations"][1].update(bbox=[1, 2, -3, 4]), "annotation 2 has no bbox"),
        (lambda v: v["annotations"][1].update(bbox=None), "annotation 2 has no bbox"),
        (lambda v: v["annotations"][1].update(iscrowd="0"), "annotation 2 has iscrowd '0'"),
        (lambda v: v["annotations"][1].update(area=[]), r"annotation 2 has area \[\]"),
        (lambda v: v["images"][1].update(id=7), "image 7 occurs twice"),
        (lambda v: v["images"][1].update(id="7"), "image number 2 has no whole number as id"),
        (lambda v: v["images"][1].pop("height"), "image 3 has no height and width"),
        (lambda v: v["images"][1].pop("file_name"), "image 3 has no file_name"),
        (lambda v: v["categories"][0].pop("name"), "category 90 has no name"),
        (lambda v: v.update(images=[]), "there are no images"),
        (lambda v: v.pop("categories"), "expected a list of objects in 'categories'"),
    ],
)
def test_wrong_annotations(tmp_path, change, message):
    value = content()
    change(value)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(value))
    for read in (read_coco, ground_truth):
        with pytest.raises(DatasetError, match=message):
            read(file)


def test_unreadable_annotations(tmp_path):
    (tmp_path / "a.json").write_text("{")
    for name, message in (("a.json", "not valid JSON"), ("b.json", "no such file")):
        with pytest.raises(DatasetError, match=message):
            read_coco(tmp_path / name)
    with pytest.raises(DatasetError, match=r"no instances_train.json in"):
        module(tmp_path).setup("fit")


def test_ground_truth_has_what_own_files_may_lack(tmp_path):
    value = content()
    for a in value["annotations"]:
        a["area"] = a["iscrowd"] = None
    del value["annotations"][0]["area"], value["annotations"][1]["iscrowd"]
    truth = ground_truth(write(tmp_path, value))
    assert [(a["area"], a["iscrowd"]) for a in truth["annotations"]] == [(256, 0)] * 3 + [(64, 0)]


def lines(root, value, **kwargs):
    write(root, value, **kwargs)
    (diagnosis,) = module(root).diagnose(["train"])
    return [str(fault) for fault in diagnosis.faults], diagnosis.lines


def test_a_sound_annotation_is_described(tmp_path):
    faults, described = lines(tmp_path, content())
    assert not faults
    assert described == [
        "train: 3 pictures, 1 of them without objects; 3 objects and 1 crowd of 2 categories"
    ]


def shares(value):
    for a in value["annotations"]:
        a["bbox"] = [n / 100 for n in a["bbox"]]


def corners(value):
    value["annotations"] = [annotation(i, 7, x=50, y=40) for i in range(1, 9)]
    for a in value["annotations"]:
        a["bbox"] = [50, 40, 66, 56]


def crowds(value):
    for a in value["annotations"]:
        a["iscrowd"] = 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shares, "AP would be 0: all boxes are within 1 pixel"),
        (corners, "AP would be 0: boxes look like x1, y1, x2, y2"),
        (crowds, "AP would be undefined: there are no objects"),
        (
            lambda v: v["annotations"][0].update(bbox=[90, 20, 30, 16]),
            r"out of their picture.* 1 \(1\)",
        ),
        (
            lambda v: v["annotations"][3].update(bbox=[1, 50, 8, 8]),
            r"do not fit their masks.* 1 \(4\)",
        ),
        (lambda v: v["annotations"][3].update(bbox=[40, 5, 0, 8]), r"boxes without area.* 1 \(4\)"),
        (lambda v: v["annotations"].pop(1), r"categories without objects.* 1 \(toothbrush\)"),
        (lambda v: v["annotations"][0].pop("area"), r"annotations without an area.* 1 \(1\)"),
        (lambda v: v["annotations"][0].update(area=None), r"annotations without an area.* 1 \(1\)"),
    ],
)
def test_why_ap_would_be_low(tmp_path, change, reason):
    value = content()
    change(value)
    faults, described = lines(tmp_path, value)
    assert not faults
    assert [line for line in described if re.search(reason, line)], described


def test_pictures_that_are_elsewhere(tmp_path):
    write(tmp_path)
    (tmp_path / "train").rename(tmp_path / "pictures")
    (diagnosis,) = module(tmp_path).diagnose(["train"])
    assert any("none of the pictures is in" in line for line in diagnosis.lines)


def test_faults_are_all_listed(tmp_path):
    value = content()
    value["annotations"][0]["segmentation"] = None
    value["annotations"][1]["segmentation"] = [[1, 2]]
    value["images"][1]["height"] = 65
    value["annotations"][2]["segmentation"] = {"size": [64, 96], "counts": [5]}  # of a crowd
    faults, _ = lines(tmp_path, value)
    assert len(faults) == 4
    assert any("annotation 1 has no mask" in fault for fault in faults)
    value["annotations"][2]["image_id"] = 1
    value["annotations"][3]["image_id"] = [1]
    assert len(lines(tmp_path, value)[0]) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": (100, 64)}, ValueError, "multiples of 32"),
        ({"size": 128}, ValueError, "multiples of 32, not 128"),
        ({"scale": (2.0, 0.1)}, ValueError, "scale must be above 0, in ascending order"),
        ({"num_frames": 4}, TypeError, "unexpected keyword argument 'num_frames'"),
        ({"repeats": 4}, TypeError, "unexpected keyword argument 'repeats'"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        module(tmp_path, **arguments)
