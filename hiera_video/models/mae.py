"""Masked autoencoder with a Hiera encoder (Hiera, appendix A; MAE, arXiv:2111.06377).

Legend: B batch, U mask units, K of them kept, C channels, t h w the tokens of a unit at the last
stage, P predictions (one for each token of the last stage), M of them masked, D numbers of each.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from hiera_video.models.architecture import BlockShape
from hiera_video.models.blocks import HieraBlock, layer_norm
from hiera_video.models.hiera import Hiera, learned
from hiera_video.models.masks import check_num_kept, num_kept, random_units
from hiera_video.models.targets import make_target
from hiera_video.models.token_order import join_units


class MAEOutput(NamedTuple):
    """What a masked autoencoder returns.

    Attributes:
        loss: float32 scalar, the mean squared error over masked predictions.
        prediction: ``(B, M, D)`` at the masked places, in raster order.
        target: float32 ``(B, M, D)``.
        mask: bool ``(B, U)``, True where a unit was kept.
        predicted: bool ``(B, P)``, True where a prediction is in the loss.
    """

    loss: Tensor
    prediction: Tensor
    target: Tensor
    mask: Tensor
    predicted: Tensor


class MaskedAutoencoderHiera(Hiera):
    """Hide mask units, encode the others, reconstruct what was hidden.

    Args:
        input_size: as in `Hiera`.
        decoder_embed_dim: channels of the decoder.
        decoder_depth: its blocks.
        decoder_num_heads: its heads; None: 8 for videos, 16 for images (paper, tables 11 and 14).
            The published code has 16 for both; the weights have the same shapes.
        q_pool: transitions that pool.
        target: what is reconstructed, a name in `targets.TARGETS`.
        mlp_ratio: of encoder and decoder.
        **encoder: further arguments of `Hiera`.

    Raises:
        ValueError: arguments that do not go together.

    Attributes:
        unit_grid: mask units along each axis.
        num_units: U, mask units of an input, in raster order with time slowest.
        num_predictions: P.
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
        heads = (8 if self.is_video else 16) if decoder_num_heads is None else decoder_num_heads
        if heads < 1 or decoder_embed_dim % heads:
            raise ValueError(f"{decoder_embed_dim} channels do not divide into {heads} heads")
        pooled = [s**q_pool for s in self.geometry.q_stride]
        self.final_unit = [u // p for u, p in zip(self.geometry.unit, pooled, strict=True)]
        self.num_predictions = self.num_units * math.prod(self.final_unit)
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
    ) -> MAEOutput:
        """Hide, encode, reconstruct.

        Args:
            video: normalised float ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.
            mask_ratio: share of units hidden, in (0, 1); None: 0.9 for videos, 0.6 for images.
            mask: which units are kept, instead of a random choice: bool ``(B, U)``, True where
                kept, as many in each row; or int64 ``(B, K)``, distinct indices in any order. The
                latter never waits for the device and compiles into one graph.
            generator: of the random choice.

        Raises:
            ValueError: another input shape, or a mask that does not fit.
        """
        self._check_input(video)
        kept = self._kept(video, mask_ratio, mask, generator)  # (B, K)
        unit_mask = self.unit_mask(kept)  # (B, U)
        predicted = self._predicted(unit_mask)  # (B, P)
        num_masked = self.num_predictions - kept.shape[1] * math.prod(self.final_unit)  # M
        where = _true_places(predicted, num_masked)  # (B, M)
        x = self.decode(self.encode_fused(video, kept), kept)  # (B, P, C)
        x = x.gather(1, where[:, :, None].expand(-1, -1, x.shape[-1]))  # (B, M, C)
        prediction = self.decoder_pred(self.decoder_norm(x))  # (B, M, D)
        target = self.target(video, where)  # (B, M, D)
        loss = (prediction.float() - target).square().mean()
        return MAEOutput(loss, prediction, target, unit_mask, predicted)

    def encode_fused(self, video: Tensor, kept: Tensor) -> Tensor:
        """Encode kept units and sum the stages at the resolution of the last (paper, table 3a).

        Args:
            video: as in `forward`.
            kept: int64 ``(B, K)``, ascending.

        Returns:
            ``(B, K, t, h, w, C)``, images ``(B, K, h, w, C)``, normed.
        """
        stages = [*range(self.q_pool), len(self.stage_ends) - 1]
        tokens = self.encode(video, stages, kept)
        *early, last = [self.unit_maps(x, s) for x, s in zip(tokens, stages, strict=True)]
        fused = last.float()  # sums of half precision would lose the small terms
        for head, x in zip(self.multi_scale_fusion_heads, early, strict=True):
            x = head(x.flatten(0, 1).movedim(-1, 1))  # (B*K, C, t, h, w)
            fused = fused + x.movedim(1, -1).unflatten(0, kept.shape).float()
        return self.encoder_norm(fused.to(self.encoder_norm.weight.dtype))

    def decode(self, x: Tensor, kept: Tensor) -> Tensor:
        """Put mask tokens where units are hidden, and run the decoder's blocks.

        Args:
            x: ``(B, K, t, h, w, C)`` of `encode_fused`.
            kept: int64 ``(B, K)``, ascending.

        Returns:
            ``(B, P, C)`` in raster order.
        """
        x = self.decoder_embed(x).to(self.mask_token.dtype)
        index = kept.reshape(*kept.shape, *[1] * (x.ndim - 2)).expand_as(x)
        units = self.mask_token.reshape([1] * (x.ndim - 1) + [-1])
        units = units.expand(len(x), self.num_units, *x.shape[2:])  # (B, U, t, h, w, C)
        x = join_units(units.scatter(1, index, x), self.unit_grid).flatten(1, -2)  # (B, P, C)
        x = (x + self.decoder_pos_embed)[:, None]  # (B, 1, P, C): one unit, as blocks want it
        for block in self.decoder_blocks:
            x = self.run_block(block, x)
        return x[:, 0]

    @torch.no_grad()
    def reconstruct(self, video: Tensor, out: MAEOutput) -> Tensor:
        """Paint predictions into a copy of the video.

        Normalised predictions get each patch's own mean and variance back. What is not predicted
        (patches that were kept, the second frame of each two) stays as in the video.

        Args:
            video: what `forward` got.
            out: what it returned.

        Returns:
            As `video`.

        Raises:
            ValueError: what is predicted is no picture (``target="hog"``).
        """
        where = _true_places(out.predicted, out.prediction.shape[1])
        return self.target.paint(video, where, out.prediction)

    def num_kept(self, mask_ratio: float | None = None, mask: str = "random") -> int:
        """Units kept at a mask ratio; None: 0.9 for videos, 0.6 for images.

        Args:
            mask_ratio: share of units hidden, in (0, 1).
            mask: a name in `masks.MASKS`.

        Raises:
            ValueError: as `masks.num_kept`.
        """
        ratio = (0.9 if self.is_video else 0.6) if mask_ratio is None else mask_ratio
        return num_kept(mask, self.unit_grid, ratio)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, besides those with one axis."""
        return super().no_weight_decay() | {"mask_token", "decoder_pos_embed"}

    def _kept(
        self,
        video: Tensor,
        mask_ratio: float | None,
        mask: Tensor | None,
        generator: Generator | None,
    ) -> Tensor:
        """Ascending indices of kept units, int64 ``(B, K)``."""
        if mask is None:
            device = video.device if generator is None else generator.device
            noise = torch.rand(len(video), self.num_units, generator=generator, device=device)
            return random_units(noise, self.num_kept(mask_ratio)).to(video.device)
        if mask_ratio is not None:
            raise ValueError("give mask_ratio or mask, not both")
        if mask.ndim != 2 or len(mask) != len(video) or mask.dtype not in (torch.bool, torch.int64):
            raise ValueError(
                f"mask must be bool ({len(video)}, {self.num_units}) or int64 indices "
                f"({len(video)}, K), got {mask.dtype} {tuple(mask.shape)}"
            )
        if mask.dtype == torch.int64:
            check_num_kept(mask.shape[1], self.num_units)
            return mask.to(video.device).sort(dim=1).values
        return self._kept_of_bool(mask).to(video.device)

    def _kept_of_bool(self, mask: Tensor) -> Tensor:
        if mask.shape[1] != self.num_units:
            raise ValueError(f"mask must have {self.num_units} units a row, not {mask.shape[1]}")
        counts = mask.sum(dim=1).tolist()
        if len(set(counts)) != 1:
            raise ValueError(f"mask must keep as many units in each row, not {counts}")
        check_num_kept(counts[0], self.num_units)
        return _true_places(mask, counts[0])

    def _predicted(self, mask: Tensor) -> Tensor:
        """Kept units ``(B, U)`` to predictions in the loss, bool ``(B, P)``."""
        ones = [1] * len(self.final_unit)
        hidden = ~mask.reshape(*mask.shape, *ones, 1)  # (B, U, 1, 1, 1, 1)
        hidden = hidden.expand(*mask.shape, *self.final_unit, 1)  # (B, U, t, h, w, 1)
        return join_units(hidden, self.unit_grid).flatten(1)  # (B, P)

    def _fusion_head(self, stage: int, dim: int) -> nn.Module:
        """Convolution from a unit's map at the end of a stage to its map at the last."""
        stride = tuple(s ** (self.q_pool - stage) for s in self.geometry.q_stride)
        conv = nn.Conv3d if self.is_video else nn.Conv2d
        return conv(self.stage_dims[stage], dim, stride, stride)


def _true_places(mask: Tensor, count: int) -> Tensor:
    """Ascending places of the `count` True of each row: int64 ``(B, count)``, without a sync."""
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]


def _init_weights(module: nn.Module) -> None:
    """As published: unlike a classifier's, biases start at 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    if isinstance(module, (nn.Linear, nn.LayerNorm)):
        nn.init.zeros_(module.bias)
