"""The commands of docs/quick_start.md, and so those of README.md, run one after the other.

A tiny network, two clips of each class and a single epoch replace what takes long, and random
weights replace the published ones, which no test downloads.
"""

import json

import pytest

from tests.documents import ROOT, commands
from tests.integration.conftest import TINY_MODEL, TINY_RUN
from tests.integration.forked import run
from tests.video_files import moving_frames, write_video

CLIP = ["data.num_frames=4", "data.size=[64,64]", "data.stride=1", "data.num_workers=0"]
CLIP += ["data.batch_size=2"]
TINY = {
    "pretrain": ["model.decoder_embed_dim=16", "model.decoder_depth=1", "task.mask_ratio=0.5"],
    "finetune": [],
}


@pytest.fixture
def folder(tmp_path):
    """What the pages tell to make: class folders, a clip, and a folder of more clips."""
    for split in ("train", "val", "test"):
        for i in range(4):
            path = tmp_path / "videos" / split / ("waving", "clapping")[i % 2] / f"{split}{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, moving_frames(12, 64, 64, seed=i))
    write_video(tmp_path / "clip.mp4", moving_frames(12, 64, 64))
    (tmp_path / "more_clips").mkdir()
    write_video(tmp_path / "more_clips/one.mp4", moving_frames(12, 64, 64))
    return tmp_path


def runs(folder, name, command):
    return sorted(folder.glob(f"runs/{name}/{command}-*"))


def as_run_here(words, folder):
    """The words of a command with what this folder has in place of RUN, and with a tiny network."""
    for name in ("folder/pretrain", "folder/finetune"):
        made = [[*map(str, runs(folder, name, kind))] for kind in ("fit", "test")]
        for place, paths in zip(("RUN", "test-..."), made, strict=True):
            words = [w.replace(f"runs/{name}/{place}", paths[-1] if paths else "?") for w in words]
    words = [w for w in words if not w.startswith("task.init_from=hiera")]
    config = words[words.index("--config") + 1].partition("/")[2] if "--config" in words else ""
    if words[0] == "fit":
        words = [*words, *TINY_MODEL, *TINY_RUN, *CLIP, *TINY[config], "trainer.max_epochs=1"]
    elif words[0] in ("test", "predict"):
        words = [*words, "trainer.accelerator=cpu", "data.num_workers=0"]
    elif words[0] == "doctor":
        words = [*words, *TINY_MODEL, *CLIP, "--seconds", "0.2"]
    return words


def test_commands_work_in_the_order_of_the_page(folder):
    page = ROOT / "docs/quick_start.md"
    ours = [c.ours for c in commands(page) if c.ours and not c.needs and not c.inline]
    for words in ours:
        assert "Traceback" not in run(*as_run_here(words, folder), cwd=folder)
    (tested,) = runs(folder, "folder/finetune", "test")
    results = json.loads((tested / "results.json").read_text())
    assert 0 <= results["top1"] <= 1
    assert (tested / "confusion.png").exists()
    assert list(folder.glob("runs/folder/finetune/*/export-onnx/model.onnx"))
    assert (folder / "ready/train/manifest.parquet").exists()
    shown = [c.ours for c in commands(ROOT / "README.md") if c.ours and not c.inline]
    assert [words for words in shown if words not in ours] == [], "run in docs/quick_start.md, too"
