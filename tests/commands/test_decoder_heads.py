"""The command that compares numbers of decoder heads."""

import json
import sys

import numpy as np
import pytest
import torch

from datamodules.clips.videos import ClipFormat, clips_of_views
from datamodules.video.decoding import VideoFile
from hiera_video import cli
from hiera_video.augment.basic import MASK_STREAM, Normalize
from hiera_video.augment.random import uniform
from hiera_video.commands.decoder_heads import Comparison, compare_heads, describe, run
from hiera_video.errors import CheckpointError, UserError
from tests.models.conftest import _one_thread  # noqa: F401
from tests.models.small import tiny_mae, tiny_model
from tests.trained_models import CLASSES, checkpoint, config
from tests.video_files import moving_frames, write_video

FORMAT = ClipFormat(num_frames=4, stride=2, fps=30, height=64, width=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos, and the run of a masked autoencoder of 4 decoder heads."""
    folder = tmp_path_factory.mktemp("heads")
    (folder / "videos").mkdir()
    for i in range(2):
        write_video(folder / "videos" / f"{i}.mp4", moving_frames(20, seed=i))
    torch.save(checkpoint(tiny_mae(), config("create_mae")), folder / "mae.ckpt")
    classifier = checkpoint(tiny_model(), config(), class_names=CLASSES)
    torch.save(classifier, folder / "classifier.ckpt")
    return folder


def clips(folder):
    """Two clips of each of the two videos."""
    videos = []
    for i in range(2):
        with VideoFile(folder / "videos" / f"{i}.mp4") as file:
            videos.append(torch.from_numpy(np.moveaxis(clips_of_views(file, FORMAT, 2, 1), -1, 1)))
    return videos


def test_losses_are_those_of_the_model(folder, capsys):
    words = [str(folder / "mae.ckpt"), str(folder / "videos"), "--mask-ratio", "0.5"]
    run([*words, "--heads", "2", "8", "--seed", "3", "--json"])
    summary = json.loads(capsys.readouterr().out)
    for heads in (2, 8):  # a model for each number, and the loss that it gives itself
        mae = tiny_mae(decoder_num_heads=heads)
        losses = []
        for i, clip in enumerate(torch.cat(clips(folder))):
            for mask in range(2):
                seed = torch.tensor([(3 * 1_000_003 + i) * 2 + mask])
                kept = uniform(seed, 8, MASK_STREAM).argsort()[:, :4]
                losses.append(mae(Normalize()(clip[None]), mask=kept).loss.item())
        assert summary["heads"][str(heads)]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
        of_videos = np.reshape(losses, (2, 4)).mean(axis=1)  # two clips of two masks
        error = np.std(of_videos, ddof=1) / 2**0.5
        assert summary["heads"][str(heads)]["standard_error"] == pytest.approx(error, rel=1e-3)
    assert (summary["videos"], summary["clips"], summary["cases"]) == (2, 4, len(losses))
    assert abs(summary["difference"]) > 1e-4


def test_number_of_heads_that_predicts_the_clip_wins(folder):
    """Targets are what the decoder predicts with 4 heads, so that number has no error."""
    mae, truth = tiny_mae(), tiny_mae(decoder_num_heads=4)
    original = type(mae).forward

    def forward(video, mask):
        out = original(mae, video, mask=mask)
        return out._replace(target=truth(video, mask=mask).prediction)

    mae.forward = forward
    videos = torch.cat(clips(folder) * 2)[:5, None]  # five, of one clip each
    for heads in ((4, 8), (8, 4)):
        summary = compare_heads(mae, videos, heads, 2, 0, Normalize(), 0.5).summary()
        assert summary["heads"]["4"]["loss"] == 0
        assert summary["heads"]["8"]["loss"] > 0
        assert summary["lower"] == 4
        assert "4 heads reconstruct better" in describe(summary)


def test_statistics():
    generator = np.random.default_rng(0)
    losses = generator.normal(size=(6, 3, 4, 2)) + generator.normal(size=(6, 1, 1, 2))
    losses[..., 1] += 0.5
    summary = Comparison(torch.from_numpy(losses), (8, 16)).summary()
    first, second = losses.mean(axis=(1, 2)).T  # a video is one observation
    root = np.sqrt(6)
    for heads, x in (("8", first), ("16", second)):
        assert summary["heads"][heads]["loss"] == pytest.approx(x.mean())
        assert summary["heads"][heads]["standard_error"] == pytest.approx(x.std(ddof=1) / root)
    assert summary["difference"] == pytest.approx((first - second).mean())
    error = (first - second).std(ddof=1) / root
    assert summary["difference_standard_error"] == pytest.approx(error)
    assert summary["first_is_lower_in"] == (first < second).sum()
    assert (summary["videos"], summary["clips"], summary["cases"]) == (6, 18, 72)


def test_clips_and_masks_of_the_same_videos_decide_nothing():
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(6, 1, 1, 2, generator=generator, dtype=torch.float64)
    once = Comparison(losses, (8, 16)).summary()
    often = Comparison(losses.expand(6, 10, 10, 2), (8, 16)).summary()
    for key in ("difference", "difference_standard_error"):
        assert often[key] == pytest.approx(once[key])
    assert "undecided: less than three" in describe(often)


def test_verdict():
    losses = torch.tensor([1.0, 2.0]).expand(5, 3, 2, 2).double()
    assert describe(Comparison(losses, (8, 16)).summary()).endswith("8 heads reconstruct better")
    few = describe(Comparison(losses[:4], (8, 16)).summary())
    assert few.endswith("undecided: it takes 5 videos or more")
    equal = Comparison(torch.ones(5, 1, 1, 2).double(), (8, 16)).summary()
    assert equal["lower"] is None
    assert "undecided: less than three" in describe(equal)


def test_one_video_has_no_error(folder, capsys):
    words = [str(folder / "mae.ckpt"), str(folder / "videos" / "0.mp4"), "--mask-ratio", "0.5"]
    run([*words, "--json", "--clips", "1", "--masks", "1"])

    def refuse(constant):
        raise AssertionError(constant)

    summary = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert summary["difference_standard_error"] is None
    assert summary["heads"]["8"]["standard_error"] is None
    run(words)
    text = capsys.readouterr().out
    assert "± unknown" in text
    assert "undecided" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mae.ckpt", "videos", "--heads", "3", "8"], "32 decoder channels .* into 3 heads"),
        (["mae.ckpt", "videos"], "0 of 8 mask units would be kept"),
        (["classifier.ckpt", "videos"], "not a masked autoencoder of videos"),
        (["mae.ckpt", "nothing"], "no such file or folder"),
        (["absent", "videos"], "no such run, file or published model"),
        (
            ["mae.ckpt", "videos", "--heads", "8", "8"],
            "8 8: expected two different numbers",
        ),
    ],
)
def test_wrong_usage(folder, words, message, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as error:
        run(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x"])
def test_numbers_must_be_positive(number, capsys):
    with pytest.raises(SystemExit):
        run(["mae.ckpt", "videos", f"--clips={number}"])
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith(f"argument --clips: '{number}' is not a whole number above 0")


def test_losses_that_are_not_finite_are_refused(folder, tmp_path):
    mae = tiny_mae()
    torch.nn.init.constant_(mae.decoder_pred.bias, 1e30)  # finite, but not its square
    torch.save(checkpoint(mae, config("create_mae")), tmp_path / "mae.ckpt")
    with pytest.raises(CheckpointError, match="losses that are NaN or infinite"):
        run([str(tmp_path / "mae.ckpt"), str(folder / "videos"), "--mask-ratio", "0.5"])


def test_command(folder, monkeypatch, capsys):
    words = ["models", "heads", str(folder / "mae.ckpt"), str(folder / "videos"), "--heads", "2"]
    monkeypatch.setattr(
        sys,
        "argv",
        ["hiera-video", *words, "4", "--masks", "1", "--clips", "1", "--mask-ratio", "0.5"],
    )
    cli.main()
    text = capsys.readouterr().out
    assert "  2 heads  loss " in text
    assert "of 2 videos (2 clips)" in text
