import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from datamodules.synthetic_ava import (
    ACTIONS,
    OFFSET,
    SyntheticAVADataModule,
    random_motion,
    render_shapes,
)

SMALL = {"videos": (4, 2, 2), "video_seconds": 3, "video_size": 64, "num_frames": 4, "stride": 4}
CLIP = {"size": (64, 64), "short_side": (64, 72), "batch_size": 4}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    module = SyntheticAVADataModule(tmp_path_factory.mktemp("synthetic"), **SMALL, **CLIP)
    module.prepare_data()
    module.setup("fit")
    module.setup("test")
    return module


def test_it_is_read_as_any_data_in_avas_format(data):
    assert data.class_names == ACTIONS
    for split, count in zip(SPLITS, SMALL["videos"], strict=True):
        assert len(data.video_names(split)) == count
        truth = data.ground_truth(split)
        # Two keyframes a video, one of which is excluded.
        assert len(set(zip(truth.video.tolist(), truth.second.tolist(), strict=True))) == (
            2 * count - 1
        )
        assert set(truth.second) == {OFFSET + 1, OFFSET + 2}
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape == (4, 3, 4, 64, 64)
    assert ((batch["box_labels"].sum(1) >= 1) | (batch["box_score"] < 1)).all()
    assert (batch["box_labels"].sum(1) <= 3).all()


def test_person_boxes_are_near_and_false_ones_doubtful(data):
    annotation, persons = data.tables("test")
    truth = data.keyframes("test").keyframes
    near = 0
    for second, video, box, score in zip(
        persons.second,
        persons.video,
        persons.boxes,
        persons.score,
        strict=True,
    ):
        rows = (annotation.second == second) & (annotation.video == video)
        apart = abs(annotation.boxes[rows] - box).max(axis=1).min()
        assert (score >= 0.85) == (apart < 0.02) or score < 0.5
        near += score >= 0.85
    assert near > len(truth)


def test_it_is_written_once_and_is_the_same_everywhere(data, tmp_path):
    again = SyntheticAVADataModule(tmp_path, **SMALL, **CLIP)
    again.prepare_data()
    files = sorted(path for path in data.root.rglob("*") if path.is_file())
    assert len(files) == 8 + 3 * 3 + 1 + 1
    for file in files:
        assert (again.root / file.relative_to(data.root)).read_bytes() == file.read_bytes()
    before = {file: file.stat().st_mtime_ns for file in again.root.rglob("*")}
    again.prepare_data()
    assert before == {file: file.stat().st_mtime_ns for file in again.root.rglob("*")}
    assert SyntheticAVADataModule(tmp_path, **{**SMALL, "video_seed": 1}, **CLIP).root != again.root


def test_boxes_hold_the_shapes_and_the_actions_are_seen():
    """Between a quarter of a second before and after a keyframe, boxes move as they are said to."""
    votes = {name: [] for name in ACTIONS}
    for seed in range(12):
        shapes = render_shapes(np.random.default_rng(seed), 3, 128)
        background = np.median(shapes.frames.astype(float), axis=0)
        for boxes, actions in zip(shapes.boxes, shapes.actions, strict=True):
            for second, (box, names) in enumerate(zip(boxes, actions, strict=True), 1):
                cell = np.floor((box[:2] + box[2:]) / 2 * 2) / 2
                places = []
                for frame in (30 * second - 7, 30 * second, 30 * second + 7):
                    changed = abs(shapes.frames[frame] - background).max(axis=-1) > 40
                    x1, y1 = (cell * 128).astype(int)
                    y, x = np.nonzero(changed[y1 : y1 + 64, x1 : x1 + 64])
                    if len(x) < 20:
                        break
                    places.append((x1 + np.median(x), y1 + np.median(y), len(x)))
                if len(places) < 3 or "still" in names:
                    continue
                first, _, last = np.array(places)
                votes["right"].append(
                    (last[0] - first[0]) * (("right" in names) - ("left" in names))
                )
                votes["down"].append((last[1] - first[1]) * (("down" in names) - ("up" in names)))
    for name in ("right", "down"):
        motions = np.array([vote for vote in votes[name] if vote])
        assert len(motions) > 10
        assert (motions > 0).mean() > 0.8, name


