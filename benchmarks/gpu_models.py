"""What `gpu.py` measures of models: each function is one part and returns contenders."""

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import hiera.hiera
import hiera.hiera_mae
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Contender, count_flops, difference, interleave, prepare
from hiera_video.augment import Augmentation, Mixing, RandAugment, RandomErasing
from hiera_video.augment.mixing import soft_targets
from hiera_video.models.compiling import compile_blocks
from hiera_video.models.masks import random_units
from hiera_video.models.recorded_pass import RecordedPass
from tests.models.reference import autoencoders, classifiers

PUBLISHED = "hiera-transformer"


@dataclass
class Setting:
    """Where and how much is measured.

    Attributes:
        device: ``cuda``, or ``cpu`` to see that all of this works.
        tiny: small models and few rounds.
        deadline: ``time.monotonic()`` at which a part should end.
    """

    device: str
    tiny: bool
    deadline: float

    def overrides(self, name: str, decoder: bool = False) -> dict[str, Any]:
        """Arguments that make a model tiny; none where it is to be measured as it is."""
        if not self.tiny:
            return {}
        size = (4, 64, 64) if "16x" in name else (64, 64)
        few: dict[str, Any] = {"stages": (1, 1, 1, 1), "embed_dim": 16, "num_heads": 1}
        if decoder:
            few |= {"decoder_depth": 1, "decoder_embed_dim": 32}
        return {"input_size": size, **few}

    def batch(self, size: int) -> int:
        """Number of clips of a batch."""
        return 2 if self.tiny else size

    def rounds(self, rounds: int) -> int:
        """Number of rounds."""
        return 3 if self.tiny else rounds

    def autocast(self) -> torch.autocast:
        """The arithmetic of ``bf16-mixed``."""
        return torch.autocast(self.device, torch.bfloat16)


@dataclass
class Table:
    """One comparison.

    Attributes:
        title: what is compared.
        reference: name of the contender that ratios refer to.
        contenders: with their times.
        items: clips or images of a call.
        flops: operations of a call of ours; 0 if they were not counted.
    """

    title: str
    reference: str
    contenders: list[Contender]
    items: int
    flops: int = 0


def compiled_copy(model: nn.Module) -> nn.Module:
    """A copy with compiled blocks; on a CPU without generated code, which takes minutes there."""
    model = copy.deepcopy(model)
    if torch.cuda.is_available():
        compile_blocks(model)
    return model


def capture(work: Callable[[], Any]) -> Callable[[], Any]:
    """Record the work on a CUDA graph and return its replay; without a GPU, the work itself."""
    if not torch.cuda.is_available():
        return work
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def record(
    setting: Setting, model: nn.Module, work: Callable[..., tuple[Tensor, ...]], *inputs: Tensor
) -> Callable[[], Tensor]:
    """A loss that is recorded on a CUDA graph; on a CPU, the loss itself."""
    if setting.device == "cpu":
        return lambda: work(*inputs)[0]
    graph = RecordedPass(work, list(model.parameters()), inputs)
    return lambda: graph(*inputs)[0]


def inference(setting: Setting, size: str, batch: int = 32) -> Iterator[Table]:
    """Logits of a batch, with weights in bfloat16."""
    name, items = f"hiera_{size}_16x224", setting.batch(batch)
    with torch.no_grad():
        with torch.device(setting.device):  # a CPU takes long to draw the weights of huge
            ours, published = classifiers(name, **setting.overrides(name))
        ours = ours.to(setting.device, torch.bfloat16).eval()
        # In evaluation the published code gives probabilities; nothing in it is random here.
        published = published.to(setting.device, torch.bfloat16).train()
        video = torch.randn(items, 3, *ours.input_size, device=setting.device).bfloat16()
        flops = count_flops(lambda: ours(video))
        compiled = compiled_copy(ours)
        works: dict[str, Callable[[], Callable[[], Any]]] = {
            PUBLISHED: lambda: lambda: published(video),
            "ours": lambda: lambda: ours(video),
            "ours, compiled": lambda: lambda: compiled(video),
        }
        if batch == 1:
            works["ours, CUDA graph"] = lambda: capture(lambda: compiled(video))
        contenders = [prepare(name, make) for name, make in works.items()]
        compare(contenders)
        interleave(contenders, setting.rounds(20), 1 if batch > 1 else 10, setting.deadline)
    yield Table(f"inference, {size} 16x224, batch {items}", PUBLISHED, contenders, items, flops)


