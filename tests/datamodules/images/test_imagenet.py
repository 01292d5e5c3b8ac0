"""ImageNet in each published layout gives the same ids and names."""

import numpy as np
import pytest
from PIL import Image

from datamodules import DatasetError, ImageNetDataModule

SYNSETS = ("n01440764", "n02012849", "n03126707")
WORDS = ("tench, Tinca tinca", "crane", "crane")
NAMES = ("tench, Tinca tinca", "crane (n02012849)", "crane (n03126707)")
LABELS = (2, 0, 1, 1)  # of the validation pictures


def picture(path, label=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((40, 40, 3), 80 * label, np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


@pytest.fixture
def root(tmp_path):
    for label, synset in enumerate(SYNSETS):
        for i in range(2):
            picture(tmp_path / f"train/{synset}/{synset}_{i}.JPEG", label)
    lines = [f"{synset} {words}\n" for synset, words in zip(SYNSETS, WORDS, strict=True)]
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(lines))
    return tmp_path


def flat(root):
    for i, label in enumerate(LABELS, 1):
        picture(root / f"val/ILSVRC2012_val_{i:08d}.JPEG", label)


def module(root, **options):
    options = {"num_classes": 3, "size": (32, 32), "batch_size": 2, "test": "val"} | options
    return ImageNetDataModule(root, **options)


def labels(data, split="val"):
    data.setup("fit" if split != "test" else "test")
    manifest = data.manifests[split]
    return [manifest.label(i) for i in range(len(manifest))]


def kaggle(root):
    rows = [
        f"ILSVRC2012_val_{i:08d},{SYNSETS[label]} 1 2 3 4 {SYNSETS[label]} 5 6 7 8\n"
        for i, label in enumerate(LABELS, 1)
    ]
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))


def caffe(root):
    rows = [f"ILSVRC2012_val_{i:08d}.JPEG {label}\n" for i, label in enumerate(LABELS, 1)]
    (root / "val.txt").write_text("".join(rows))


def devkit(root):
    from scipy import io

    folder = root / "ILSVRC2012_devkit_t12/data"
    folder.mkdir(parents=True)
    order = [3, 1, 2]  # the devkit's own ids of the synsets
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    rows = [(order[i], SYNSETS[i], WORDS[i]) for i in range(3)]
    io.savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    text = "".join(f"{order[label]}\n" for label in LABELS)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(text)


@pytest.mark.parametrize("write", [kaggle, caffe, devkit])
def test_a_flat_validation_folder_is_labelled_by_its_ground_truth(root, write):
    flat(root)
    write(root)
    data = module(root)
    assert labels(data) == list(LABELS)
    assert data.class_names == NAMES
    assert labels(data, "train") == [0, 0, 1, 1, 2, 2]
    assert data.manifests["val"].class_names == NAMES
    batch = next(iter(data.val_dataloader()))
    red = batch["video"][:, 0].float().mean(dim=(1, 2, 3)) / 80
    assert red.round().long().tolist() == batch["label"].tolist()


def test_a_validation_folder_of_synsets(root):
    for i, label in enumerate(LABELS):
        picture(root / f"val/{SYNSETS[label]}/{i}.JPEG", label)
    assert labels(module(root)) == sorted(LABELS)


def test_the_folders_of_imagenet_v2_are_ids(root):
    for i, label in enumerate(LABELS):
        picture(root / f"v2/{label}/{i}.jpeg", label)
    data = module(root, val="v2", test="v2")
    assert labels(data) == sorted(LABELS)
    assert data.manifests["val"].class_names == NAMES


def test_without_words_classes_are_named_by_their_synsets(root):
    (root / "LOC_synset_mapping.txt").unlink()
    data = module(root, val=None)
    labels(data, "train")
    assert data.class_names == SYNSETS


def test_names_of_a_model_are_kept_if_they_are_as_many(root):
    flat(root)
    caffe(root)
    data = module(root, class_names=["a", "b", "c"])
    assert labels(data, "test") == list(LABELS)
    assert data.manifests["test"].class_names == ("a", "b", "c")
    with pytest.raises(DatasetError, match="3 synsets for a model of 2 classes"):
        module(root, class_names=["a", "b"]).setup("test")


def test_a_missing_validation_picture_is_counted(root, caplog):
    flat(root)
    caffe(root)
    (root / "val/ILSVRC2012_val_00000002.JPEG").unlink()
    data = module(root, max_missing_share=0.5)
    assert labels(data) == [2, 1, 1]
    assert "1 of 4 images is missing" in caplog.text


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("val.txt", "ILSVRC2012_val_00000001.JPEG 3\n", "does not end in an id below 3"),
        ("LOC_val_solution.csv", "a,b\n", "expected ImageId,PredictionString"),
        ("LOC_val_solution.csv", "a" * 200_000, "row 1: field larger than"),
        ("val.txt", "\n", "no rows; remove it"),
        ("LOC_synset_mapping.txt", "tench\n", "row 1: expected a synset and its words"),
    ],
)
def test_a_wrong_file_is_named(root, file, text, message):
    flat(root)
    (root / file).write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        module(root).setup("fit")
    assert file in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "row"),
    [
        (
            "LOC_val_solution.csv",
            f"ImageId,PredictionString\na,{SYNSETS[0]} 1\n\n../b,{SYNSETS[1]}\n",
            4,
        ),
        ("val.txt", "\na.JPEG 0\n  \n../b.JPEG 1\n", 4),
        ("val.txt", "\na.JPEG 0\n\nb.JPEG 3\n", 4),
    ],
)
def test_a_wrong_row_is_named_by_its_line(root, file, text, row):
    flat(root)
    (root / file).write_text(text)
    with pytest.raises(DatasetError, match=f"{file}, row {row}: "):
        module(root).setup("fit")


def test_another_number_of_synsets_is_named(root):
    with pytest.raises(DatasetError, match="3 synsets, not 1000; set data.root, or"):
        module(root, num_classes=1000).setup("fit")


def test_a_test_needs_the_words_alone(root):
    flat(root)
    caffe(root)
    import shutil

    shutil.rmtree(root / "train")
    assert labels(module(root), "test") == list(LABELS)
