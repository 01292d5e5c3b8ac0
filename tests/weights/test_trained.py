import pytest
import torch

from hiera_video.errors import CheckpointError
from hiera_video.models.names import IMAGE_MEAN
from hiera_video.weights.description import SCALING
from hiera_video.weights.portable import build, write_model
from hiera_video.weights.trained import read_classes, read_trained
from tests.models.reference import make_video
from tests.trained_models import (
    CLASSES,
    CLIP,
    checkpoint,
    config,
    tiny_model,
    write_mae_run,
    write_run,
)


def test_a_run_is_described_by_its_checkpoint(tmp_path):
    model = write_run(tmp_path, augment={"normalize": {"mean": [0.1] * 3, "std": [0.2] * 3}})
    for source in (tmp_path, tmp_path / "checkpoints/last.ckpt", str(tmp_path)):
        trained = read_trained(source)
        description = trained.description
        assert description.class_names == tuple(CLASSES)
        assert description.clip == CLIP | SCALING
        assert (description.mean, description.std) == ((0.1,) * 3, (0.2,) * 3)
        assert trained.home == tmp_path
        built = build(description, trained.weights).eval()
        video = make_video(model, 1)
        assert torch.equal(built(video), model(video))


def test_the_best_checkpoint_comes_before_the_last(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, name="best")
    assert read_trained(tmp_path).weights == tmp_path / "checkpoints/best.ckpt"


def test_published_names_and_files(tmp_path):
    video = read_trained("mae_hiera_base_16x224")
    assert (video.description.kind, video.description.name) == (
        "masked_autoencoder",
        "hiera_base_16x224",
    )
    assert video.weights == "mae_hiera_base_16x224"
    assert video.description.licence == "CC-BY-NC-4.0"
    assert (video.description.clip or {})["sampling"] == "spread"  # as PySlowFast
    file = tmp_path / "hiera_tiny_224.pth"
    file.touch()
    image = read_trained(file)
    assert image.weights == file
    clip = image.description.clip or {}
    assert (clip["num_frames"], clip["interpolation"], clip["eval_crop"]) == (1, "bicubic", 0.875)
    assert image.description.mean == IMAGE_MEAN


def no_names(content):
    del content["class_names"]


def no_stride(content):
    del content["config"]["data"]["stride"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["config"]["model"].update(_target_="os.system"), "'os.system'"),
        (lambda c: c["config"]["model"].update(name="../elsewhere"), "name '../elsewhere'"),
        (lambda c: c["config"]["model"].update(name=["hiera_tiny_224"]), "name must be text"),
        (lambda c: c["config"]["task"]["augment"].update(normalize={"_target_": "os.system"}),
         "its normalisation, 'os.system', is not ours"),
        (lambda c: c.update(config=None), "no configuration"),
        (lambda c: c.update(config={"model": {}}), "not that of a training"),
        (no_names, "it has no class names"),
        (no_stride, "clip.stride is missing"),
        (lambda c: c["config"]["data"].update(size="abc"), "clip.size must be two whole numbers"),
        (lambda c: c["config"]["data"].update(size=[64]), "clip.size must be two whole numbers"),
        (lambda c: c["config"]["data"].update(num_frames="16"), "clip.num_frames must be a whole"),
        (lambda c: c["config"]["data"].update(fps=torch.ones(1)), "clip.fps must be a number"),
        (lambda c: c["config"]["task"]["augment"].update(normalize={"mean": "x"}),
         "mean must be three numbers"),
        (lambda c: c["config"]["task"]["augment"].update(normalize={"std": [1, 1, 0]}),
         "std must be three numbers above 0"),
        (lambda c: c["config"]["model"].update(embed_dim={"a": 1}), "arguments must be"),
        (lambda c: c["config"]["model"].update(stages=[10**6] * 4), "arguments must be"),
        (lambda c: c["config"].update(data="x"), "not that of a training"),
        (lambda c: c["config"].update(itself=c["config"]), "not that of a training"),
        (lambda c: c.update(class_names=5), "not that of a training"),
    ],
)  # fmt: skip
def test_what_a_checkpoint_says_is_never_called(tmp_path, change, message):
    content = checkpoint(tiny_model(), config(), class_names=CLASSES)
    change(content)
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=message) as error:
        read_trained(tmp_path / "x.ckpt")
    assert "\n" not in str(error.value)
    assert "x.ckpt" in str(error.value)


def test_arguments_that_do_not_fit_are_one_line(tmp_path):
    content = checkpoint(tiny_model(), config(), class_names=CLASSES)
    content["config"]["model"]["_args_"] = ["rm"]
    torch.save(content, tmp_path / "x.ckpt")
    trained = read_trained(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="_args_"):
        build(trained.description, trained.weights)
    content["config"]["model"] = {**config()["model"], "embed_dim": 32}
    torch.save(content, tmp_path / "x.ckpt")
    trained = read_trained(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="x.ckpt"):
        build(trained.description, trained.weights)


def test_nothing_that_can_be_used(tmp_path):
    with pytest.raises(CheckpointError, match="did you mean .*hiera_base_16x224"):
        read_trained("hiera_bass_16x224")
    with pytest.raises(CheckpointError, match="neither a run"):
        read_trained(tmp_path)
    torch.save({"norm.weight": torch.ones(3)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="create_model"):
        read_trained(tmp_path / "weights.pth")


def test_a_masked_autoencoder(tmp_path):
    mae = write_mae_run(tmp_path)
    trained = read_trained(tmp_path)
    built = build(trained.description, trained.weights)
    for name, value in mae.state_dict().items():
        assert torch.equal(built.state_dict()[name], value)


def test_a_configuration_without_memory_for_its_model(tmp_path):
    content = checkpoint(tiny_model(), config(), class_names=CLASSES)
    content["config"]["model"]["embed_dim"] = 99_999
    torch.save(content, tmp_path / "x.ckpt")
    trained = read_trained(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x.ckpt: .* cannot be the weights of the model"):
        build(trained.description, trained.weights)


def test_classes_of_a_checkpoint_and_of_an_export(tmp_path):
    write_run(tmp_path)
    file = tmp_path / "checkpoints/last.ckpt"
    assert read_classes(file) == (tuple(CLASSES), ())
    exported = tmp_path / "model.safetensors"
    write_model(tmp_path, tiny_model(), read_trained(file).description)
    assert read_classes(exported) == (tuple(CLASSES), ())
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(CheckpointError, match="model.json: schema is missing"):
        read_classes(exported)
    (tmp_path / "model.json").unlink()  # of another program
    assert read_classes(exported) == ((), ())