def pretraining(setting: Setting, model: str, batch: int) -> Iterator[Table]:
    """Forward and backward of the autoencoder, one of videos under ``bf16-mixed``.

    Weights of an autoencoder of images are in bfloat16, as where hiera-optim measures itself.
    """
    # Both have the paper's decoder heads.
    ours, published = autoencoders(model, **setting.overrides(model, decoder=True))
    dtype = torch.float32 if ours.is_video else torch.bfloat16
    ours, published = (m.to(setting.device, dtype) for m in (ours, published))
    items = setting.batch(batch)
    video = torch.randn(items, 3, *ours.input_size, device=setting.device).to(dtype)
    noise = torch.rand(items, ours.num_units, device=setting.device)
    kept = random_units(noise, ours.num_kept(0.5 if setting.tiny else None))
    mask = ours.unit_mask(kept)
    autocast = torch.autocast(setting.device, torch.bfloat16, enabled=ours.is_video)

    def step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def work() -> Tensor:
            model.zero_grad()
            with autocast:
                value = loss()
            value.backward()
            return value

        return work

    def recorded() -> Callable[[], Tensor]:
        with autocast:
            loss = record(setting, compiled, lambda x, k: (compiled(x, mask=k).loss,), video, kept)
        return step(compiled, loss)

    def optim() -> Callable[[], Tensor]:
        # It looks for the autoencoder, and for an attribute, where a development version has them.
        hiera.hiera.MaskedAutoencoderHiera = hiera.hiera_mae.MaskedAutoencoderHiera
        hiera.hiera.apply_fusion_head = hiera.hiera_mae.apply_fusion_head
        rival._grad_checkpointing = False
        from hiera_optim import optimize

        optimize(rival, graph_safe=True, verbose=False)
        fast = torch.compile(rival, mode="reduce-overhead", dynamic=False)
        inputs = {"mask_ratio": 0.6, "mask": mask, "keep_idx": kept}
        return step(rival, lambda: fast(video, **inputs)[0])

    compiled, rival = compiled_copy(ours), copy.deepcopy(published)
    works: dict[str, Callable[[], Callable[[], Any]]] = {
        PUBLISHED: lambda: step(published, lambda: published(video, mask=mask)[0]),
        "hiera-optim": optim,
        "ours": lambda: step(ours, lambda: ours(video, mask=kept).loss),
        "ours, compiled": lambda: step(compiled, lambda: compiled(video, mask=kept).loss),
        "ours, CUDA graph": recorded,
    }
    models = dict(zip(works, (published, rival, ours, compiled, compiled), strict=True))
    if ours.is_video or setting.device == "cpu":
        del works["hiera-optim"]  # it is for CUDA, and measures itself with images
    contenders = [prepare(name, make) for name, make in works.items()]
    flops = count_flops(works["ours"]())
    exact = copy.deepcopy(ours).float()
    exact.zero_grad()
    exact(video.float(), mask=kept).loss.backward()
    compare_gradients(contenders, models, exact)
    del exact
    interleave(contenders, setting.rounds(20), 1, setting.deadline)
    reference = "hiera-optim" if "hiera-optim" in works else PUBLISHED
    yield Table(f"pretraining step, {model}, batch {items}", reference, contenders, items, flops)


def finetuning(setting: Setting, size: str = "base", batch: int = 32) -> Iterator[Table]:
    """A step from uint8 clips: all augmentation, forward, backward, AdamW, under ``bf16-mixed``."""
    name = f"hiera_{size}_16x224"
    ours, published = classifiers(name, drop_path_rate=0.2, **setting.overrides(name))
    items = setting.batch(batch)
    shape = (items, *(ours.input_size), 3)
    video = torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 4, 1, 2, 3)
    video, label = video.to(setting.device), torch.arange(items, device=setting.device)
    augment = Augmentation(rand_augment=RandAugment(), erasing=RandomErasing()).to(setting.device)
    mixing, numbers = Mixing(), itertools.count()
    classes = ours.head.projection.out_features

    def training(model: nn.Module, mode: str = "") -> Callable[[], Tensor]:
        model = copy.deepcopy(model).to(setting.device).train()
        if mode and setting.device == "cuda":
            compile_blocks(model)
        optimizer = torch.optim.AdamW(model.parameters(), fused=setting.device == "cuda")

        def loss(clips: Tensor, target: Tensor) -> tuple[Tensor]:
            return (F.cross_entropy(model(clips).float(), target),)

        graph: list[RecordedPass] = []

        def step() -> Tensor:
            seed = torch.arange(items) + items * next(numbers)
            size = (video.shape[-2], video.shape[-1])
            clips = augment(video, augment.draw(seed, size))
            target = soft_targets(label, classes, 0.1)
            clips, target = mixing(clips, target, mixing.draw(seed, size))
            with setting.autocast():
                if mode == "graph" and not graph and setting.device == "cuda":
                    graph.append(RecordedPass(loss, list(model.parameters()), (clips, target)))
                (value,) = graph[0](clips, target) if graph else loss(clips, target)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            return value

        return step

    works = {
        PUBLISHED: lambda: training(published),
        "ours": lambda: training(ours),
        "ours, compiled": lambda: training(ours, "blocks"),
        "ours, CUDA graph": lambda: training(ours, "graph"),
    }
    contenders = [prepare(name, make) for name, make in works.items()]
    flops = count_flops(training(ours))
    interleave(contenders, setting.rounds(15), 1, setting.deadline)
    title = f"fine-tuning step with augmentation, {size} 16x224, batch {items}"
    yield Table(title, PUBLISHED, contenders, items, flops)


