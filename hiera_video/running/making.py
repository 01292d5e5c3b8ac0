"""Make the objects of a section of a configuration."""

import copy
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hiera_video.running.quoting import escaped_texts


def made(config: DictConfig, section: str) -> Any:
    """What a section makes, whose arguments are plain values.

    Hydra's ``instantiate`` resolves all values and then reads them once more. So a ``${`` in the
    name of a file, which was escaped, would be taken for a reference; here it is escaped again.

    Raises:
        InstantiationException: a constructor refuses its arguments.
        OmegaConfBaseException: a reference cannot be resolved.
    """
    config = copy.deepcopy(config)
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    plain = OmegaConf.to_container(config[section], resolve=True)
    config[section] = escaped_texts(escaped_texts(plain))
    # As a part of the whole, so that an error names the section.
    return instantiate(config[section], _convert_="all")
