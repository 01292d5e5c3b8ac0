import pytest

from hiera_video.commands import configs
from hiera_video.running.compose import configuration


def names(config, *words):
    """The name of a composed configuration, that in its checkpoints, and the folder of its runs."""
    with configuration("fit", str(config), ["command=fit", *words]) as composed:
        return composed.name, composed.task.recipe, composed.run_dir.rpartition("/")[0]


@pytest.mark.parametrize("name", ["demo/pretrain", "inaturalist2017/finetune_huge_448"])
def test_a_configuration_is_called_as_its_file(name):
    assert names(name) == (name, name, f"runs/{name}")
    for word in ("name=other", "++name=other"):
        assert names(name, word) == ("other", "other", "runs/other")


@pytest.mark.parametrize("name", ["mine", "lr=0.1, no decay"])
def test_a_copy_and_a_file_that_extends_one_are_called_as_their_files(tmp_path, name):
    configs.run(["copy", "demo/finetune", str(tmp_path / f"{name}.yaml")])
    assert names(tmp_path / f"{name}.yaml") == (name, name, f"runs/{name}")
    extended = tmp_path / "extended.yaml"
    extended.write_text("defaults: [/experiment/demo/pretrain, _self_]\n")
    assert names(extended) == ("extended", "extended", "runs/extended")


def test_a_file_may_name_itself(tmp_path):
    file = tmp_path / "file.yaml"
    file.write_text("defaults: [/experiment/demo/pretrain, _self_]\nname: my/own\n")
    assert names(file) == ("my/own", "my/own", "runs/my/own")
