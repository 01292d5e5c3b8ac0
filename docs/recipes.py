"""Write the table of docs/recipes.md from the configurations.

python docs/recipes.py            # after a configuration was changed
"""

from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from hiera_video.running.compose import register_resolvers
from hiera_video.running.configurations import conf_dir, configurations

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
DATA_SETS = (
    ("kinetics", "Kinetics"),
    ("ssv2", "Something-Something V2"),
    ("ava", "AVA v2.2"),
    ("imagenet", "ImageNet-1K"),
    ("inaturalist", "iNaturalist"),
    ("places365", "Places365"),
)
OWN_DATA = ("demo/", "folder/", "images/", "coco/")  # COCO has a page of its own, docs/coco.md
NOT_TRAINED = ("/probe",)
HEADER = (
    "config", "model", "frames x stride", "videos a step", "clips of each", "epochs, effective",
    "passes", "warm-up passes", "optimiser", "lr", "min lr", "weight decay", "layer decay", "clip",
    "drop path", "dropout", "crop", "flip", "RandAugment", "erasing", "mixup / cutmix",
    "smoothing", "mask", "test views", "starts from",
)  # fmt: skip


def recipes() -> list[str]:
    """Names of the configurations that have a row."""
    return [
        name
        for name in configurations()
        if not name.startswith(OWN_DATA) and not name.endswith(NOT_TRAINED)
    ]


@cache
def configuration(name: str) -> DictConfig:
    """A configuration as `fit` sees it before anything is set, with its references."""
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        given = [f"name={name}", "++command=fit", "run_dir=runs/any", "out=any"]
        return compose(f"experiment/{name}", given)


def composed(name: str) -> dict[str, Any]:
    """The same with the values that references stand for."""
    return OmegaConf.to_container(configuration(name), resolve=True)  # type: ignore[return-value]


def row(name: str) -> list[str]:
    """The cells of a configuration."""
    config = composed(name)
    model, data, task, trainer = (config[k] for k in ("model", "data", "task", "trainer"))
    optimizer, augment, mixing = task["optimizer"], task["augment"], task.get("mixing")
    rand, erasing = augment["rand_augment"], augment["erasing"]
    kind = optimizer["_target_"].rpartition(".")[2]
    details = optimizer.get("betas") or optimizer.get("momentum")
    repeats = data["repeats"]
    per_pass = repeats if task["epochs"]["unit"] == "effective" else 1
    stride, sampling = f" x {data['stride']}", data.get("sampling", "clip")
    stride = "" if data["num_frames"] == 1 else stride
    jitter, views = data.get("short_side"), data.get("test_views")
    side = "" if data["size"] == [224, 224] else f", {data['size'][0]}x{data['size'][1]}"
    return [
        f"`{name}`",
        model["name"].removeprefix("hiera_").removesuffix("_16x224").removesuffix("_224") + side,
        f"{data['num_frames']}"
        + {"clip": stride, "spread": f"{stride}, spread", "segments": ""}[sampling],
        f"{task['batch']['global']}",
        f"{repeats}",
        f"{trainer['max_epochs'] * repeats}",
        f"{trainer['max_epochs']}",
        f"{task['warmup_epochs'] / per_pass:g}",
        f"{kind} {details}",
        f"{task['lr']:g}",
        f"{task['min_lr']:g}",
        f"{task['weight_decay']:g}",
        "-" if task["layer_decay"] == 1 else f"{task['layer_decay']:g}",
        f"{trainer['gradient_clip_val'] or '-'}",
        f"{model['drop_path_rate']:g}",
        f"{model.get('head_dropout', '-')}",
        f"short side {jitter}" if jitter else f"area {data['crop_scale']}",
        "yes" if augment["horizontal_flip"] else "no",
        f"{rand['semantics']} {rand['magnitude']}, {rand['std']}" if rand else "-",
        f"{erasing['probability']}" if erasing else "-",
        f"{mixing['mixup_alpha']} / {mixing['cutmix_alpha']}" if mixing else "-",
        f"{task.get('label_smoothing') or '-'}",
        f"{task['mask']} {task['mask_ratio']}" if "mask" in task else "-",
        " x ".join(map(str, views)) if views and "mask" not in task else "-",
        f"{task['init_from'] or '-'}",
    ]


def table() -> str:
    """A table for each data set's pretraining and fine-tuning, and what all its rows share."""
    rows = [row(name) for name in recipes()]
    lines = []
    for data, title in DATA_SETS:
        for kind in ("pretrain", "finetune"):
            chosen = [cells for cells in rows if f"`{data}" in cells[0] and f"/{kind}" in cells[0]]
            if not chosen:
                continue
            values = {i: {cells[i] for cells in chosen} for i in range(len(HEADER))}
            differ = [i for i, v in values.items() if len(v) > 1 or not i]  # 0: the name
            shared = [f"{HEADER[i]} {min(v)}" for i, v in values.items() if i not in differ]
            lines += [f"### {title}: {kind}", ""]
            lines += ["All: " + "; ".join(s for s in shared if not s.endswith(" -")) + ".", ""]
            lines += ["| " + " | ".join(HEADER[i] for i in differ) + " |"]
            lines += ["|" + "---|" * len(differ)]
            lines += ["| " + " | ".join(cells[i] for i in differ) + " |" for cells in chosen]
            lines += [""]
    return "\n".join(lines)


def page() -> str:
    """The page with the table that belongs in it."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
