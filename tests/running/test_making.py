import pytest
from omegaconf import OmegaConf

from hiera_video.running.making import made
from hiera_video.running.quoting import escaped


@pytest.mark.parametrize("name", ["${x}", "a\\${x}.mp4", "$x", "\\", "a,b"])
def test_an_escaped_reference_in_a_name_stays_text(name):
    part = {"_target_": "builtins.dict", "file": escaped(name), "files": [escaped(name)]}
    config = OmegaConf.create({"part": {**part, "other": "${seed}", "same": "${.file}"}, "seed": 3})
    assert made(config, "part") == {"file": name, "files": [name], "other": 3, "same": name}
    assert config.part.file == name
