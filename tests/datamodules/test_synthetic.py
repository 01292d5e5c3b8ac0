import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datamodules import synthetic
from datamodules.synthetic import CLASS_NAMES, MOTIONS, SyntheticMotionDataModule, render

SMALL = {"videos": (16, 8, 8), "video_frames": 12, "video_size": 32, "size": (32, 32)}
CLIP = {"num_frames": 4, "stride": 2, "batch_size": 4, "test_views": (2, 3)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    module = SyntheticMotionDataModule(tmp_path_factory.mktemp("synthetic"), **SMALL, **CLIP)
    module.prepare_data()
    return module


def test_videos_are_real_h264_files_in_class_folders(data):
    for split, count in zip(("train", "val", "test"), SMALL["videos"], strict=True):
        files = sorted((data.root / split).rglob("*.mp4"))
        assert len(files) == count
        assert sorted({f.parent.name for f in files}) == sorted(MOTIONS)
    with av.open(str(files[0])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height, stream.average_rate) == (32, 32, 30)
        assert len(list(container.decode(stream))) == 12


def test_it_is_written_once_and_is_the_same_everywhere(data, tmp_path):
    before = {f: f.stat().st_mtime_ns for f in data.root.rglob("*.mp4")}
    data.prepare_data()
    assert before == {f: f.stat().st_mtime_ns for f in data.root.rglob("*.mp4")}
    again = SyntheticMotionDataModule(tmp_path, **SMALL, **CLIP)
    again.prepare_data()
    assert again.root.name == data.root.name
    for file in before:
        assert (again.root / file.relative_to(data.root)).read_bytes() == file.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == [again.root.name]  # nothing unfinished stays
    other = SyntheticMotionDataModule(tmp_path, **{**SMALL, "video_seed": 1}, **CLIP)
    assert other.root != again.root


def test_batches_go_the_same_road_as_any_folder(data):
    data.setup("fit")
    assert data.class_names == CLASS_NAMES
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape == (4, 3, 4, 32, 32)
    assert batch["video"].dtype == torch.uint8
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert batch["video"].shape == (4 * 6, 3, 4, 32, 32)
    assert batch["view"].tolist() == list(range(6)) * 4


def test_wrong_arguments():
    with pytest.raises(ValueError, match="videos must be .*multiples of 8"):
        SyntheticMotionDataModule(videos=(10, 8, 8))
    with pytest.raises(ValueError, match="videos must be .*multiples of 8"):
        SyntheticMotionDataModule(videos=8)
    with pytest.raises(TypeError, match="contrast"):
        SyntheticMotionDataModule(difficulty={"contrast": 1})


def test_motion_is_what_the_class_says():
    def centre(frame, background):
        moved = (np.abs(frame.astype(float) - background).sum(-1) > 60).astype(float)
        y, x = np.mgrid[:64, :64]
        return np.array([np.angle((moved * np.exp(2j * np.pi * a / 64)).sum()) for a in (x, y)])

    for name in ("down", "left", "right", "up"):
        right, down, _, _ = MOTIONS[name]
        votes = []
        for seed in range(8):
            video = render(name, np.random.default_rng(seed), 40)
            background = np.median(video, axis=0)
            change = centre(video[16], background) - centre(video[10], background)
            x, y = np.angle(np.exp(1j * change))
            votes.append(x * right + y * down)
        assert np.median(votes) > 0, name


@pytest.fixture
def radii(monkeypatch):
    """A function that gives the radius in every frame of a video, instead of drawing it."""
    kept = []

    def keep(u, v, radius, rng):
        kept.append(radius.ravel())
        return np.zeros_like(u)

    monkeypatch.setattr(synthetic, "coverage", keep)

    def of(name, seed):
        render(name, np.random.default_rng(seed), 12, 8)
        return kept.pop()

    return of


def test_what_grows_grows(radii):
    for name, sign in (("growing", 1), ("shrinking", -1), ("up", 0)):
        for seed in range(20):
            assert np.sign(np.median(np.diff(radii(name, seed)))) == sign, name


def gradients(videos, seed, gap):
    """First frames, their slopes, and the change to the frame ``gap`` later (0: none)."""
    pictures = []
    for number in range(videos):
        label = CLASS_NAMES[number % len(CLASS_NAMES)]
        grey = render(label, np.random.default_rng((seed, number)), 3).mean(-1) / 255
        down, right = np.gradient(grey[0])
        change = grey[gap] - grey[0]
        pictures.append(np.stack([grey[0] - grey[0].mean(), down, right, change])[:, ::2, ::2])
    pictures = torch.from_numpy(np.stack(pictures)).float()
    labels = torch.arange(videos) % len(CLASS_NAMES)
    return pictures / pictures.std((0, 2, 3), keepdim=True).clamp(min=1e-6), labels


def accuracy_of_a_small_network(gap):
    torch.manual_seed(0)
    train, labels = gradients(1280, 0, gap)
    test, answers = gradients(640, 1, gap)
    net = nn.Sequential(
        *(nn.Conv2d(4, 48, 5, 2, 2), nn.ReLU(), nn.Conv2d(48, 64, 3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(64, 96, 3, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        nn.Linear(96, len(CLASS_NAMES)),
    )
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(8):
        for part in torch.randperm(len(train)).split(64):
            loss = F.cross_entropy(net(train[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return (net(test).argmax(1) == answers).double().mean().item()


@pytest.mark.slow
def test_one_frame_does_not_give_the_class_away_but_two_do():
    # Chance is 1/8. Of all frames the first tells most where something grows from some size on. The
    # control, the same network with the change to the frame after next, shows that it would find
    # what is there to be found.
    single, pair = accuracy_of_a_small_network(0), accuracy_of_a_small_network(2)
    print(f"accuracy from one frame {single:.3f}, from two frames {pair:.3f}, chance 0.125")
    assert single < 0.17
    assert pair > 0.4


@pytest.mark.parametrize("frame", [0, 11])
def test_size_tells_no_class_at_any_moment(frame, radii):
    sizes = {
        name: [radii(name, (number, len(name)))[frame] for number in range(400)]
        for name in ("growing", "shrinking", "up")
    }
    for name in ("growing", "shrinking"):  # two-sample Kolmogorov-Smirnov, p = 0.001
        both = np.sort(sizes[name] + sizes["up"])
        below = [np.searchsorted(np.sort(sizes[k]), both, "right") for k in (name, "up")]
        assert np.abs(below[0] - below[1]).max() / 400 < 1.95 * (2 / 400) ** 0.5