def test_directions_do_not_show_in_the_state_at_the_keyframe():
    """Left and right, growing and shrinking pass the keyframe halfway; none leaves its ends."""
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(ACTIONS, 0)
    for _ in range(300):
        motion = random_motion(6, rng)
        assert set(np.unique(motion.ends)) <= {0, 1}
        for second in range(6):
            names = motion.actions(second)
            assert 1 <= len(names) <= 3
            halfway = (motion.ends[second] + motion.ends[second + 1]) / 2
            for axis, pair in enumerate((("left", "right"), ("up", "down"))):
                assert (halfway[axis] == 0.5) == bool(set(pair) & set(names))
            for name in names:
                counts[name] += 1
    for one, other in (("left", "right"), ("up", "down"), ("growing", "shrinking")):
        assert counts[one] / counts[other] == pytest.approx(1, abs=0.2)
    assert min(counts.values()) > 100


def test_shapes_stay_within_their_cells_and_their_boxes_within_the_picture():
    for seed in range(6):
        shapes = render_shapes(np.random.default_rng(seed), 3, 64)
        assert 2 <= len(shapes.boxes) <= 4
        assert ((shapes.boxes >= 0) & (shapes.boxes <= 1)).all()
        cells = {tuple(np.floor(boxes.mean(axis=0)[:2] * 2)) for boxes in shapes.boxes}
        assert len(cells) == len(shapes.boxes)
        for boxes in shapes.boxes:
            low, high = np.floor(boxes[:, :2] * 2), np.ceil(boxes[:, 2:] * 2)
            np.testing.assert_array_equal(high - low, 1)


def test_masks_fill_their_boxes_and_do_not_meet():
    shapes = render_shapes(np.random.default_rng(1), 3, 64)
    assert shapes.masks.sum(axis=0).max() == 1
    masks = torch.from_numpy(shapes.masks).flatten(0, 1)  # (shapes * seconds, 64, 64)
    corners = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])  # the last pixel is inside
    np.testing.assert_array_equal(corners / 64, shapes.boxes.reshape(-1, 4))


@pytest.mark.parametrize(
    "kwargs",
    [{"videos": (1, 2)}, {"videos": (0, 1, 1)}, {"video_seconds": 1}, {"video_size": 50}],
)
def test_wrong_arguments(kwargs):
    with pytest.raises(ValueError, match="video"):
        SyntheticAVADataModule("/nowhere", **kwargs)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"sampling": "segments"}, TypeError, "unexpected keyword argument 'sampling'"),
        ({"test_views": (5, 3)}, TypeError, "unexpected keyword argument 'test_views'"),
        ({"num_framess": 8}, TypeError, "unexpected keyword argument 'num_framess'"),
        ({"short_side": None}, ValueError, r"short_side must be \[least, greatest\], not None"),
        ({"short_side": (64, 80)}, ValueError, "less than the crop of 128 pixels"),
        ({"eval_short_side": 100}, ValueError, "eval_short_side must be at least 128"),
        ({"batch_size": 0}, ValueError, "batch_size must be positive"),
        ({"max_missing_share": 2}, ValueError, "max_missing_share must be in"),
    ],
)
def test_wrong_arguments_of_the_base_classes(wrong, error, message):
    with pytest.raises(error, match=message):
        SyntheticAVADataModule("/nowhere", **wrong)


def test_training_and_the_diagnosis_count_the_same_keyframes(data):
    (diagnosis,) = data.diagnose(["train"])
    assert not diagnosis.faults
    keyframes = len(data.training_manifest())
    assert f"{keyframes} keyframes with boxes" in diagnosis.lines[0]
    assert data.unit == "keyframes"
