"""``load(...).embed(...)`` beside the arithmetic written out."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from datamodules import VideoFile
from datamodules.clips.format import ClipFormat
from datamodules.clips.videos import clips_of_views
from datamodules.clips.windows import sliding_windows
from datamodules.errors import VideoDecodeError
from hiera_video import load
from hiera_video.augment.basic import Normalize
from hiera_video.models.action_detector import HieraActionDetector
from hiera_video.models.features import feature_map
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.batches import CLIPS_AT_ONCE, ClipNetwork
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from tests.models.conftest import _one_thread  # noqa: F401
from tests.models.small import TINY, tiny_model
from tests.trained_models import write_mae_run, write_run
from tests.video_files import moving_frames, write_video

CLIP = ClipFormat(4, 2, 30, 64, 64)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A classifier, an autoencoder and a video of 2.5 seconds."""
    folder = tmp_path_factory.mktemp("runs")
    models = {"classifier": write_run(folder / "classifier"), "mae": write_mae_run(folder / "mae")}
    video = write_video(folder / "video.mp4", moving_frames(75, 80, 120))
    return folder, models, video


def normalized(clips):
    """Clips uint8 ``(n, T, H, W, 3)`` as the network takes them."""
    return Normalize()(torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3))


@torch.no_grad()
def input_of_head(model, clips):
    """What a classifier's head multiplies by its weights."""
    seen = []
    hook = model.head.projection.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    model(normalized(clips))
    hook.remove()
    return torch.cat(seen).numpy()


def test_a_classifier_gives_what_its_head_sees_averaged_over_its_views(runs):
    folder, models, video = runs
    embedding = load(folder / "classifier", "cpu").embed(video)
    with VideoFile(video) as file:
        views = clips_of_views(file, CLIP, 2, 3)
    expected = input_of_head(models["classifier"], views).mean(0)
    assert embedding.features.dtype == np.float32
    np.testing.assert_allclose(embedding.features, expected[None], atol=1e-5)
    assert embedding.start.tolist() == [0]
    assert embedding.end == pytest.approx([2.5])
    one = load(folder / "classifier", "cpu").embed(video, views=(1, 1)).features
    with VideoFile(video) as file:
        expected = input_of_head(models["classifier"], clips_of_views(file, CLIP, 1, 1))
    np.testing.assert_allclose(one, expected, atol=1e-5)


@pytest.mark.parametrize("window", [None, 1.0])
def test_vectors_along_time_are_those_of_the_windows(runs, window):
    folder, models, video = runs
    embedding = load(folder / "classifier", "cpu").embed(video, stride=0.2, window=window)
    with VideoFile(video) as file:
        windows = list(sliding_windows(file, CLIP, 0.2, window))
    assert len(windows) == 13  # more than go through the network at once
    assert embedding.start.tolist() == [w.start for w in windows]
    assert embedding.end.tolist() == [w.end for w in windows]
    expected = input_of_head(models["classifier"], np.concatenate([w.clips for w in windows]))
    np.testing.assert_allclose(embedding.features, expected, atol=1e-5)


def test_an_autoencoder_masks_nothing_and_sees_the_middle(runs):
    folder, models, video = runs
    embedding = load(folder / "mae", "cpu").embed(video)
    with VideoFile(video) as file:
        clips = normalized(clips_of_views(file, CLIP, 1, 1))
    with torch.no_grad():
        mae = models["mae"]
        expected = mae.encoder_norm(mae.forward_features(clips).mean(dim=(1, 2, 3)))
    np.testing.assert_allclose(embedding.features, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["classifier", "mae"])
@pytest.mark.parametrize("stage", [1, 2, 3, 4, None])
def test_maps_and_vectors_of_any_stage(runs, kind, stage):
    folder, models, video = runs
    loaded = load(folder / kind, "cpu")
    maps = loaded.embed(video, stage=stage, pool=False, stride=1.0)
    with VideoFile(video) as file:
        clips = np.concatenate([w.clips for w in sliding_windows(file, CLIP, 1.0)])
    with torch.no_grad():
        stages = models[kind].forward_features(normalized(clips), return_stages=True)
        assert torch.equal(feature_map(models[kind], normalized(clips)), stages[-1])
    expected = stages[(stage or 4) - 1].numpy()  # (3, T', H', W', C)
    assert maps.features.shape == expected.shape
    np.testing.assert_allclose(maps.features, expected, atol=1e-5)
    pooled = loaded.embed(video, stage=stage, stride=1.0).features
    mean = expected.mean(axis=(1, 2, 3))
    if stage in (4, None):
        model = models[kind]
        norm = model.norm if kind == "classifier" else model.encoder_norm
        mean = norm(torch.from_numpy(mean)).detach().numpy()
    np.testing.assert_allclose(pooled, mean, atol=1e-5)


def test_a_map_of_a_whole_video_is_that_of_its_middle(runs):
    folder, models, video = runs
    maps = load(folder / "classifier", "cpu").embed(video, pool=False).features
    with VideoFile(video) as file:
        clips = normalized(clips_of_views(file, CLIP, 1, 1))
    with torch.no_grad():
        expected = models["classifier"].forward_features(clips).numpy()
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["classifier", "mae"])
@pytest.mark.parametrize("second", [None, 0.8])
def test_one_pass_gives_the_maps_of_all_stages_of_a_clip(runs, kind, second):
    folder, models, video = runs
    clip, times, maps = load(folder / kind, "cpu").encoder.stages(video, second)
    assert (clip.shape, clip.dtype) == (CLIP.shape, np.uint8)
    middle = second or 1.25
    assert times == pytest.approx(middle + (np.arange(4) - 1.5) * CLIP.stride / 30, abs=1.1 / 30)
    with torch.no_grad():
        expected = models[kind].forward_features(normalized(clip[None]), return_stages=True)
    assert len(maps) == len(expected) == 4
    for features, wanted in zip(maps, expected, strict=True):
        np.testing.assert_allclose(features, wanted[0].numpy(), atol=1e-5)


