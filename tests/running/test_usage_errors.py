from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from hiera_video.running.usage_errors import explain
from hiera_video.running.words import translate


def test_a_run_folder_that_cannot_be_made_is_named_as_any_other(tmp_path):
    (tmp_path / "runs").touch()
    OmegaConf.register_new_resolver("test.folder", lambda: (tmp_path / "runs/x").mkdir())
    config = OmegaConf.create({"outer": "${inner}", "inner": "${test.folder:}"})
    try:
        config.outer  # noqa: B018
    except InterpolationResolutionError as error:
        explanation = explain(error, translate(["fit", "--config", "demo/pretrain"]))
    finally:
        OmegaConf.clear_resolver("test.folder")
    assert str(explanation) == f"{tmp_path}/runs/x: Not a directory"
    assert explanation.exit_code == 2
