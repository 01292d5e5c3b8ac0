"""``hiera-video models heads``: with how many decoder heads was a masked autoencoder trained?

The shapes of the weights do not depend on the number of heads. The published code builds video
decoders with 16 heads, the paper (tables 11 and 12) says 8. The number used in training
reconstructs clearly better.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.clips.videos import ClipFormat, clips_of_views
from datamodules.errors import DatasetError
from datamodules.manifests.splits import Manifest, list_videos
from datamodules.video.opening import open_media
from hiera_video.augment.basic import MASK_STREAM, Normalize
from hiera_video.augment.random import uniform
from hiera_video.errors import CheckpointError, UsageError
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.masks import random_units
from hiera_video.terminal import progress_line
from hiera_video.weights.portable import build
from hiera_video.weights.trained import read_trained

MIN_VIDEOS = 5  # for a standard error that means something


class Comparison(NamedTuple):
    """Reconstruction losses with two numbers of decoder heads.

    Attributes:
        losses: float64 ``(videos, clips, masks, 2)``; the last axis is the number of heads.
        heads: the two numbers.
    """

    losses: Tensor
    heads: tuple[int, int]

    def summary(self) -> dict[str, Any]:
        """Mean losses with standard errors over videos, and which number of heads is better.

        Masks of a clip and clips of a video are correlated, so the mean of each video is one
        observation.

        Returns:
            ``heads``: ``loss`` and ``standard_error`` for each number; ``difference`` (first minus
            second) and ``difference_standard_error``; ``first_is_lower_in``: number of videos;
            ``videos``, ``clips`` and ``cases``: how many there were; ``lower``: the number of heads
            with the lower loss, None if equal. Standard errors are None for a single video.
        """
        videos, clips, masks, _ = self.losses.shape
        pairs = self.losses.mean(dim=(1, 2))  # (videos, 2)
        difference = pairs[:, 0] - pairs[:, 1]
        mean, error = _mean_and_error(difference)
        lower = self.heads[int(mean > 0)] if mean else None
        return {
            "heads": {
                str(n): dict(zip(("loss", "standard_error"), _mean_and_error(x), strict=True))
                for n, x in zip(self.heads, pairs.unbind(1), strict=True)
            },
            "difference": mean,
            "difference_standard_error": error,
            "first_is_lower_in": int((difference < 0).sum()),
            "videos": videos,
            "clips": videos * clips,
            "cases": videos * clips * masks,
            "lower": lower,
        }


def run(words: Sequence[str]) -> None:
    """Print the losses with both numbers of heads, and which one is better.

    Raises:
        UserError: wrong usage, weights or videos.
    """
    arguments = _parser().parse_intermixed_args(words)  # options may stand before the videos
    heads = tuple(arguments.heads)
    if heads[0] == heads[1]:
        raise UsageError(f"--heads {heads[0]} {heads[1]}: expected two different numbers")
    mae, clip, normalize = _read(arguments.weights)
    videos = list_videos(arguments.videos, _no_lists)
    _check_request(mae, heads, arguments.mask_ratio)
    with progress_line("heads", "videos") as show:
        comparison = compare_heads(
            mae.to("cuda" if torch.cuda.is_available() else "cpu"),
            _clips(videos, clip, arguments.clips, show),
            heads,
            arguments.masks,
            arguments.seed,
            normalize,
            arguments.mask_ratio,
        )
    summary = comparison.summary()
    print(json.dumps(summary, indent=2) if arguments.json else describe(summary))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiera-video models heads",
        description="Reconstruct masked clips with two numbers of decoder heads, on the same masks "
        "and with the loss of pretraining, and tell which is better. Standard errors are over "
        f"videos: name {MIN_VIDEOS} or more.",
    )
    add = parser.add_argument
    add("weights", help="published name such as mae_hiera_base_16x224, its file, or a run")
    add("videos", nargs="+", metavar="VIDEO", help="files and folders")
    add("--heads", nargs=2, type=_positive, default=(8, 16), metavar="N", help="default: 8 16")
    add("--clips", type=_positive, default=2, metavar="N", help="per video; default 2")
    add("--masks", type=_positive, default=2, metavar="N", help="per clip; default 2")
    add("--seed", type=int, default=0, help="of the masks; default 0")
    add("--mask-ratio", type=float, metavar="R", help="hidden share of mask units; default 0.9")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _check_request(
    mae: MaskedAutoencoderHiera, heads: tuple[int, int], mask_ratio: float | None
) -> None:
    channels = mae.decoder_embed.out_features
    if wrong := [n for n in heads if channels % n]:
        raise UsageError(f"{channels} decoder channels cannot be divided into {wrong[0]} heads")
    try:
        mae.num_kept(mask_ratio)
    except ValueError as error:
        raise UsageError(f"--mask-ratio {mask_ratio}: {error}") from error


@torch.no_grad()
def compare_heads(
    mae: MaskedAutoencoderHiera,
    videos: Iterable[Tensor],
    heads: tuple[int, int],
    masks: int,
    seed: int,
    normalize: Normalize,
    mask_ratio: float | None = None,
) -> Comparison:
    """Compute the losses with both numbers of heads on the same clips and masks.

    Args:
        mae: a masked autoencoder of videos; it is left with the second number of heads.
        videos: the clips of each video, uint8 ``(clips, 3, T, H, W)``, equally many of each.
        heads: two numbers of decoder heads.
        masks: number of random masks per clip.
        seed: of the masks, 0 or more; a mask depends on it and on the index of the clip only.
        normalize: the normalisation of pretraining.
        mask_ratio: see `MaskedAutoencoderHiera.num_kept`.

    Raises:
        CheckpointError: a loss is NaN or infinite.
    """
    mae, device = mae.eval(), mae.mask_token.device
    video_losses = []
    for v, clips in enumerate(videos):
        clip_losses = []
        for c, clip in enumerate(clips):
            seeds = torch.arange(masks) + (seed * 1_000_003 + v * len(clips) + c) * masks
            noise = uniform(seeds, mae.num_units, MASK_STREAM)
            kept = random_units(noise, mae.num_kept(mask_ratio)).to(device)  # (masks, K)
            clip_losses.append(_losses(mae, normalize(clip[None]).to(device), kept, heads))
        video_losses.append(torch.stack(clip_losses))
    losses = torch.stack(video_losses)  # (videos, clips, masks, 2)
    if not losses.isfinite().all():
        raise CheckpointError("the weights give losses that are NaN or infinite")
    return Comparison(losses, heads)


def _losses(
    mae: MaskedAutoencoderHiera, clip: Tensor, kept: Tensor, heads: tuple[int, int]
) -> Tensor:
    """Losses float64 ``(masks, 2)`` of a clip ``(1, 3, T, H, W)`` with masks ``(masks, K)``."""
    video = clip.expand(len(kept), -1, -1, -1, -1)
    losses = []
    for n in heads:
        set_decoder_heads(mae, n)
        out = mae(video, mask=kept)
        errors = (out.prediction.float() - out.target).square()  # (masks, M, D)
        losses.append(errors.mean(dim=(1, 2)).double().cpu())
    return torch.stack(losses, dim=1)


def set_decoder_heads(mae: MaskedAutoencoderHiera, heads: int) -> None:
    """Change the number of attention heads of the decoder; the weights stay the same."""
    for block in mae.decoder_blocks:
        attention: Any = block.attn
        attention.heads = heads


def describe(summary: dict[str, Any]) -> str:
    """Describe a `Comparison.summary` in a few lines."""
    lines = [
        f"{n:>3} heads  loss {mean['loss']:.4f} ± {_error(mean['standard_error'])}"
        for n, mean in summary["heads"].items()
    ]
    first, second = summary["heads"]
    difference, error = summary["difference"], summary["difference_standard_error"]
    lines.append(
        f"{first} minus {second}: {difference:+.4f} ± {_error(error)}, {first} is lower in "
        f"{summary['first_is_lower_in']} of {summary['videos']} videos ({summary['clips']} clips)"
    )
    if error is None or summary["videos"] < MIN_VIDEOS:
        return "\n".join([*lines, f"undecided: it takes {MIN_VIDEOS} videos or more"])
    if not abs(difference) > 3 * error:
        return "\n".join([*lines, "undecided: less than three standard errors apart"])
    return "\n".join([*lines, f"{summary['lower']} heads reconstruct better"])


def _read(source: str) -> tuple[MaskedAutoencoderHiera, ClipFormat, Normalize]:
    trained = read_trained(source)
    description = trained.description
    if description.kind != "masked_autoencoder" or description.clip is None:
        raise CheckpointError(f"{source}: not a masked autoencoder of videos")
    mae = build(description, trained.weights)
    normalize = Normalize(description.mean, description.std)  # pyright: ignore[reportArgumentType]
    return mae, ClipFormat.of(description.clip), normalize


def _clips(videos: Manifest, clip: ClipFormat, count: int, show: Any) -> Iterator[Tensor]:
    """Centre crops of each video at equal steps in time: uint8 ``(clips, 3, T, H, W)``."""
    for i in range(len(videos)):
        with open_media(videos.source(i)) as file:
            views = clips_of_views(file, clip, count, 1)
        yield torch.from_numpy(views).permute(0, 4, 1, 2, 3)
        show(i + 1, len(videos))


def _mean_and_error(x: Tensor) -> tuple[float, float | None]:
    """Mean of x ``(n,)`` and its standard error; None for a single observation."""
    error = float(x.std()) / math.sqrt(len(x)) if len(x) > 1 else None
    return float(x.mean()), error


def _error(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _no_lists(file: Any) -> Manifest:
    raise DatasetError(f"{file}: name videos or folders of them, not a list")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
