"""Make the run folders of this directory. Needs version 0.1.0 at commit 5dce38c, and no other.

git worktree add ../before 5dce38c
PYTHONPATH=../before python tests/legacy/make.py EMPTY_FOLDER
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

MODEL = (
    "model.input_size=[8,64,64] model.embed_dim=4 model.num_heads=1 model.stages=[1,1,1,1] "
    "++model.mlp_ratio=2"
)
TRAINING = (
    "optimizer@task.optimizer=sgd task.optimizer.momentum=0 task.optimizer.nesterov=false "
    "task.epochs.count=1 task.warmup_epochs=0 trainer.accelerator=cpu data.root=data "
    "trainer.check_val_every_n_epoch=1 data.num_workers=0 trainer.log_every_n_steps=1"
)
MOTIONS = "data.batch_size=8 data.videos=[16,8,8] data.test_views=[2,1]"
SHAPES = "data.batch_size=4 data.videos=[8,2,2] data.video_seconds=2"

COMMANDS = (
    "fit --config demo/pretrain run_dir=pretraining callbacks.reconstructions=null model.q_pool=2 "
    "model.decoder_embed_dim=8 model.decoder_depth=1 model.decoder_num_heads=1 "
    f"~task.optimizer.betas {MODEL} {MOTIONS} {TRAINING}",
    "fit --config demo/finetune run_dir=classifier task.init_from=pretraining task.lr=0.1 "
    f"{MODEL} {MOTIONS} {TRAINING}",
    "fit --config demo/detect run_dir=detector task.init_from=classifier task.lr=0.1 "
    f"{MODEL} {SHAPES} {TRAINING}",
    "test --config classifier/config.yaml run_dir=classifier_test ckpt_path=classifier",
    "export pretraining --format safetensors --out exported_mae",
    "export classifier --format safetensors --out exported",
)
KEPT = {
    "pretraining": ("config.yaml", "run.json", "checkpoints/last.ckpt"),
    "classifier": ("config.yaml", "run.json", "checkpoints/best.ckpt"),
    "detector": ("config.yaml", "run.json", "checkpoints/last.ckpt"),
    "classifier_test": ("config.yaml", "results.json", "predictions.parquet"),
}


def fixed_video() -> Tensor:
    """Numbers in [-1, 1] that need no generator: float32 ``(2, 3, 8, 64, 64)``."""
    count = 2 * 3 * 8 * 64 * 64
    return (torch.arange(count) * 37 % 1009 / 504 - 1).reshape(2, 3, 8, 64, 64)


def fixed_mask() -> Tensor:
    """Every second of the 16 mask units is kept: bool ``(2, 16)``."""
    return (torch.arange(2 * 16) % 2 == 0).reshape(2, 16)


def fixed_boxes() -> tuple[Tensor, Tensor]:
    """Boxes as shares of the frame, float32 ``(3, 4)``, and their clips, int64 ``(3,)``."""
    boxes = [[0.1, 0.2, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0], [0.5, 0.25, 0.75, 0.5]]
    return torch.tensor(boxes), torch.tensor([0, 0, 1])


def make(folder: Path) -> None:
    """Run the commands in an empty folder, and leave in it what this directory holds."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    for words in COMMANDS:
        subprocess.run([sys.executable, "-m", "hiera_video", *words.split()], check=True)
    videos = sorted(Path("data").glob("motion-*/test/*/*.mp4"))
    shutil.copy(min(videos, key=lambda path: path.stat().st_size), "clip.mp4")
    for name, kept in KEPT.items():
        for path in [p for p in Path(name).rglob("*") if p.is_file()]:
            if path.relative_to(name).as_posix() not in kept:
                path.unlink()
    remove_paths()
    Path("expected.json").write_text(json.dumps(expected(), indent=1) + "\n")


@torch.inference_mode()
def expected() -> dict[str, Any]:
    """What that version computes on the CPU with these weights."""
    from hiera_video import create_detector, create_mae, create_model, load, load_weights

    def model(create: Any, name: str, **arguments: Any) -> Any:
        (file,) = Path(name).glob("checkpoints/*.ckpt")
        saved = torch.load(file, weights_only=True)["config"]["model"]
        network = create(**{k: v for k, v in saved.items() if k[0] != "_"}, **arguments)
        load_weights(network, file)
        return network.eval()

    mae = model(create_mae, "pretraining")(fixed_video(), mask=fixed_mask())
    classifier = model(create_model, "classifier", num_classes=8)
    detector = model(create_detector, "detector", num_classes=8)
    predictor = load("classifier", device="cpu")
    return {
        "classifier": {
            "class_names": predictor.class_names,
            "predict clip.mp4": [p._asdict() for p in predictor.predict("clip.mp4")],
            "probabilities clip.mp4": predictor.probabilities("clip.mp4").tolist(),
            "logits fixed_video": classifier(fixed_video()).tolist(),
        },
        "exported": {
            "predict clip.mp4": [
                p._asdict() for p in load("exported", device="cpu").predict("clip.mp4")
            ],
        },
        "pretraining": {
            "loss fixed_video fixed_mask": mae.loss.item(),
            "prediction fixed_video fixed_mask": {
                "shape": list(mae.prediction.shape),
                "first 8 numbers": mae.prediction.flatten()[:8].tolist(),
                "sum": mae.prediction.double().sum().item(),
            },
        },
        "detector": {
            "logits fixed_video fixed_boxes": detector(fixed_video(), *fixed_boxes()).tolist(),
        },
    }


def remove_paths() -> None:
    """Make paths relative to the folder, and drop the name and the packages of the machine."""
    folder = f"{Path.cwd()}/"
    for path in [*Path().glob("*/*.json"), *Path().glob("*/*.yaml"), *Path().glob("*/*.md")]:
        text = path.read_text().replace(folder, "").replace(folder.rstrip("/"), ".")
        if path.name == "run.json":
            starts = json.loads(text)
            for start in starts:
                start["argv"][0] = "hiera_video/__main__.py"
                start["host"] = "host"
            text = json.dumps(starts, indent=2)
        path.write_text(text)
    for path in Path().glob("*/checkpoints/*.ckpt"):
        torch.save(_relative(torch.load(path, weights_only=True), folder), path)
    for path in Path().glob("*/*.parquet"):
        table = pq.read_table(path)
        metadata = {k: v.replace(folder.encode(), b"") for k, v in table.schema.metadata.items()}
        table = table.replace_schema_metadata(metadata)
        pq.write_table(table, path, use_dictionary=["path"], write_page_checksum=True)


def _relative(value: Any, folder: str) -> Any:
    if isinstance(value, str):
        return value.replace(folder, "")
    if type(value) is dict:
        return {_relative(k, folder): _relative(v, folder) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_relative(v, folder) for v in value)
    return value


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
