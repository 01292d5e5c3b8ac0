"""A checkpoint and the configuration that it is used with."""

import pytest
import torch
from omegaconf import OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.choices import check_checkpoint
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