def test_the_times_of_a_clip_lie_within_its_video(runs):
    folder, _, video = runs
    with VideoFile(video) as file:
        last = file.duration - 1 / float(file.rate)
    encoder = load(folder / "classifier", "cpu").encoder
    assert encoder.stages(video, 0).times.min() == 0
    assert encoder.stages(video, last).times.max() == pytest.approx(last)


def test_a_detector_gives_features_of_the_whole_picture(runs):
    torch.manual_seed(0)
    model = HieraActionDetector(**TINY, num_classes=3).eval()
    predictor = ActionPredictor(model, ["a", "b", "c"], CLIP, device="cpu")
    with VideoFile(runs[2]) as file:
        clips = normalized(clips_of_views(file, CLIP, 1, 1))
    with torch.no_grad():
        expected = model.norm(model.forward_features(clips).mean(dim=(1, 2, 3)))
    np.testing.assert_allclose(predictor.embed(runs[2]).features, expected.numpy(), atol=1e-5)


def test_features_come_while_the_file_is_read_a_few_at_a_time(tmp_path):
    video = write_video(tmp_path / "long.mp4", moving_frames(600, 64, 64))
    encoder = VideoEncoder(ClipNetwork(tiny_model(), device="cpu"), CLIP)
    with VideoFile(video) as file:
        pieces = encoder.pieces(file, EmbeddingOptions(stride=0.2))
        read = []
        frames_at = file.frames_at
        file.frames_at = lambda times, *a, **k: read.append(len(times)) or frames_at(times, *a, **k)
        first = next(pieces)
        assert len(first.start) == CLIPS_AT_ONCE
        assert sum(read) == CLIPS_AT_ONCE * 4  # not those of later windows
        rest = [len(piece.start) for piece in pieces]
    assert max(rest) == CLIPS_AT_ONCE
    assert sum(rest) == 92
    assert max(read) == CLIPS_AT_ONCE * 4


@pytest.mark.slow
@pytest.mark.parametrize("way", ["npz", "table", "memory"])
def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path, way):
    frames = [frame for _ in range(600) for frame in moving_frames(10, 64, 64)]
    video = write_video(tmp_path / "long.mp4", frames, rate=10)
    script = textwrap.dedent(f"""
        from pathlib import Path
        import torch
        from datamodules.clips.format import ClipFormat
        from hiera_video.predicting.batches import ClipNetwork
        from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder, VideoFile
        from hiera_video.results.embedding_files import write_npz, write_table_part
        from tests.models.small import tiny_model

        torch.set_num_threads(1)
        folder, resident = Path({str(tmp_path)!r}), []

        class Noted(VideoEncoder):
            def pieces(self, file, options):
                for piece in super().pieces(file, options):
                    resident.append(int(open("/proc/self/statm").read().split()[1]) * 4 >> 10)
                    yield piece

        encoder = Noted(ClipNetwork(tiny_model(), device="cpu"), ClipFormat(4, 2, 30, 64, 64))
        options = EmbeddingOptions(stride=0.5)
        with VideoFile({str(video)!r}) as file:
            if {way!r} == "npz":
                pieces = encoder.pieces(file, options)
                write_npz(folder / "a", folder, "a", pieces, "float32", {{}})
            elif {way!r} == "table":
                pieces = encoder.pieces(file, options)
                write_table_part(folder / "a", folder, "a", pieces, "float32")
            else:
                assert len(encoder.embed({str(video)!r}, options).start) == 1200
        print(len(resident), resident[-1] - resident[20])
    """)
    output = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=300)
    pieces, grown = map(int, output.split())
    assert pieces == 150
    assert grown < 40, "MiB"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": 0}, "stage must be 1 to 4, not 0"),
        ({"stage": 7}, "stage must be 1 to 4, not 7"),
        ({"stride": 0}, "stride must be a positive number of seconds, not 0"),
        ({"stride": float("inf")}, "stride must be a positive"),
        ({"stride": 1, "window": -1}, "window must be a positive"),
        ({"window": 1}, "a window needs a stride"),
        ({"stride": 1, "views": (1, 1)}, "no stride and no maps"),
        ({"pool": False, "views": (1, 1)}, "no stride and no maps"),
        ({"views": (0, 1)}, "views must be"),
        ({"views": (1,)}, "views must be"),
    ],
)
def test_wrong_options(runs, options, message):
    folder, _, video = runs
    with pytest.raises(ValueError, match=message):
        load(folder / "mae", "cpu").embed(video, **options)


def test_wrong_input(runs, tmp_path):
    classifier = load(runs[0] / "classifier", "cpu")
    with pytest.raises(VideoDecodeError, match="gone"):
        classifier.embed(tmp_path / "gone.mp4")
    with pytest.raises(TypeError, match="strid"):
        classifier.embed(runs[2], strid=1.0)
    network = ClipNetwork(tiny_model(), device="cpu")
    segments = VideoEncoder(network, CLIP._replace(sampling="segments"))
    with pytest.raises(ValueError, match="set window, in seconds"):
        segments.embed(runs[2], EmbeddingOptions(stride=1.0))
    windows = segments.embed(runs[2], EmbeddingOptions(stride=1.0, window=1.0))
    assert windows.features.shape == (3, 128)
