"""Pages of runs as the commands leave them."""

import json

from tests.integration.conftest import TINY_RUN
from tests.integration.forked import run


def test_a_classification(workspace, finetuned):
    folder, _ = finetuned
    run("test", str(folder), "run_dir=runs/report-test", *TINY_RUN, cwd=workspace)
    output = run("report", "runs/finetuned", "--out", "page.html", cwd=workspace)
    assert "runs/finetuned -> page.html" in output
    page = (workspace / "page.html").read_text()
    results = json.loads((workspace / "runs/report-test/results.json").read_text())
    assert "runs/report-test" in page
    assert f"{results['top1']:.2%}" in page
    wrong = round(results["videos"] * (1 - results["top1"]))
    assert page.count('src="data:video/mp4;base64,') == min(wrong, 12) > 0
    for words in ("train/loss", "val/top1", "speed/clips_per_second", "ClassificationTask"):
        assert words in page


def test_a_pretraining(workspace, pretrained):
    run("report", "runs/pretrained", cwd=workspace)
    page = (pretrained / "report.html").read_text()
    assert page.count('alt="Clips, their visible parts') == 2  # one a validation
    assert "val/loss" in page


def test_what_is_no_run_is_one_line(tmp_path):
    output = run("report", "gone", cwd=tmp_path, code=2)
    assert output.strip() == (
        "hiera-video: gone: no such run; name the folder of a run, or a checkpoint in it"
    )
