"""iNaturalist and Places365 as published."""

import json

import numpy as np
import pytest
from PIL import Image

from datamodules import DatasetError, INaturalistDataModule, Places365DataModule


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path)


OPTIONS = {"size": (32, 32), "batch_size": 2}


@pytest.fixture
def inaturalist(tmp_path):
    """Three species, whose categories are listed out of order."""
    names = {2: "Rana temporaria", 0: "Pica pica", 1: "Pica pica"}
    categories = [{"id": i, "name": name, "supercategory": "any"} for i, name in names.items()]
    for split, labels in (("train2018", (1, 0, 2)), ("val2018", (2, 1))):
        images, annotations = [], []
        for i, label in enumerate(labels):
            name = f"{split}/any/{label}/{i}.jpg"
            picture(tmp_path / name)
            images.append({"id": 100 + i, "file_name": name, "width": 40, "height": 40})
            annotations.append({"id": i, "image_id": 100 + i, "category_id": label})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    return tmp_path


def labels(data, split="train"):
    data.setup("fit")
    manifest = data.manifests[split]
    return [manifest.label(i) for i in range(len(manifest))]


def inaturalist_module(root, **options):
    options = {"num_classes": 3, "train": "train2018", "val": "val2018"} | OPTIONS | options
    return INaturalistDataModule(root, **options)


def test_classes_of_inaturalist_are_in_the_order_of_their_ids(inaturalist):
    data = inaturalist_module(inaturalist)
    assert labels(data) == [1, 0, 2]
    assert labels(data, "val") == [2, 1]
    assert data.class_names == ("Pica pica (0)", "Pica pica (1)", "Rana temporaria")
    assert next(iter(data.train_dataloader()))["video"].shape == (2, 3, 1, 32, 32)


def test_names_of_inaturalist_may_come_from_another_file(inaturalist):
    names = [{"id": i, "name": f"species {i}"} for i in range(3)]
    (inaturalist / "categories.json").write_text(json.dumps(names))
    data = inaturalist_module(inaturalist, categories="categories.json")
    assert labels(data) == [1, 0, 2]
    assert data.class_names == ("species 0", "species 1", "species 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 200_000, "not valid JSON"),
        ('{"categories": []}', "not an annotation of iNaturalist .KeyError: 'images'"),
        ('{"categories": [{"id": 1}]}', "its categories have no id and name"),
    ],
)
def test_a_wrong_json_is_named(inaturalist, text, message):
    (inaturalist / "train2018.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        inaturalist_module(inaturalist, num_classes=None).setup("fit")


@pytest.mark.parametrize(
    ("section", "record", "message"),
    [
        ("images", {"id": 101, "file_name": "b.jpg"}, ": several images have the id 101$"),
        (
            "annotations",
            {"image_id": 77, "category_id": 1},
            ", record 4: 77 is not among the ids of images$",
        ),
        (
            "annotations",
            {"image_id": 100, "category_id": 9},
            ", record 4: 9 is not among the ids of categories$",
        ),
        ("images", {"id": 7, "file_name": "\ud800.jpg"}, "not valid JSON .*surrogates not allowed"),
    ],
)
def test_wrong_records_of_inaturalist_are_named(inaturalist, section, record, message):
    file = inaturalist / "train2018.json"
    content = json.loads(file.read_text())
    content[section].append(record)
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message):
        inaturalist_module(inaturalist).setup("fit")


def test_names_may_be_written_as_pairs_of_surrogates(inaturalist):
    names = [{"id": i, "name": f"\U0001f438 {i}"} for i in range(3)]
    (inaturalist / "categories.json").write_text(json.dumps(names))
    assert "\\ud83d" in (inaturalist / "categories.json").read_text()
    data = inaturalist_module(inaturalist, categories="categories.json")
    data.setup("fit")
    assert data.class_names == ("\U0001f438 0", "\U0001f438 1", "\U0001f438 2")


def test_a_json_that_is_not_utf8_is_told_once(inaturalist):
    file = inaturalist / "train2018.json"
    file.write_bytes(b'{"images": [],\n"info": "\xff"}')
    with pytest.raises(DatasetError) as caught:
        inaturalist_module(inaturalist).setup("fit")
    assert str(caught.value) == f"{file}, line 2: not a readable text file; save it as UTF-8"


@pytest.fixture
def places(tmp_path):
    names = ("a/airfield", "a/airplane_cabin", "b/bar")
    lines = [f"/{name} {i}\n" for i, name in enumerate(names)]
    (tmp_path / "categories_places365.txt").write_text("".join(lines))
    train = [(f"/{names[i]}/0000000{n}.jpg", i) for i in (2, 0, 1) for n in (1, 2)]
    val = [(f"Places365_val_0000000{n}.jpg", i) for n, i in enumerate((1, 2))]
    for split, folder, rows in (
        ("train_standard", "data_large", train),
        ("val", "val_large", val),
    ):
        for path, _ in rows:
            picture(tmp_path / folder / path.lstrip("/"))
        text = "".join(f"{path} {label}\n" for path, label in rows)
        (tmp_path / f"places365_{split}.txt").write_text(text)
    return tmp_path


def places_module(root, **options):
    folders = {"train_standard": "data_large", "val": "val_large"}
    return Places365DataModule(
        root,
        "train_standard",
        "val",
        **{"num_classes": 3, "pictures": folders, **OPTIONS, **options},
    )


def test_lists_of_places365(places):
    data = places_module(places)
    assert labels(data) == [2, 2, 0, 0, 1, 1]
    assert labels(data, "val") == [1, 2]
    assert data.class_names == ("airfield", "airplane_cabin", "bar")


def test_a_wrong_row_of_places365_is_named(places):
    (places / "places365_val.txt").write_text("Places365_val_00000001.jpg 3\n")
    with pytest.raises(DatasetError, match="row 1: expected a path and the id of a category"):
        places_module(places).setup("fit")
