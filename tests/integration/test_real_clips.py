"""The same commands on real files that nobody here wrote."""

import csv
import json
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, TINY_MODEL, TINY_RUN
from tests.integration.forked import run

DATA = ROOT.parent / "shared/data"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"real clips are not part of the repository: {DATA} is absent"
)
CLIP = [
    "data.num_frames=4",
    "data.size=[64,64]",
    "data.num_workers=1",
    "data.eval_batch_size=2",
    "trainer.precision=bf16-mixed",
]


def test_pretrain_on_clips_and_finetune_on_signs(tmp_path):
    # The configurations for one's own data name only the model, so `++` adds the tiny size.
    tiny = [f"++{word}" for word in TINY_MODEL]
    decoder = ["+model.decoder_embed_dim=16", "+model.decoder_depth=1"]
    splits = [f"data.train={tmp_path}/clips.csv", f"data.val={tmp_path}/clips.csv"]
    words = ["fit", "--config", "folder/pretrain", f"data.root={DATA}", *tiny, *decoder, *CLIP]
    clips = sorted((DATA / "clips").iterdir())
    rows = [(f"clips/{clip.name}", "any") for clip in clips]
    write_csv(tmp_path / "clips.csv", rows)
    output = run(
        *words,
        *splits,
        *TINY_RUN,
        "data.batch_size=3",
        "data.repeats=2",
        "trainer.max_epochs=4",
        "run_dir=pretrained",
        "task.mask_ratio=0.75",
        cwd=tmp_path,
    )
    assert "step 4/4" in output

    signs = sorted((DATA / "asl").glob("*.mkv"))
    assert len(signs) == 20
    write_csv(tmp_path / "signs.csv", [(f"asl/{sign.name}", sign.stem) for sign in signs])
    splits = [f"data.{split}={tmp_path}/signs.csv" for split in ("train", "val", "test")]
    words = ["--config", "folder/finetune", f"data.root={DATA}", *CLIP, *splits, *TINY_RUN]
    run(
        "fit",
        *words,
        *tiny,
        "data.batch_size=5",
        "run_dir=finetuned",
        "task.init_from=pretrained/checkpoints/last.ckpt",
        cwd=tmp_path,
    )
    run(
        "test",
        *words,
        *tiny,
        "data.test_views=[2,3]",
        "ckpt_path=finetuned",
        "run_dir=tested",
        cwd=tmp_path,
    )
    results = json.loads((tmp_path / "tested/results.json").read_text())
    assert 0 <= results["top1"] <= results["top5"] <= 1
    run(
        "predict",
        *words,
        *tiny,
        "ckpt_path=finetuned",
        "out=out.jsonl",
        DATA / "clips/dog.mp4",
        DATA / "asl",
        cwd=tmp_path,
    )
    lines = [json.loads(line) for line in Path(tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == 21
    assert all(p["label"] in {s.stem for s in signs} for li in lines for p in li["predictions"])


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