def compare(contenders: list[Contender]) -> None:
    """Fill in how far each result is from that of the first contender."""
    reference = contenders[0].work()
    for contender in contenders[1:]:
        if not contender.error:
            contender.difference = difference(contender.work(), reference)


def compare_gradients(
    contenders: list[Contender], models: dict[str, nn.Module], exact: nn.Module
) -> None:
    """Fill in how far the gradients that each contender leaves in its model are from exact ones.

    Args:
        contenders: their work is a step without an optimiser.
        models: by the names of the contenders.
        exact: a model with gradients in float32.
    """

    def gradients(model: nn.Module) -> Tensor:
        """Those of all parameters, by name: the published code has them in another order."""
        by_name = sorted(model.named_parameters(), key=lambda item: item[0])
        return torch.cat([p.grad.float().flatten() for _, p in by_name if p.grad is not None])

    for contender in contenders:
        if not contender.error:
            contender.work()
            found = gradients(models[contender.name])
            contender.difference = difference(found, gradients(exact))


def parity(setting: Setting) -> Iterator[dict[str, Any]]:
    """Differences from the published code in float32, without and with compiled blocks."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for kind, create in (("logits", classifiers), ("prediction", autoencoders)):
        name = "hiera_base_16x224"
        ours, published = create(name, **setting.overrides(name, create is autoencoders))
        ours, published = ours.to(setting.device).train(), published.to(setting.device).train()
        video = torch.randn(2, 3, *ours.input_size, device=setting.device)
        if kind == "logits":
            arguments, expected_arguments = {}, {}
        else:
            noise = torch.rand(2, ours.num_units, device=setting.device)
            kept = random_units(noise, ours.num_kept(0.5))
            arguments, expected_arguments = {"mask": kept}, {"mask": ours.unit_mask(kept)}
        with torch.no_grad():
            expected = published(video, **expected_arguments)
            expected = expected if isinstance(expected, Tensor) else expected[1]
            for mode, model, context in (
                ("float32", ours, nullcontext()),
                ("bf16-mixed", ours, setting.autocast()),
                ("float32, compiled", compiled_copy(ours), nullcontext()),
                ("bf16-mixed, compiled", compiled_copy(ours), setting.autocast()),
                (f"{PUBLISHED}, bf16-mixed", published, setting.autocast()),
            ):
                with context:
                    out = model(video, **(expected_arguments if model is published else arguments))
                out = out if isinstance(out, Tensor) else out[1].flatten(0, -2)
                yield {
                    "what": kind,
                    "mode": mode,
                    "difference": difference(out.float(), expected),
                }


def ceilings(setting: Setting) -> dict[str, float]:
    """What the machine can do: bf16 matrix products in FLOP/s, copies in bytes/s.

    ``to_device`` copies a batch of 32 clips of 16x224x224 from page-locked memory.
    """
    side = 256 if setting.tiny else 8192
    a = torch.randn(side, side, device=setting.device).bfloat16()
    matrix = prepare("matrix product", lambda: lambda: a @ a)
    source = torch.empty(2**20 if setting.tiny else 2**31, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    copying = prepare("copy", lambda: lambda: target.copy_(source))
    on_gpu = setting.device == "cuda"
    batch = torch.ones(32, 16, 224, 224, 3, dtype=torch.uint8, pin_memory=on_gpu)
    moved = torch.empty_like(batch, device=setting.device)
    moving = prepare("to device", lambda: lambda: moved.copy_(batch, non_blocking=True))
    interleave([matrix, copying, moving], setting.rounds(10), 5, setting.deadline)
    return {
        "flops": 2 * side**3 / matrix.median,
        "copy": 2 * len(source) / copying.median,
        "to_device": batch.numel() / moving.median,
    }
