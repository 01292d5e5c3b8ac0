"""A configuration that does not fit itself, or its checkpoint."""

import pytest
import torch
from omegaconf import OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.choices import check_checkpoint, check_model, check_values
from hiera_video.running.compose import prepare
from hiera_video.running.overrides import composed
from hiera_video.running.words import translate
from hiera_video.weights.description import RECORD, to_record
from tests.weights.test_portable import DESCRIPTION


@pytest.mark.parametrize(
    ("kind", "function", "name"),
    [
        ("classifier", "create_model", "hiera_tiny_224"),
        ("action_detector", "create_detector", "hiera_tiny_16x224"),
        ("mask_rcnn", "create_mask_rcnn", "hiera_tiny_224"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, kind, function, name):
    names = ("red", "green", "blue")
    arguments = {"num_classes": len(names)}
    description = DESCRIPTION._replace(
        kind=kind, name=name, arguments=arguments, class_names=names, evaluation={}
    )
    file = tmp_path / "last.ckpt"
    content = {RECORD: to_record(description), "state_dict": {"w": torch.ones(1)}}
    torch.save({"pytorch-lightning_version": "2.6.4", **content}, file)

    def check(**changes):
        model = {"_target_": f"hiera_video.{function}", "name": name, **arguments, **changes}
        return check_checkpoint(OmegaConf.create({"model": model}), file)

    check()
    with pytest.raises(UsageError, match=r"another model \(model.embed_dim=96, not 48\)"):
        check(embed_dim=48)


def configuration(*words, name="demo/pretrain"):
    call = translate(["fit", "--config", name, "command=fit", *words])
    prepare(call)
    return composed(call, call.overrides)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.accumulate_grad_batches=-1"], "accumulate_grad_batches=-1: expected a number a"),
        (["trainer.log_every_n_steps=-1"], "log_every_n_steps=-1: expected a number from 0 on"),
        (["trainer.log_every_n_steps=null"], "log_every_n_steps=null: expected a number; 0 logs"),
        (["trainer.check_val_every_n_epoch=0"], "check_val_every_n_epoch=0: expected a number ab"),
        (["trainer.val_check_interval=-0.5"], "val_check_interval=-0.5: expected a number above"),
        (["trainer.gradient_clip_val=-1"], "gradient_clip_val=-1: expected a number from 0 on"),
        (["trainer.gradient_clip_val=nan"], "gradient_clip_val=nan: expected a number from 0 on"),
        (["trainer.max_epochs=null"], "max_epochs=null: set a number of epochs, or trainer"),
        (["trainer.overfit_batches=1"], "overfit_batches: the loaders shuffle each epoch"),
    ],
)
def test_what_lightning_would_take_as_it_is(words, message):
    with pytest.raises(UsageError, match=f"trainer.{message}"):
        check_values(configuration(*words))


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.max_epochs=null", "trainer.max_steps=9"],
        ["trainer.log_every_n_steps=0"],
        ["trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=10"],
        ["trainer.gradient_clip_val=0.1"],
    ],
)
def test_what_is_right_is_taken(words):
    check_values(configuration(*words))


def test_a_task_that_trains_nothing_needs_no_end():
    check_values(configuration(name="demo/probe"))


def test_a_run_that_has_such_a_value_can_be_tested():
    check_values(configuration("trainer.max_epochs=null", "command=test"))


def test_a_model_that_torch_refuses():
    with pytest.raises(UsageError, match="model: Trying to create tensor with negative dimension"):
        check_model(configuration("model.dim_mul=-1"))
