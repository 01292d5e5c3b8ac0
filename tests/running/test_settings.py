"""What ``fit --help --config NAME`` says can be set."""

import subprocess
import sys

import pytest

from hiera_video.errors import UsageError
from hiera_video.running.settings import settings
from hiera_video.running.signatures import described_arguments
from hiera_video.running.words import translate
from tests.running.test_signatures import TARGETS

OWN = ("datamodules.", "hiera_video.create", "hiera_video.tasks", "hiera_video.augment")


def lines(*words):
    text = settings(translate(["fit", "--config", *words]))
    return {
        line.split()[0]: line.split(maxsplit=2)[1:] for line in text.splitlines() if "." in line
    }


def test_values_of_the_configuration_and_defaults_of_the_class():
    found = lines("folder/finetune", "task.lr=0.5")
    assert found["task.lr"][0] == "0.5"
    assert found["task.lr"][1].startswith("learning rate after warm-up")
    assert found["data.test_views"][0] == "[5,"
    assert found["data.max_missing_share"][0] == "0.01"  # not in the configuration
    assert found["task.augment.normalize"][0] == "null"
    assert found["model.mlp_ratio"][0] == "hidden"  # the name of the model decides
    assert "task.model" not in found


def test_parts_that_the_words_choose():
    found = lines("kinetics400/finetune_base", "data=ava")
    assert "data.label_map" in found
    assert "task.augment.rand_augment.magnitude" in found


def test_a_wrong_key_is_an_error():
    with pytest.raises(UsageError, match="task.lrr"):
        settings(translate(["fit", "--config", "folder/finetune", "task.lrr=1"]))


@pytest.mark.parametrize("target", [target for target in TARGETS if target.startswith(OWN)])
def test_every_argument_is_described(target):
    assert not [name for name, (*_, text) in described_arguments(target).items() if not text]


def test_it_is_printed_without_torch():
    code = (
        "import sys; from hiera_video import cli; "
        "sys.argv = ['', 'test', '--config', 'demo/detect', '-h']; cli.main(); "
        "print('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "task.person_score" in output
    assert output.endswith("False\n")
