"""Time augmentation on the device beside the training step that it feeds.

    python benchmarks/augmentation.py [--model hiera_base_16x224] [--clips 8] [--repeats 5]

Each repeat makes new draws for the clips, augments them in every way below, and runs forward and
backward, so that all see the same machine. On a CPU the model takes one clip, and its seconds count
for each of them; on a GPU it takes all together, under bfloat16 autocast. Prints a Markdown table.
Drawing on the host is counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hiera_video import create_model
from hiera_video.augment import Augmentation, Mixing, RandAugment, RandomErasing
from hiera_video.augment.mixing import soft_targets
from hiera_video.models.names import MODELS

CLASSES = 400


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of the work and of all that it started on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def augment(augmentation: Augmentation, mixing: Mixing | None, video: Tensor, seed: Tensor) -> None:
    """What a training step does before the model."""
    size = (video.shape[-2], video.shape[-1])
    clips = augmentation(video, augmentation.draw(seed, size))
    if mixing:
        target = soft_targets(torch.zeros(len(clips), dtype=torch.int64), CLASSES, 0.1)
        mixing(clips, target.to(clips.device), mixing.draw(seed, size))


def train(model: nn.Module, video: Tensor) -> None:
    """Forward and backward."""
    with torch.autocast("cuda", torch.bfloat16, enabled=video.is_cuda):
        loss = model(video).logsumexp(1).mean()
    loss.backward()
    model.zero_grad()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    videos = [name for name, of in MODELS.items() if len(of["input_size"]) == 3]
    parser.add_argument("--model", default="hiera_base_16x224", choices=videos, metavar="NAME")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)

    model = create_model(arguments.model, num_classes=CLASSES).to(device).train()
    frames, height, width = MODELS[arguments.model]["input_size"]
    shape = (arguments.clips, frames, height, width, 3)
    # Channels last in memory, as they come from the loader.
    video = torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 4, 1, 2, 3).to(device)
    recipes: dict[str, tuple[Augmentation, Mixing | None]] = {
        "flip, normalise": (Augmentation(), None)
    }
    for semantics in ("timm", "pytorchvideo"):
        augmentation = Augmentation(
            rand_augment=RandAugment(semantics=semantics), erasing=RandomErasing()
        )
        recipes[f"all, `{semantics}`"] = (augmentation, Mixing())
    for augmentation, _ in recipes.values():
        augmentation.to(device)
    normalised = Augmentation().to(device).normalize(video)
    trained = normalised[:1] if device.type == "cpu" else normalised
    times: dict[str, list[float]] = {name: [] for name in [*recipes, "forward + backward"]}
    for repeat in range(-1, arguments.repeats):
        seed = torch.arange(arguments.clips) + repeat * arguments.clips
        for name, (augmentation, mixing) in recipes.items():
            times[name].append(
                seconds(lambda a=augmentation, m=mixing, s=seed: augment(a, m, video, s), device)
            )
        one = seconds(lambda: train(model, trained), device)
        times["forward + backward"].append(one * arguments.clips / len(trained))

    step = statistics.median(times["forward + backward"][1:])  # the first is a warm-up
    machine = f"{arguments.threads} threads" if device.type == "cpu" else "bfloat16"
    print(
        f"{arguments.model}, {arguments.clips} clips, {device}, {machine}, {arguments.repeats} "
        f"repeats, torch {torch.__version__}\n"
    )
    print("| part | median (s) | slowest (s) | median / forward + backward |")
    print("|---|--:|--:|--:|")
    for name, (_, *measured) in times.items():
        median = statistics.median(measured)
        print(f"| {name} | {median:.3f} | {max(measured):.3f} | {median / step:.1%} |")


if __name__ == "__main__":
    main()
