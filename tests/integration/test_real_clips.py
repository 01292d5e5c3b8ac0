"""The same commands on real files that nobody here wrote."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from datamodules.video.playback import play
from tests.integration import test_detection
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


@pytest.mark.slow
def test_actions_of_people_walking(tmp_path):
    words = ["--config", "demo/detect", *test_detection.MODEL, *TINY_RUN]
    fit = [*test_detection.DATA, "trainer.max_epochs=1", "run_dir=detector"]
    run("fit", *words, *fit, cwd=tmp_path)

    video = DATA / "clips/people_walking.mp4"
    people = {3: (0.1, 0.2, 0.25, 0.8), 4: (0.15, 0.2, 0.3, 0.8), 6: (0.6, 0.1, 0.8, 0.9)}
    boxes = [("people_walking", s, *box, "", 0.9) for s, box in people.items()]
    (tmp_path / "boxes.csv").write_text("".join(",".join(map(str, b)) + "\n" for b in boxes))
    options = ["boxes=boxes.csv", "out=found", "min_action_score=0", "ckpt_path=detector"]
    run("predict", *words, *options, video, cwd=tmp_path)

    with open(tmp_path / "found/people_walking.csv", newline="") as file:
        rows = [(name, int(s), *map(float, rest)) for name, s, *rest in csv.reader(file)]
    assert len(rows) == 3 * 8
    for i, (name, second, *box, action, score) in enumerate(rows):
        assert (name, second) == ("people_walking", list(people)[i // 8])
        assert box == pytest.approx(people[second])
        assert action == i % 8 + 1
        assert 0 < score < 1
    text = (tmp_path / "found/people_walking.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["second"] for line in lines] == list(range(140))
    for line in lines:
        persons = [people[line["second"]]] if line["second"] in people else []
        assert [tuple(person["box"]) for person in line["boxes"]] == persons
        for person in line["boxes"]:
            scores = [action["score"] for action in person["actions"]]
            assert len(scores) == 8
            assert scores == sorted(scores, reverse=True)

    drawn = play(str(tmp_path / "found/people_walking.mp4"))
    count = 0
    for before, after in zip(play(str(video)), drawn, strict=True):
        count += 1
        second = int(before.start + 1 / 2)
        changed = np.abs(before.picture.astype(int) - after.picture).max(-1) > 90
        assert changed.any() == (second in people), before.start
        if second in people:
            height, width = changed.shape
            x1, y1, x2, y2 = (people[second] * np.tile([width, height], 2)).astype(int)
            for side in (x1, x2):  # either is drawn, and so is neither of the other second
                assert changed[y1 + 9 : y2 - 9, side - 3 : side + 4].any(axis=1).mean() > 0.9
    assert count == 1394


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
