"""Files and folders whose names mean something to Hydra, and data that are elsewhere."""

import json
import shutil

from tests.integration.conftest import TINY_DATA
from tests.integration.forked import run


def test_names_with_references_commas_and_equals_signs(workspace, finetuned, tmp_path):
    odd = tmp_path / "${x},a=1 b"
    video = next((workspace / "data/synthetic").rglob("*.mp4"))
    (odd / "run").mkdir(parents=True)
    shutil.copytree(finetuned[0], odd / "run", dirs_exist_ok=True)
    shutil.copytree(workspace / "data/synthetic", odd / "data")
    shutil.copy(video, odd / "${y}.mp4")
    words = [f"{odd.name}/run", f"{odd.name}/${{y}}.mp4"]
    run("predict", *words, f"out={odd.name}.jsonl", "run_dir=p", cwd=tmp_path)
    (line,) = (tmp_path / f"{odd.name}.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == words[1]
    weights = f"ckpt_path={odd.name}/run/checkpoints/best.ckpt"
    where = ["trainer.devices=1", f"data.root={odd.name}/data", "run_dir=t"]
    run("test", weights, *where, cwd=tmp_path)
    results = json.loads((tmp_path / "t/results.json").read_text())
    assert odd.name in str(results["weights"])
    # What the test has recorded is read back: config.yaml, with the same root.
    again = ["--config", "t/config.yaml", weights, "run_dir=u"]
    run("test", *again, *TINY_DATA, cwd=tmp_path)


def test_a_folder_with_a_reference_in_its_name_holds_no_run(tmp_path):
    folder = tmp_path / "${x}"
    folder.mkdir()
    for words, key in ([], "run_dir"), (["--multirun", "seed=1,2"], "hydra.sweep.dir"):
        output = run("fit", "--config", "demo/pretrain", *words, cwd=folder, code=2)
        (line,) = output.splitlines()
        assert "a run cannot be in a folder with ${ in its name; set another " + key in line
        assert not [*folder.iterdir()]
