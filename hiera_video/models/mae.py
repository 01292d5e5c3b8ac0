"""Masked autoencoder with a Hiera encoder (Hiera, appendix A; MAE, arXiv:2111.06377).

Legend: B batch, U mask units, K of them kept, C channels, t h w the tokens of a unit at the last
stage, P predictions (one for each token of the last stage), M of them predicted, D numbers in each.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from hiera_video.models.architecture import BlockShape
from hiera_video.models.blocks import HieraBlock, layer_norm, learned
from hiera_video.models.hiera import Hiera
from hiera_video.models.masks import given_units, num_kept, random_units, true_places
from hiera_video.models.on_cpu import apply, linear
from hiera_video.models.targets import make_target
from hiera_video.models.token_order import join_units, take, unroll


class MAEOutput(NamedTuple):
    """Output of a masked autoencoder.

    Attributes:
        loss: float32 scalar, the mean squared error over the predictions.
        prediction: ``(B, M, D)`` at the predicted places, in raster order.
        target: what they should be, float32 ``(B, M, D)``.
        mask: bool ``(B, U)``, True where a unit was kept.
        predicted: bool ``(B, P)``, True where a prediction counts in the loss.
    """

    loss: Tensor
    prediction: Tensor
    target: Tensor
    mask: Tensor
    predicted: Tensor


class MaskedAutoencoderHiera(Hiera):
    """Hides mask units, encodes the others and reconstructs what was hidden.

    Args:
        input_size: as in `Hiera`.
        decoder_embed_dim: channels of the decoder.
        decoder_depth: number of its blocks, at least 0.
        decoder_num_heads: its attention heads; None: 8 for videos, 16 for images (paper, tables 11
            and 14). The published code has 16 for both; the weights have the same shapes.
        q_pool: number of stage transitions that pool, from the first.
        target: what is reconstructed, a name in `targets.TARGETS`.
        mlp_ratio: hidden channels of an MLP as a multiple of its channels, in encoder and decoder.
        **encoder: further arguments of `Hiera`.

    Raises:
        ValueError: arguments do not fit each other.

    Attributes:
        unit_grid: number of mask units along each axis.
        num_units: U, numbered in raster order with time slowest.
        num_predictions: P.
        prediction_grid: number of patches along each axis.
        is_video: whether the input has a time axis.
    """

    def __init__(
        self,
        input_size: Sequence[int] = (224, 224),
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int | None = None,
        q_pool: int = 2,
        target: str = "pixels_normalized",
        mlp_ratio: float = 4.0,
        **encoder: Any,
    ) -> None:
        super().__init__(input_size, q_pool=q_pool, mlp_ratio=mlp_ratio, **encoder)
        del self.norm, self.head
        self.is_video = len(self.input_size) == 3
        if decoder_depth < 0:
            raise ValueError(f"decoder_depth must be at least 0, not {decoder_depth}")
        heads = (8 if self.is_video else 16) if decoder_num_heads is None else decoder_num_heads
        if heads < 1 or decoder_embed_dim < 1 or decoder_embed_dim % heads:
            raise ValueError(f"{decoder_embed_dim} channels do not divide into {heads} heads")
        pooled = [s**q_pool for s in self.geometry.q_stride]
        self.final_unit = [u // p for u, p in zip(self.geometry.unit, pooled, strict=True)]
        self.num_predictions = self.num_units * math.prod(self.final_unit)
        self.prediction_grid = [n * u for n, u in zip(self.unit_grid, self.final_unit, strict=True)]
        patch = [s * p for s, p in zip(self.patch_stride, pooled, strict=True)]  # (frames, h, w)
        self.target = make_target(
            target, (patch[-2], patch[-1]), patch[0] if self.is_video else None, self.in_chans
        )

        dim = self.stage_dims[-1]
        self.encoder_norm = layer_norm(dim)
        self.multi_scale_fusion_heads = nn.ModuleList(
            self._fusion_head(stage, dim) for stage in range(q_pool)
        )
        self.decoder_embed = nn.Linear(dim, decoder_embed_dim)
        self.mask_token = learned(1, decoder_embed_dim)
        self.decoder_pos_embed = learned(self.num_predictions, decoder_embed_dim)
        shape = BlockShape(0, decoder_embed_dim, decoder_embed_dim, heads, 1, windowed=False)
        self.decoder_blocks = nn.ModuleList(
            HieraBlock(shape, mlp_ratio) for _ in range(decoder_depth)
        )
        self.decoder_norm = layer_norm(decoder_embed_dim)
        self.decoder_pred = nn.Linear(decoder_embed_dim, self.target.dim)
        self.apply(_init_weights)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))  # as a linear map

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        video: Tensor,
        mask_ratio: float | None = None,
        mask: Tensor | None = None,
        generator: Generator | None = None,
        decoded: Tensor | None = None,
    ) -> MAEOutput:
        """Hide mask units, encode the others, reconstruct what was hidden.

        Args:
            video: normalised float ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            mask_ratio: share of units that are hidden, in (0, 1); None: 0.9 for videos, 0.6 for
                images.
            mask: the units that are kept, in place of a random choice: bool ``(B, U)``, True where
                kept, with the same number in each row; or int64 ``(B, K)``, distinct indices in any
                order. Indices need no synchronisation with the device and compile into one graph.
            generator: random numbers for the choice of units.
            decoded: the hidden patches that are predicted, int64 ``(B, M)``, ascending: distinct
                indices in raster order of `prediction_grid`, as from `masks.running_cell`. The
                decoder does not see the other hidden ones. None: all hidden patches.

        Raises:
            ValueError: the input has another shape, or the mask does not fit.
        """
        self._check_input(video)
        kept = self._kept(video, mask_ratio, mask, generator)  # (B, K)
        unit_mask = self.unit_mask(kept)  # (B, U)
        hidden = self.hidden_patches(unit_mask)  # (B, P)
        num_seen = kept.shape[1] * math.prod(self.final_unit)
        where = true_places(hidden, self.num_predictions - num_seen) if decoded is None else decoded
        x = self.encode_fused(video, kept)
        if decoded is None:
            x = take(self.decode(x, kept), where)  # (B, M, C)
        else:
            places = torch.cat([where, true_places(~hidden, num_seen)], dim=1)
            x = self.decode(x, kept, places)[:, : where.shape[1]]  # (B, M, C)
            hidden = torch.zeros_like(hidden).scatter(1, where, True)
        prediction = apply(self.decoder_pred, self.decoder_norm(x))  # (B, M, D)
        target = self.target(video, where)  # (B, M, D)
        loss = F.mse_loss(prediction.float(), target)
        return MAEOutput(loss, prediction, target, unit_mask, hidden)

    def encode_fused(self, video: Tensor, kept: Tensor) -> Tensor:
        """Encode kept units and sum all stages at the resolution of the last (paper, table 3a).

        Args:
            video: as in `forward`.
            kept: indices of kept units, int64 ``(B, K)``, ascending.

        Returns:
            Normed ``(B, K, t, h, w, C)``, images ``(B, K, h, w, C)``.
        """
        *early, last = self.encode(video, [*range(self.q_pool), len(self.stage_ends) - 1], kept)
        fused = last.float()  # (B, K, L, C); in half precision the sum would lose small terms
        for stage, x in enumerate(early):
            fused = fused + self._convolve_cells(stage, x).float()
        x = self.encoder_norm(fused.to(self.encoder_norm.weight.dtype))
        return x.unflatten(2, self.final_unit)  # what is left of a unit is in raster order

    def decode(self, x: Tensor, kept: Tensor, places: Tensor | None = None) -> Tensor:
        """Put mask tokens in the places of the hidden units and run the decoder's blocks.

        Args:
            x: ``(B, K, t, h, w, C)`` from `encode_fused`.
            kept: indices of kept units, int64 ``(B, K)``, ascending.
            places: indices of the patches that the decoder sees, int64 ``(B, N)``, in raster order
                of `prediction_grid`; None: all.

        Returns:
            The decoder's tokens, ``(B, N, C)``, in the order of `places`; ``(B, P, C)`` of all.
        """
        x = apply(self.decoder_embed, x).to(self.mask_token.dtype)
        index = kept.reshape(*kept.shape, *[1] * (x.ndim - 2)).expand_as(x)
        units = self.mask_token.reshape([1] * (x.ndim - 1) + [-1])
        units = units.expand(len(x), self.num_units, *x.shape[2:])  # (B, U, t, h, w, C)
        x = join_units(units.scatter(1, index, x), self.unit_grid).flatten(1, -2)  # (B, P, C)
        x = x + self.decoder_pos_embed
        x = x[:, None] if places is None else take(x, places)[:, None]  # one unit, (B, 1, N, C)
        for block in self.decoder_blocks:
            x = self.run_block(block, x)
        return x[:, 0]

    @torch.no_grad()
    def reconstruct(self, video: Tensor, out: MAEOutput, true_statistics: bool = True) -> Tensor:
        """Paint predictions into a copy of the video.

        What is not predicted (kept patches, the second frame of each token) stays as in the video.

        Args:
            video: the input of `forward`, ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            out: the output of `forward`.
            true_statistics: give normalised predictions the mean and variance of the patches that
                they replace. The model does not know them: even with random weights the picture
                then resembles the video. False: mean 0 and variance 1, as predicted.

        Returns:
            A tensor with the shape and type of `video`.

        Raises:
            ValueError: the predictions are not pixels (``target="hog"``).
        """
        return self.target.paint(video, predicted_places(out), out.prediction, true_statistics)

    def num_kept(self, mask_ratio: float | None = None, mask: str = "random") -> int:
        """Number of units kept at a mask ratio.

        Args:
            mask_ratio: share of units that are hidden, in (0, 1); None: 0.9 for videos, 0.6 for
                images.
            mask: a name in `masks.MASKS`.

        Raises:
            ValueError: as `masks.num_kept`.
        """
        ratio = (0.9 if self.is_video else 0.6) if mask_ratio is None else mask_ratio
        return num_kept(mask, self.unit_grid, ratio)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, besides biases and norms (one axis)."""
        return super().no_weight_decay() | {"mask_token", "decoder_pos_embed"}

    def _kept(
        self,
        video: Tensor,
        mask_ratio: float | None,
        mask: Tensor | None,
        generator: Generator | None,
    ) -> Tensor:
        """Indices of kept units, ascending, int64 ``(B, K)``."""
        if mask is None:
            device = video.device if generator is None else generator.device
            noise = torch.rand(len(video), self.num_units, generator=generator, device=device)
            return random_units(noise, self.num_kept(mask_ratio)).to(video.device)
        if mask_ratio is not None:
            raise ValueError("give mask_ratio or mask, not both")
        return given_units(mask, len(video), self.num_units).to(video.device)

    def hidden_patches(self, mask: Tensor) -> Tensor:
        """The patches of hidden units.

        Args:
            mask: bool ``(B, U)``, True where a unit is kept.

        Returns:
            bool ``(B, P)``, in raster order of `prediction_grid`.
        """
        ones = [1] * len(self.final_unit)
        hidden = ~mask.reshape(*mask.shape, *ones, 1)  # (B, U, 1, 1, 1, 1)
        hidden = hidden.expand(*mask.shape, *self.final_unit, 1)  # (B, U, t, h, w, 1)
        return join_units(hidden, self.unit_grid).flatten(1)  # (B, P)

    def _fusion_head(self, stage: int, dim: int) -> nn.Conv2d | nn.Conv3d:
        """Convolution from a unit's map at the end of a stage to the size of the last stage's."""
        stride = tuple(s ** (self.q_pool - stage) for s in self.geometry.q_stride)
        conv = nn.Conv3d if self.is_video else nn.Conv2d
        return conv(self.stage_dims[stage], dim, stride, stride)

    def _convolve_cells(self, stage: int, x: Tensor) -> Tensor:
        """Apply a fusion head to the tokens of its stage: ``(B, K, S*L, C')`` to ``(B, K, L, C)``.

        Its kernel is its stride, and the S tokens under it are those of later poolings, which are
        the slowest index of a unit. So it is a matrix product.
        """
        conv = cast(nn.Conv2d | nn.Conv3d, self.multi_scale_fusion_heads[stage])
        weight = conv.weight.flatten(2).transpose(1, 2)  # (C, S, C'), S in raster order
        weight = unroll(weight, [1] * len(self.unit_grid), self.levels[stage : self.q_pool])
        x = x.unflatten(2, (weight.shape[2], -1)).transpose(2, 3)  # (B, K, L, S, C')
        return linear(x.flatten(3), weight.flatten(1), conv.bias)


def predicted_places(out: MAEOutput) -> Tensor:
    """Places of the predictions in `prediction_grid`, ascending in raster order: int64 ``(B, M)``.

    Args:
        out: the output of a model.
    """
    return true_places(out.predicted, out.prediction.shape[1])


def _init_weights(module: nn.Module) -> None:
    """Initialise as published, where biases start at 0, unlike those of a classifier."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    if isinstance(module, (nn.Linear, nn.LayerNorm)):
        nn.init.zeros_(module.bias)
