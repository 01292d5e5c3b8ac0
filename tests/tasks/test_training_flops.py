"""Floating-point operations of training, against numbers worked out by hand."""

from functools import partial

import pytest
from torch import nn

from hiera_video.models.complexity import complexity, training_flops
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.detection import DetectionTask
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import TINY, tiny_mae, tiny_model
from tests.quick_trainer import quick_trainer

CLIP = (3, 4, 64, 64)
HIDDEN = 7


class TwoLayers(nn.Sequential):
    def __init__(self, num_classes):
        pool = nn.AdaptiveAvgPool3d(2)  # (B, 3, 2, 2, 2)
        super().__init__(
            pool, nn.Flatten(), nn.Linear(24, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, num_classes)
        )


def test_matrix_products_and_convolutions():
    task = ClassificationTask(TwoLayers)
    quick_trainer(max_epochs=0).fit(task, datamodule=ColourVideos())
    # Forward; backward: gradients of both weights, and of the hidden layer, not of the input.
    assert task.training_flops(CLIP) == 2 * (2 * 24 * HIDDEN + 3 * HIDDEN * 3)
    conv = partial(nn.Conv3d, 3, 5, kernel_size=2, stride=2)
    products = 2 * 32 * 32 * 5 * 3 * 8  # of forward: places, channels out and in, kernel
    assert training_flops(conv, lambda net, clip: net(clip).sum(), CLIP) == 2 * 2 * products


def test_a_hiera():
    """The backward pass has twice the products, but for the input, which needs no gradient."""
    cost = complexity(**{**TINY, "num_classes": 3, **geometry()})
    forward = 2 * (cost.multiply_adds - cost.layer_norms)
    kernel = 3 * 3 * 7 * 7
    tokens = 2 * 16 * 16
    patches = 2 * tokens * TINY["embed_dim"] * kernel
    task = ClassificationTask(tiny_model)
    quick_trainer(max_epochs=0).fit(task, datamodule=ColourVideos())
    assert task.training_flops(CLIP) == 3 * forward - patches
    saving = ClassificationTask(partial(tiny_model, grad_checkpointing=True))
    quick_trainer(max_epochs=0).fit(saving, datamodule=ColourVideos())
    assert saving.training_flops(CLIP) == task.training_flops(CLIP)


def geometry():
    model = tiny_model()
    return {
        "patch_kernel": model.patch_embed.proj.kernel_size,
        "patch_stride": model.patch_embed.proj.stride,
    }


def block(tokens, dim):
    """Forward and backward pass of a block whose attention sees all tokens of one clip."""
    return 3 * 2 * (12 * tokens * dim**2 + 2 * tokens**2 * dim)


@pytest.mark.parametrize("mask", ["random", "tube"])
@pytest.mark.parametrize("mask_ratio", [0.5, 0.75])
def test_a_masked_autoencoder_at_its_mask_ratio(mask_ratio, mask):
    def flops(decoder_mask_ratio=0.0, **model):
        task = PretrainingTask(
            partial(tiny_mae, **model),
            mask_ratio=mask_ratio,
            mask=mask,
            decoder_mask_ratio=decoder_mask_ratio,
        )
        return task.training_flops(CLIP)

    mae = tiny_mae()
    patches = mae.num_predictions
    seen = round(patches * (1 - mask_ratio))
    # What another block costs: one of the third stage sees kept tokens, one of the decoder all.
    assert flops(stages=(1, 1, 3, 1)) - flops() == block(seen, 4 * TINY["embed_dim"])
    assert flops(decoder_depth=2) - flops() == block(patches, 32)
    decoded = seen + (patches - seen) // 2
    half = partial(flops, 0.5)
    assert half(decoder_depth=2) - half() == block(decoded, 32)


def test_a_detector_is_not_counted():
    assert DetectionTask(nn.Identity).training_flops(CLIP) is None
