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

# They refuse arguments of their base class, or have several.
IMPORTED = {
    "datamodules.AVADataModule",
    "datamodules.SyntheticAVADataModule",
    "hiera_video.callbacks.Curves",
}


@pytest.mark.parametrize("target", TARGETS)
def test_they_are_those_of_the_imported_object(target):
    try:
        names = argument_names(target)
    except NotReadable:
        assert target in IMPORTED
    else:
        assert set(names) == set(parameters(get_object(target)))


@pytest.mark.parametrize("key", ["task.lrr", "data.sise", "trainer.max_epoch", "tsk.lr"])
def test_a_misspelt_key_is_found_without_torch(key):
    code = (
        "import sys; from hiera_video import cli; "
        f"sys.argv = ['', 'fit', '--config', 'demo/pretrain', '{key}=1']\n"
        "try: cli.main()\nexcept SystemExit: print('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"no key '{key}'" in output.stderr
    assert output.stdout == "False\n"
