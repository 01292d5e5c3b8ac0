"""Arguments that are read from source are those of the imported class."""

import subprocess
import sys

import pytest
from hydra.utils import get_object

from hiera_video.running.configurations import parts
from hiera_video.running.overrides import parameters
from hiera_video.running.signatures import NotReadable, argument_names

TARGETS = sorted(
    {
        line.partition("_target_:")[2].split()[0]
        for path in parts().values()
        for line in path.read_text().splitlines()
        if "_target_:" in line
    }
)


@pytest.mark.parametrize("target", TARGETS)
def test_they_are_those_of_the_imported_object(target):
    assert set(argument_names(target)) == set(parameters(get_object(target)))


def test_what_a_class_refuses_is_no_argument():
    names = argument_names("datamodules.SyntheticAVADataModule")
    assert {"video_seed", "eval_pad", "missing_videos", "num_workers"} <= set(names)
    assert not {"class_names", "test_views"} & set(names)


@pytest.mark.parametrize("target", ["my.Class", "list", "datamodules.ClipFormat"])
def test_what_the_source_does_not_tell_is_said(target):
    with pytest.raises(NotReadable):
        argument_names(target)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ("demo/pretrain", "task.lrr"),
        ("demo/pretrain", "trainer.max_epoch"),
        ("demo/pretrain", "tsk.lr"),
        ("demo/pretrain", "logger.tensorboard.sav_dir"),
        ("demo/detect", "data.sise"),
        ("ava/finetune_base", "data.person_boxs"),
        ("demo/finetune", "callbacks.best.monitr"),
    ],
)
def test_a_misspelt_key_is_found_without_torch(config, key):
    code = (
        "import sys; from hiera_video import cli; "
        f"sys.argv = ['', 'fit', '--config', '{config}', '{key}=1']\n"
        "try: cli.main()\nexcept SystemExit: print('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"no key '{key}'" in output.stderr
    assert output.stdout == "False\n"
