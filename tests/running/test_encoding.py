"""Records are in UTF-8, also where a locale's encoding is another one."""

import json
import os
import subprocess
import sys

import pytest

RECORDS = r"""
import sys
from pathlib import Path
from types import SimpleNamespace

from hiera_video.callbacks.run_record import RunRecord
from hiera_video.running.sweeps import Job, jobs_of, recorded

folder = Path(sys.argv[1])
trainer = SimpleNamespace(world_size=1, is_global_zero=True)
for _ in range(2):
    config = {"name": "T\u00fcr", "seed": 0}
    RunRecord(folder, config, config).setup(trainer, None, "test")
with recorded(Job(0, ["name=T\u00fcr"], "0"), folder):
    pass
assert jobs_of(folder)[0].overrides == ["name=T\u00fcr"]
"""
JSON_FILE = r"""
import sys
from pathlib import Path

from datamodules.files import write_json

write_json(Path(sys.argv[1], "x.json"), {"T\u00fcr": "\udcff.mp4"})
"""


@pytest.fixture
def run_in_ascii(tmp_path):
    def run(code):
        ascii_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        subprocess.run(
            [sys.executable, "-c", code, tmp_path, "Tür"],
            env={**os.environ, **ascii_locale},
            check=True,
        )
        return tmp_path

    return run


def test_records_of_runs_and_sweeps(run_in_ascii):
    folder = run_in_ascii(RECORDS)
    assert "name: Tür" in (folder / "config.yaml").read_text(encoding="utf-8")
    starts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert len(starts) == 2
    assert os.fsencode(starts[0]["argv"][-1]).decode() == "Tür"  # as bytes of the command line
    (record,) = (folder / ".jobs").glob("*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["overrides"] == ["name=Tür"]


def test_json_keeps_the_bytes_of_names(run_in_ascii):
    file = run_in_ascii(JSON_FILE) / "x.json"
    assert json.loads(file.read_text(encoding="utf-8")) == {"Tür": "\udcff.mp4"}
