"""The Hiera encoder for images and videos.

Ryali et al., "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles", 2023,
arXiv:2306.00989. Names of arguments and of parameters are those of the published code, so that
published checkpoints load.

Legend: B batch, U mask units, L tokens of a unit, C channels, T' H' W' a grid of tokens.
Between embedding and head, tokens are ``(B, U, L, C)``, in the order of `token_order`.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hiera_video.models.architecture import block_shapes, geometry
from hiera_video.models.blocks import Head, HieraBlock, PatchEmbed, layer_norm
from hiera_video.models.token_order import join_units, reroll, unroll


class Hiera(nn.Module):
    """Hierarchical vision transformer for images and videos.

    Arguments that are None are as in the published models: for images where `input_size` has two
    numbers, for videos where it has three.

    Args:
        input_size: ``(height, width)`` or ``(frames, height, width)``; height and width multiples
            of 32, frames of 2 with the published strides.
        in_chans: channels of a pixel.
        embed_dim: channels of the first stage.
        num_heads: attention heads of the first stage.
        num_classes: outputs.
        stages: blocks of each stage.
        q_pool: transitions that pool, from the first; pretraining uses 2.
        q_stride: tokens that a transition makes one, along each axis.
        mask_unit_size: tokens of a mask unit along each axis.
        mask_unit_attn: stages that attend within mask units.
        dim_mul: factor on the channels at a transition.
        head_mul: factor on the heads at a transition.
        patch_kernel: of the patch embedding, along each axis.
        patch_stride: of the patch embedding.
        patch_padding: of the patch embedding.
        mlp_ratio: hidden channels of an MLP for each of its channels.
        drop_path_rate: stochastic depth of the last block, in [0, 1); the first has none.
        head_dropout: dropout before the classifier.
        head_init_scale: factor on the classifier's initial weights.
        sep_pos_embed: position embeddings of space and of time apart, summed.
        grad_checkpointing: keep only each block's input for backward; slower, much less memory.
            Also an attribute, to be switched at any time.

    Raises:
        ValueError: arguments that do not go together.

    Attributes:
        unit_grid: mask units along each axis.
        num_units: mask units of an input.
        stage_ends: index of each stage's last block.
        num_layers: layers for `layer_id`: depth + 2.
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
        """Classify.

        Args:
            video: float ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``, normalised.

        Returns:
            Logits ``(B, classes)``.

        Raises:
            ValueError: another shape, or integers.
        """
        tokens = self.encode(video, [len(self.stage_ends) - 1])[0]  # (B, U, L, C)
        return self.head(self.norm(tokens.mean(dim=(1, 2))))

    def forward_features(self, video: Tensor, return_stages: bool = False) -> Tensor | list[Tensor]:
        """Feature maps in spatial order, before the final norm.

        Args:
            video: as in `forward`.
            return_stages: the maps of all stages, not the last one alone.

        Returns:
            ``(B, T', H', W', C)``, images ``(B, H', W', C)``, or a list of one for each stage.
        """
        last = len(self.stage_ends) - 1
        wanted = range(last + 1) if return_stages else [last]
        tokens = self.encode(video, wanted)
        maps = [
            join_units(self.unit_maps(x, stage), self.unit_grid)
            for stage, x in zip(wanted, tokens, strict=True)
        ]
        return maps if return_stages else maps[0]

    def encode(
        self, video: Tensor, stages: Iterable[int], kept: Tensor | None = None
    ) -> list[Tensor]:
        """Run the blocks.

        Args:
            video: as in `forward`.
            stages: those whose tokens are wanted, in order.
            kept: int64 ``(B, K)``, ascending: the mask units that are seen. None: all.

        Returns:
            Tokens ``(B, K, L, C)`` at the end of each of `stages`.
        """
        x = self.embed(video, kept)  # (B, K, L, C)
        ends = {self.stage_ends[stage] for stage in stages}
        found = []
        for i, block in enumerate(self.blocks):
            x = self.run_block(block, x)
            if i in ends:
                found.append(x)
        return found

    def embed(self, video: Tensor, kept: Tensor | None = None) -> Tensor:
        """Pixels to tokens with position: ``(B, 3, T, H, W)`` to ``(B, K, L, C)``.

        Of hidden units nothing is seen, also not where the kernel of a kept unit reaches into them.
        """
        self._check_input(video)
        video = video.to(self.patch_embed.proj.weight.dtype)
        if kept is not None:
            video = self.hide_units(video, self.unit_mask(kept))
        x = self.patch_embed(video) + self.position_embedding()  # (B, T'*H'*W', C)
        x = unroll(x, self.unit_grid, self.levels)  # (B, U, L, C)
        if kept is not None:
            x = x.gather(1, kept[:, :, None, None].expand(-1, -1, *x.shape[2:]))  # (B, K, L, C)
        return x

    def unit_mask(self, kept: Tensor) -> Tensor:
        """Indices of kept units ``(B, K)`` as bool ``(B, U)``, True where kept."""
        mask = torch.zeros(len(kept), self.num_units, dtype=torch.bool, device=kept.device)
        return mask.scatter(1, kept, True)

    def hide_units(self, video: Tensor, mask: Tensor) -> Tensor:
        """Zero the pixels of hidden units.

        Args:
            video: ``(B, 3, T, H, W)``.
            mask: bool ``(B, U)``, True where kept.
        """
        split, grid = [], []
        for pixels, units in zip(video.shape[2:], self.unit_grid, strict=True):
            split += [units, pixels // units]
            grid += [units, 1]
        cells = video.reshape(*video.shape[:2], *split)  # (B, 3, Ut, t, Uh, h, Uw, w)
        hidden = ~mask.reshape(len(mask), 1, *grid)  # (B, 1, Ut, 1, Uh, 1, Uw, 1)
        return cells.masked_fill(hidden, 0).reshape(video.shape)  # (B, 3, T, H, W)

    def position_embedding(self) -> Tensor:
        """``(1, T'*H'*W', C)`` in raster order."""
        if not self.sep_pos_embed:
            return self.pos_embed
        space, time = self.pos_embed_spatial, self.pos_embed_temporal
        return (space[:, None] + time[:, :, None]).flatten(1, 2)  # (1, T', H'*W', C)

    def run_block(self, block: nn.Module, x: Tensor) -> Tensor:
        """One block, its activations kept or computed again in backward."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)  # type: ignore[return-value]
        return block(x)

    def unit_maps(self, x: Tensor, stage: int) -> Tensor:
        """Tokens at the end of a stage ``(B, K, L, C)`` as maps of units ``(B, K, t, h, w, C)``."""
        return reroll(x, self.levels[min(stage, self.q_pool) :])

    def layer_id(self, name: str) -> int:
        """Layer of a parameter, for layer-wise decay of the learning rate.

        Indexing as in PySlowFast and MAE: 0 for the embeddings, i + 1 for block i,
        ``num_layers - 1`` for all that follows the blocks.
        """
        if name.startswith(("patch_embed.", "pos_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers - 1

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone, besides those with one axis."""
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


def learned(places: int, dim: int) -> nn.Parameter:
    """A learned ``(1, places, dim)``, normal with deviation 0.02 at first."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, places, dim), std=0.02))


def _init_weights(module: nn.Module) -> None:
    """As published, where biases start at 0.02 as well, and those of norms."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, (nn.Linear, nn.LayerNorm)):
        nn.init.constant_(module.bias, 0.02)
