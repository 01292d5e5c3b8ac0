"""Features of clips: a vector for each, or the map of a stage.

Legend: B clips, U mask units, L tokens of a unit, C channels, T' H' W' a map of tokens.
"""

from collections.abc import Sequence

from torch import Tensor

from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera


def pooled_features(model: Hiera, video: Tensor, stage: int | None = None) -> Tensor:
    """One feature vector a clip: the mean over the tokens of a stage; of the last one, normed.

    For a classifier, that of the last stage is the input of its head. For a masked autoencoder it
    is what a classifier of the same shape would give its head at the start of fine-tuning: no unit
    is masked, and the other stages, which pretraining adds to the last, are left out, as
    fine-tuning does. Where pretraining pools once less (``q_pool`` 2, as published), its last stage
    has more tokens. A model has no norm for the earlier stages: their means are as they are.

    Args:
        model: a classifier, an action detector or a `MaskedAutoencoderHiera`.
        video: normalised float ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
        stage: index of the stage, from 0; None: the last.

    Returns:
        float32 ``(B, C)``.
    """
    last = len(model.stage_ends) - 1
    stage = last if stage is None else stage
    norm = model.encoder_norm if isinstance(model, MaskedAutoencoderHiera) else model.norm
    tokens = model.encode(video, [stage])[0]  # (B, U, L, C)
    pooled = tokens.mean(dim=(1, 2), dtype=norm.weight.dtype)  # (B, C)
    if stage < last:
        return pooled.float()
    return norm(pooled).float()


def feature_map(model: Hiera, video: Tensor, stage: int | None = None) -> Tensor:
    """The map of tokens at the end of a stage, in raster order, not normed.

    Args:
        model: as in `pooled_features`.
        video: as in `pooled_features`.
        stage: as in `pooled_features`.

    Returns:
        float32 ``(B, T', H', W', C)``.
    """
    return _maps(model, video, [len(model.stage_ends) - 1 if stage is None else stage])[0]


def feature_maps(model: Hiera, video: Tensor) -> list[Tensor]:
    """The maps of all stages, from one pass; see `feature_map`."""
    return _maps(model, video, range(len(model.stage_ends)))


def _maps(model: Hiera, video: Tensor, stages: Sequence[int]) -> list[Tensor]:
    maps = [x.float() for x in model.stage_maps(video, stages)]
    return [x if x.ndim == 5 else x[:, None] for x in maps]  # (B, 1, H', W', C) of images
