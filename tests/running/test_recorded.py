import json

import pytest
from omegaconf import OmegaConf

from datamodules.errors import DatasetError
from hiera_video.running.recorded import moved_root_named


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/config.yaml").touch()
    record = [{"cwd": "/elsewhere"}, {"cwd": str(tmp_path / "my work")}]
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    return tmp_path / "run/checkpoints/best.ckpt"


def message(root, checkpoint) -> str:
    config = OmegaConf.create({"data": {"root": root}})
    with pytest.raises(DatasetError) as error, moved_root_named(config, checkpoint):
        raise DatasetError("no data")
    return str(error.value)


def test_where_the_data_were_in_training_is_named(tmp_path, checkpoint, monkeypatch):
    (tmp_path / "my work/three").mkdir(parents=True)
    place = tmp_path / "my work"
    assert message("three", checkpoint) == (
        f"no data; the run was trained in {place}: 'data.root={place}/three'"
    )
    monkeypatch.chdir(place)  # the root is there: something else is wrong
    assert message("three", checkpoint) == "no data"


@pytest.mark.parametrize("root", ["gone", "/gone", None])
def test_without_data_there_nothing_is_said(checkpoint, root):
    assert message(root, checkpoint) == "no data"


@pytest.mark.parametrize("record", ["", "[]", "{}", "[{}]", "[3]", '[{"cwd": null}]', None])
def test_an_older_or_damaged_record_does_not_matter(tmp_path, checkpoint, record):
    file = tmp_path / "run/run.json"
    file.unlink() if record is None else file.write_text(record)
    assert message("three", checkpoint) == "no data"
    assert message("three", None) == "no data"
    assert message("three", tmp_path / "x.ckpt") == "no data"
