"""Memory that one device needs for training, and the largest batch that fits.

::

    peak = weights + gradients + optimiser state + average of weights + input + activations

- Weights, gradients and optimiser state are counted on the meta device. DDP holds gradients twice,
  in the buckets that it sends as well, unless ``gradient_as_bucket_view`` makes them one.
- The average is a copy of the weights (`callbacks.ema`).
- The input is a batch as uint8.
- Activations are the most that one forward and backward pass has alive at once beside all that,
  from the normalised batch on; see `hiera_video.models.activations`. At each moment they are
  linear in the number of clips.

Gradients are assumed to be there all the time, as they are if several batches make a step. Of
sharded training (FSDP2), each of N devices has 1/N of weights, gradients, optimiser state and
average; if several batches make a step, it adds up whole gradients. To these come two gathered
matrix products of blocks, the one that runs and the next, in the type that they compute in, so that
autocast copies no weights; and all else, in its own type (`hiera_video.models.sharding`).

The estimate is for eager mode. It leaves out what the CUDA context, the workspaces of kernels and a
fragmented memory take, so only `USABLE` of a device's memory is planned for.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.errors import UsageError
from hiera_video.models.activations import Activations, activations
from hiera_video.models.hiera import Hiera
from hiera_video.models.mask_rcnn import MaskRCNNHiera
from hiera_video.models.network_input import takes_images
from hiera_video.models.precision import AUTOCAST
from hiera_video.models.sharding import products
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.detection import DetectionTask, action_loss
from hiera_video.tasks.instance_segmentation import InstanceSegmentationTask
from hiera_video.tasks.pretraining import PretrainingTask

GIB = 2**30
USABLE = 0.9
BOXES = 4  # of a keyframe, for detection
OBJECTS = 7  # of a picture, as in COCO; their masks are part of the input
MOST_CLIPS = 1_000_000


class TrainingMemory(NamedTuple):
    """Bytes on one device.

    Attributes:
        weights: parameters and buffers, the device's share of them.
        gradients: with DDP's buckets.
        optimizer: its state.
        average: of the weights; 0 if there is none.
        gathered: weights that sharding gathers at a time; 0 without sharding.
        input: of one clip as uint8, with the masks of its objects.
        activations: of a batch, with its normalised clips.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    gathered: int
    input: int
    activations: Activations

    def parts(self, clips: int) -> dict[str, int]:
        """What a batch of so many clips needs, by the names of a report."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser state": self.optimizer,
            "average of weights": self.average,
            "gathered weights": self.gathered,
            "input (uint8)": clips * self.input,
            "activations": self.activations.peak(clips),
        }

    def peak(self, clips: int) -> int:
        """All of that together."""
        return sum(self.parts(clips).values())

    def most_clips(self, memory: float) -> int:
        """The largest batch that fits into a device of `memory` bytes; 0 if not even one clip."""
        return bisect_right(range(1, MOST_CLIPS), USABLE * memory, key=self.peak)


def training_memory(
    task: Any,
    precision: str = "bf16-mixed",
    *,
    averages: bool = False,
    devices: int = 1,
    sharded: bool = False,
    accumulates: bool = False,
    bucket_view: bool = False,
    gpu: bool = True,
    size: Sequence[int] | None = None,
) -> TrainingMemory:
    """Estimate the memory of a training.

    Args:
        task: what is trained. It gets a network on the meta device.
        precision: as ``trainer.precision``, by its full name.
        averages: the device holds a moving average of the weights.
        devices: number of them.
        sharded: weights, gradients and optimiser state are sharded over the devices.
        accumulates: several batches make a step.
        bucket_view: DDP keeps gradients in its buckets alone.
        gpu: the devices are GPUs, not CPUs.
        size: height and width of pictures in pixels, for a network that takes any.

    Raises:
        UsageError: another kind of task, a network of the user's own, or a precision that is not
            known here.
    """
    if precision not in AUTOCAST:
        raise UsageError(f"trainer.precision={precision} is none of {', '.join(AUTOCAST)}")
    autocast = AUTOCAST[precision]
    loss = _loss(task)
    with torch.device("meta"):
        task.model = network = task.create_network()
    if not isinstance(network, Hiera):
        raise UsageError(f"{type(network).__name__} is not one of this project's networks")
    weights = _bytes([*network.parameters(), *network.buffers()])
    gradients = _bytes([p for p in network.parameters() if p.requires_grad])
    optimizer = _optimizer_bytes(task, network)
    share = devices if sharded else 1
    buckets = devices > 1 and not sharded and not bucket_view
    gathered = _gathered_bytes(network, autocast or torch.float32) if sharded else 0
    if sharded and autocast:
        for part in products(network):
            part.to(autocast)
    frames = (1,) if takes_images(network) else ()
    clip = (network.in_chans, *frames, *network.input_size)  # (3, T, H, W)
    masks = 0
    if isinstance(network, MaskRCNNHiera):
        clip = (network.in_chans, *(size or network.input_size))  # (3, H, W)
        masks = OBJECTS * math.prod(clip[1:])
    return TrainingMemory(
        weights=weights // share,
        gradients=gradients * (2 if buckets else 1) // (1 if accumulates else share),
        optimizer=optimizer // share,
        average=weights // share if averages else 0,
        gathered=gathered,
        input=math.prod(clip) + masks,
        activations=activations(network, loss, clip, autocast, gpu),
    )


def _loss(task: Any) -> Callable[[Tensor], Tensor]:
    """The loss of a normalised batch; labels, boxes and masks are made up."""
    match task:
        case PretrainingTask():
            return lambda video: task(video, _indices(len(video))).loss
        case ClassificationTask():
            return lambda video: _cross_entropy(task(video))
        case DetectionTask():
            return lambda video: _loss_of_boxes(task, video)
        case InstanceSegmentationTask():
            return lambda images: _loss_of_objects(task.model, images)
    raise UsageError(f"what {type(task).__name__} computes is not known here")


def _indices(count: int) -> Tensor:
    return torch.arange(count, device="meta")


def _cross_entropy(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), torch.empty_like(logits, dtype=torch.float32))


def _loss_of_boxes(task: DetectionTask, video: Tensor) -> Tensor:
    clip = _indices(len(video)).repeat_interleave(BOXES, output_size=BOXES * len(video))  # (N,)
    logits = task(video, torch.empty(len(clip), 4, device="meta"), clip)  # (N, classes)
    return action_loss(logits, torch.empty_like(logits, dtype=torch.float32))


def _loss_of_objects(model: MaskRCNNHiera, images: Tensor) -> Tensor:
    """The loss of a Mask R-CNN that finds as many boxes and objects as it learns from at most."""
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    maps, rpn, heads = model.pyramid(images), model.rpn, model.roi_heads
    scores, offsets = concat_box_prediction_layers(*rpn.head(list(maps.values())))
    anchors = _indices(len(images) * rpn.fg_bg_sampler.batch_size_per_image)
    losses = [_l1(scores[anchors]), _l1(offsets[anchors])]
    boxes = heads.fg_bg_sampler.batch_size_per_image
    objects = int(boxes * heads.fg_bg_sampler.positive_fraction)
    x = _features(heads.box_roi_pool, maps, len(images) * boxes)
    losses += [_l1(x) for x in heads.box_predictor(heads.box_head(x))]
    x = _features(heads.mask_roi_pool, maps, len(images) * objects)
    masks = heads.mask_predictor(heads.mask_head(x))  # (objects, classes, 28, 28)
    index = _indices(len(masks))
    return torch.stack([*losses, _l1(masks[index, index])]).sum()


def _features(pool: Any, maps: dict[str, Tensor], boxes: int) -> Tensor:
    """Features of so many boxes, each map's share the same."""
    from torchvision.ops import roi_align

    parts = torch.empty(boxes, 5, device="meta").tensor_split(len(pool.maps))
    return torch.cat(
        [
            roi_align(maps[name], rows, pool.output_size, 1.0, 0, aligned=True)
            for name, rows in zip(pool.maps, parts, strict=True)
        ]
    )


def _l1(x: Tensor) -> Tensor:
    return F.l1_loss(x, torch.empty_like(x))


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _optimizer_bytes(task: Any, network: nn.Module) -> int:
    """Bytes of an optimiser's state after a step on the meta device."""
    groups = task.parameter_groups(network)
    optimizer = task.optimizer(groups)
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    network.zero_grad()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return _bytes([value for value in states if isinstance(value, Tensor)])


def _gathered_bytes(network: nn.Module, compute: torch.dtype) -> int:
    """Twice the largest product in the type that it computes in, and all else as it is."""
    sizes = [sum(p.numel() for p in part.parameters()) for part in products(network)]
    outside = sum(p.numel() for p in network.parameters()) - sum(sizes)
    return 2 * max(sizes) * compute.itemsize + outside * torch.float32.itemsize
