"""The Hiera encoder for images and videos.

Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", 2023,
arXiv:2306.00989. Arguments and parameters have the names of the published code, so that published
checkpoints load.

Legend: B batch, U mask units, L tokens of a unit, C channels, T' H' W' a grid of tokens.
Between embedding and head, tokens are ``(B, U, L, C)``, in the order of `token_order`.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hiera_video.models.architecture import block_shapes, geometry
from hiera_video.models.blocks import Head, HieraBlock, autocast_type, layer_norm, learned
from hiera_video.models.patch_embed import PatchEmbed
from hiera_video.models.token_order import join_units, reroll, unroll


class Hiera(nn.Module):
    """Hierarchical vision transformer for images and videos.

    Arguments that are None take the values of the published models: those for images if
    `input_size` has two numbers, those for videos if it has three.

    Args:
        input_size: ``(height, width)`` or ``(frames, height, width)`` in pixels. With the published
            strides, height and width are multiples of 32, and frames of 2.
        in_chans: channels of a pixel.
        embed_dim: channels of the first stage.
        num_heads: attention heads of the first stage.
        num_classes: number of logits.
        stages: number of blocks in each stage.
        q_pool: number of stage transitions that pool, from the first; pretraining uses 2.
        q_stride: tokens that a pooling merges into one, along each axis.
        mask_unit_size: tokens of a mask unit, along each axis.
        mask_unit_attn: for each stage, whether it attends within mask units.
        dim_mul: factor on the channels at a transition.
        head_mul: factor on the heads at a transition.
        patch_kernel: kernel of the patch embedding in pixels, along each axis.
        patch_stride: its stride.
        patch_padding: its padding.
        mlp_ratio: hidden channels of an MLP, as a multiple of its channels.
        drop_path_rate: probability, in [0, 1), that stochastic depth skips the last block; it grows
            linearly from 0 at the first.
        head_dropout: probability of dropout before the classifier.
        head_init_scale: factor on the classifier's initial weights.
        sep_pos_embed: sum two position embeddings, of space and of time.
        grad_checkpointing: keep only the input of each block for the backward pass: slower, with
            much less memory. Also an attribute that may be switched at any time.

    Raises:
        ValueError: arguments that do not go together.

    Attributes:
        unit_grid: number of mask units along each axis.
        num_units: number of mask units in an input.
        stage_ends: index of the last block of each stage.
        stage_dims: channels at the end of each stage.
        num_layers: number of layers that `layer_id` tells apart: blocks + 2.
    """

    def __init__(
        self,
        input_size: Sequence[int] = (224, 224),
        in_chans: int = 3,
        embed_dim: int = 96,
        num_heads: int = 1,
        num_classes: int = 1000,
        stages: Sequence[int] = (2, 3, 16, 3),
        q_pool: int = 3,
        q_stride: Sequence[int] | None = None,
        mask_unit_size: Sequence[int] | None = None,
        mask_unit_attn: Sequence[bool] = (True, True, False, False),
        dim_mul: float = 2.0,
        head_mul: float = 2.0,
        patch_kernel: Sequence[int] | None = None,
        patch_stride: Sequence[int] | None = None,
        patch_padding: Sequence[int] | None = None,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        head_dropout: float = 0.0,
        head_init_scale: float = 0.001,
        sep_pos_embed: bool | None = None,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        numbers = {"in_chans": in_chans, "num_classes": num_classes, "mlp_ratio": mlp_ratio}
        for name, number in numbers.items():
            if number <= 0:
                raise ValueError(f"{name} must be positive, not {number}")
        shape = geometry(
            input_size,
            q_pool,
            q_stride,
            mask_unit_size,
            patch_kernel,
            patch_stride,
            patch_padding,
            sep_pos_embed,
        )
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be in [0, 1), not {drop_path_rate}")
        self.geometry, self.in_chans, self.q_pool = shape, in_chans, q_pool
        self.input_size, self.patch_stride = shape.input_size, shape.patch_stride
        self.unit_grid, self.levels = shape.unit_grid, shape.levels
        self.num_units = math.prod(shape.unit_grid)
        self.grad_checkpointing = grad_checkpointing

        self.patch_embed = PatchEmbed(
            in_chans, embed_dim, shape.patch_kernel, shape.patch_stride, shape.patch_padding
        )
        self.sep_pos_embed = shape.sep_pos_embed
        if self.sep_pos_embed:
            time, *space = shape.tokens
            self.pos_embed_spatial = learned(math.prod(space), embed_dim)
            self.pos_embed_temporal = learned(time, embed_dim)
        else:
            self.pos_embed = learned(math.prod(shape.tokens), embed_dim)

        blocks = block_shapes(
            stages, embed_dim, num_heads, q_pool, shape.q_stride, mask_unit_attn, dim_mul, head_mul
        )
        step = drop_path_rate / max(1, len(blocks) - 1)
        self.blocks = nn.ModuleList(
            HieraBlock(block, mlp_ratio, drop_path=i * step) for i, block in enumerate(blocks)
        )
        self.stage_ends = [sum(stages[: i + 1]) - 1 for i in range(len(stages))]
        self.stage_dims = [blocks[end].dim_out for end in self.stage_ends]
        self.num_layers = len(blocks) + 2

        self.norm = layer_norm(self.stage_dims[-1])
        self.head = Head(self.stage_dims[-1], num_classes, head_dropout)
        self.apply(_init_weights)
        with torch.no_grad():
            self.head.projection.weight.mul_(head_init_scale)
            self.head.projection.bias.mul_(head_init_scale)

    def forward(self, video: Tensor) -> Tensor:
        """Compute logits.

        Args:
            video: normalised float ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.

        Returns:
            Logits ``(B, classes)``. In evaluation they have the type of the weights, also under
            autocast.

        Raises:
            ValueError: another shape than `input_size`, or integers.
        """
        tokens = self.encode(video, [len(self.stage_ends) - 1])[0]  # (B, U, L, C)
        pooled = tokens.mean(dim=(1, 2), dtype=self.norm.weight.dtype)  # (B, C)
        return self.head(self.norm(pooled))

    def forward_features(self, video: Tensor, return_stages: bool = False) -> Tensor | list[Tensor]:
        """Compute feature maps in raster order, before the final norm.

        Args:
            video: as in `forward`.
            return_stages: return the maps of all stages, not only the last.

        Returns:
            ``(B, T', H', W', C)``, images ``(B, H', W', C)``; or a list of one for each stage.

        Raises:
            ValueError: as `forward`.
        """
        last = len(self.stage_ends) - 1
        wanted = range(last + 1) if return_stages else [last]
        maps = self.stage_maps(video, wanted)
        return maps if return_stages else maps[0]

    def stage_maps(self, video: Tensor, stages: Sequence[int]) -> list[Tensor]:
        """The maps of `forward_features` at the end of each of ``stages``, ascending indices."""
        maps = map(self.unit_maps, self.encode(video, stages), stages)  # (B, U, t, h, w, C)
        return [join_units(x, self.unit_grid) for x in maps]

    def encode(
        self, video: Tensor, stages: Iterable[int], kept: Tensor | None = None
    ) -> list[Tensor]:
        """Run the blocks.

        Args:
            video: as in `forward`.
            stages: indices of the stages whose tokens are returned, ascending.
            kept: indices of the mask units that are seen, int64 ``(B, K)``, ascending. None: all.

        Returns:
            Tokens ``(B, K, L, C)`` at the end of each of `stages`, not normed.

        Raises:
            ValueError: as `forward`.
        """
        x = self.embed(video, kept)  # (B, K, L, C)
        ends = {self.stage_ends[stage] for stage in stages}
        tokens = []
        for i, block in enumerate(self.blocks):
            x = self.run_block(block, x)
            if i in ends:
                tokens.append(x)
        return tokens

    def embed(self, video: Tensor, kept: Tensor | None = None) -> Tensor:
        """Turn pixels into tokens and add their positions: ``(B, 3, T, H, W)`` to ``(B, K, L, C)``.

        Nothing of a hidden unit is seen, not even by kernels that reach into it from a kept one.

        Args:
            video: as in `forward`.
            kept: as in `encode`.

        Raises:
            ValueError: as `forward`.
        """
        self._check_input(video)
        weight = self.patch_embed.proj.weight
        video = video.to(autocast_type(weight.device) or weight.dtype)
        positions = self.position_embedding()  # (1, T'*H'*W', C)
        if kept is None:
            return unroll(self.patch_embed(video) + positions, self.unit_grid, self.levels)
        x = self.patch_embed.units(video, kept, self.unit_grid)  # (B, K, t, h, w, C)
        x = unroll(x.flatten(0, 1).flatten(1, -2), [1] * len(self.unit_grid), self.levels)
        x = x.reshape(*kept.shape, *x.shape[2:])  # (B, K, L, C)
        return x + unroll(positions, self.unit_grid, self.levels)[0][kept]

    def unit_mask(self, kept: Tensor) -> Tensor:
        """Turn indices of kept units, int64 ``(B, K)``, into bool ``(B, U)``, True where kept."""
        mask = torch.zeros(len(kept), self.num_units, dtype=torch.bool, device=kept.device)
        return mask.scatter(1, kept, True)

    def position_embedding(self) -> Tensor:
        """The learned embedding of all places, ``(1, T'*H'*W', C)``, in raster order."""
        if not self.sep_pos_embed:
            return self.pos_embed
        space, time = self.pos_embed_spatial, self.pos_embed_temporal
        return (space[:, None] + time[:, :, None]).flatten(1, 2)  # (1, T', H'*W', C)

    def run_block(self, block: nn.Module, x: Tensor) -> Tensor:
        """Run one block; with `grad_checkpointing` the backward pass recomputes its activations.

        Args:
            block: a `HieraBlock` that takes C channels.
            x: tokens, ``(B, K, L, C)``, with L tokens in each of K mask units.

        Returns:
            ``(B, K, L', C')``, as the block pools and widens them.
        """
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)  # type: ignore[return-value]
        return block(x)

    def unit_maps(self, x: Tensor, stage: int) -> Tensor:
        """Put the tokens of a stage ``(B, K, L, C)`` in raster order: ``(B, K, t, h, w, C)``."""
        return reroll(x, self.levels[min(stage, self.q_pool) :])

    def layer_id(self, name: str) -> int:
        """Number of the layer that a parameter belongs to, for layer-wise learning rate decay.

        As in PySlowFast and MAE: 0 for the embeddings, i + 1 for block i, ``num_layers - 1`` for
        everything after the blocks.

        Args:
            name: of the parameter, as in ``named_parameters``.
        """
        if name.startswith(("patch_embed.", "pos_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers - 1

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, besides biases and norms (one axis)."""
        return {name for name, _ in self.named_parameters() if name.startswith("pos_embed")}

    def _check_input(self, video: Tensor) -> None:
        expected = (self.in_chans, *self.input_size)
        if tuple(video.shape[1:]) != expected:
            raise ValueError(
                f"expected an input of shape (B, {', '.join(map(str, expected))}), "
                f"got {tuple(video.shape)}"
            )
        if not video.is_floating_point():
            raise ValueError(f"expected a normalised float input, got {video.dtype}")


def _init_weights(module: nn.Module) -> None:
    """Initialise as published, where all biases start at 0.02, those of norms included."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, (nn.Linear, nn.LayerNorm)):
        nn.init.constant_(module.bias, 0.02)
