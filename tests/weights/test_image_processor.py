"""Pictures as transformers' image processors prepare them, or a refusal."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    BitImageProcessor,
    HieraConfig,
    HieraForImageClassification,
)

from hiera_video import load
from hiera_video.errors import CheckpointError
from hiera_video.weights import read_trained
from tests.models.foreign import randomize_transformers

SMALL = {"embed_dim": 16, "num_heads": [1, 2, 4, 8], "depths": [1, 1, 1, 1]}
CROP = {"height": 64, "width": 64}
REFUSED = [
    ({"do_resize": False}, "do_resize must be true, not False"),
    ({"do_center_crop": False}, "do_center_crop must be true, not False"),
    ({"crop_size": {"height": 32, "width": 32}}, "crop_size must be the model's input, .* not"),
    ({"crop_size": 32}, "crop_size must be the model's input, .* not 32"),
    ({"size": {"height": 64, "width": 64}}, "size must be the pixels of the short side"),
    ({"size": {"shortest_edge": 64, "longest_edge": 99}}, "size must be the pixels of the short"),
    ({"size": {"shortest_edge": 32}}, "size must be .*'shortest_edge': 64. or more, not"),
    ({"size": {"shortest_edge": -5}}, "size must be"),
    ({"size": {"shortest_edge": "64"}}, "size must be"),
    ({"size": None}, "size must be .* not None"),
    ({"resample": 1}, r"resample must be 2 \(bilinear\) or 3 \(bicubic\), not 1"),
    ({"resample": 99}, "resample must be"),
    ({"resample": []}, "resample must be"),
    ({"image_mean": "x"}, "image_mean must be three numbers, not 'x'"),
    ({"image_mean": None}, "image_mean must be three numbers, not None"),
    ({"image_mean": [0.5]}, "image_mean must be three numbers"),
    ({"image_std": [0, 0, 0]}, "image_std must be three numbers above 0"),
    ({"rescale_factor": 0}, "rescale_factor must be a number above 0"),
    ({"do_rescale": None}, "do_rescale must be true or false"),
    ({"do_pad": True}, "do_pad must be false"),
    ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type must be BitImageProc"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = HieraForImageClassification(HieraConfig(image_size=[64, 64], num_labels=5, **SMALL))
    randomize_transformers(model)
    model.eval().save_pretrained(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    return folder, model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0] * 3},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {"size": 64, "crop_size": 64, "image_mean": [0.1, 0.2, 0.3]},
    ],
)
def test_pixels_are_normalised_as_there(model, options):
    folder, theirs = model
    processor = BitImageProcessor(**{"size": {"shortest_edge": 64}, "crop_size": CROP, **options})
    processor.save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    written = {k: v for k, v in options.items() if k in ("size", "crop_size")}  # older files: ints
    file.write_text(json.dumps({**json.loads(file.read_text()), **written}))
    with torch.no_grad():
        pixels = processor(Image.open(folder / "a.png"), return_tensors="pt").pixel_values
        expected = theirs(pixels.float()).logits.softmax(1)[0]
    found = load(folder, "cpu").probabilities(folder / "a.png")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_we_cannot_prepare_is_one_line(model, options, message):
    folder = model[0]
    content = {"size": {"shortest_edge": 64}, "crop_size": CROP, **options}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"preprocessor_config.json: {message}") as error:
        load(folder, "cpu")
    assert "\n" not in str(error.value)


def test_an_input_that_is_not_square_is_refused(tmp_path):
    config = HieraConfig(image_size=[64, 96], **SMALL)
    HieraForImageClassification(config).save_pretrained(tmp_path)
    content = {"crop_size": {"height": 64, "width": 96}}
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(content))
    assert load(tmp_path, "cpu").clip[-1] == 0.875
    file.write_text(json.dumps({**content, "size": {"shortest_edge": 110}}))
    with pytest.raises(CheckpointError, match="size must not be stated .* 64x96, which is not"):
        load(tmp_path, "cpu")


def test_what_a_processor_of_several_kinds_says_of_pictures_goes_first(model, tmp_path):
    folder = shutil.copytree(model[0], tmp_path / "model")
    processor = BitImageProcessor(size={"shortest_edge": 64}, crop_size=CROP)
    processor.save_pretrained(folder)
    stated = {"size": {"shortest_edge": 80}, "crop_size": CROP, "image_mean": [0.1, 0.2, 0.3]}
    content = {"image_processor": {"image_processor_type": "BitImageProcessor", **stated}}
    file = folder / "processor_config.json"
    file.write_text(json.dumps(content))
    theirs = AutoImageProcessor.from_pretrained(folder)
    ours = read_trained(folder).description
    assert tuple(theirs.image_mean) == ours.mean == (0.1, 0.2, 0.3)
    assert theirs.size.shortest_edge == 64 / ours.clip["eval_crop"] == 80
    content["image_processor"]["resample"] = 1
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="/processor_config.json: resample must be 2"):
        load(folder, "cpu")
    file.write_text('{"processor_class": "none of pictures"}')
    assert load(folder, "cpu").clip[-1] == 1


def test_a_file_that_is_no_object_is_one_line(model):
    file = model[0] / "preprocessor_config.json"
    for text in ("[" * 100_000, "[1]", "{"):
        file.write_text(text)
        with pytest.raises(CheckpointError, match="preprocessor_config.json: not "):
            load(model[0], "cpu")
