import pytest

from datamodules.ava.diagnosis import diagnose, diagnose_all
from datamodules.errors import DatasetError
from tests.datamodules.ava.test_data_module import GREEN, RED, TRUTH, make, root, videos, write

__all__ = ["root", "videos"]  # fixtures


def text(data, name="test"):
    diagnosis = diagnose(data, name)
    assert all(line.startswith(f"{name}: ") for line in diagnosis.lines)
    return "\n".join(diagnosis.lines), [str(fault) for fault in diagnosis.faults]


def test_a_sound_split(root):
    lines, faults = text(make(root))
    assert not faults
    assert "ground truth: 4 rows (0 excluded), 2 keyframes with boxes, 2 videos" in lines
    assert "seconds 2 to 3" in lines
    assert "person boxes: 4 rows, 3 of them with a score of at least 0.8" in lines
    assert "keyframes of the ground truth that have person boxes: 2 of 2 (100.0%)" in lines
    assert "keyframes of person boxes that the ground truth lacks: 1" in lines
    # RED and GREEN in a, where the detector is sure of RED; RED in b, where it sees GREEN
    assert "a person box fits (IoU at least 0.5): 1 of 3 (33.3%)" in lines
    assert "actions: 2 of 2 classes" in lines
    assert "mAP would be 0" not in lines


@pytest.mark.parametrize(
    ("persons", "why"),
    [
        (
            [f"a,2,{RED},,0.7"],
            "no person box has data.min_person_score=0.8; the highest score is 0.7",
        ),
        (
            [f"vid_a,2,{RED},,0.9"],
            "no video has the same name: 'a' in the ground truth, 'vid_a' in the person boxes",
        ),
        (
            [f"a,2.04,{RED},,0.9"],
            "the seconds differ: seconds 2 to 2 in the ground truth, seconds 2.04 to 2.04 in the "
            "person boxes",
        ),
    ],
)
def test_why_map_would_be_0(root, persons, why, caplog):
    write(root, "persons.csv", persons)
    lines, _ = text(make(root))
    assert "keyframes of the ground truth that have person boxes: 0 of 2" in lines
    assert f"mAP would be 0: {why}" in lines
    file = root / "persons.csv"
    data = make(root)
    if "seconds" in why:
        data.setup("test")
        assert f"test: mAP will be 0: {why}; {file}" in caplog.text
    else:
        with pytest.raises(DatasetError, match="no keyframe is left") as error:
            data.setup("test")
        assert str(error.value) == f"{file}: no keyframe is left to load: {why}"


def test_without_boxes_to_find_there_is_no_map(root):
    write(root, "ava_val_v2.2.csv", ["a,2"])
    lines, _ = text(make(root))
    assert "mAP would be undefined: the ground truth has no box" in lines
    assert "mAP would be 0" not in lines


def test_exclusions_that_match_nothing_are_said(root):
    write(root, "out.csv", ["a.mp4,2", "a.mp4,2", "b,4"])
    lines, _ = text(make(root, excluded={"test": "out.csv"}))
    assert f"test: excluded: 0 of 2 keyframes in the ground truth; {root / 'out.csv'}" in lines
    write(root, "out.csv", ["a.mp4,2", "a,2"])
    assert " excluded: " not in text(make(root, excluded={"test": "out.csv"}))[0]


def test_all_faults_are_named_at_once(root):
    write(root, "ava_val_v2.2.csv", [*TRUTH, f"a,2,{GREEN},99,0", f"c,2,{GREEN},11,0"])
    write(root, "persons.csv", [f"a,2,{RED},,7", f"b,77,{RED},,0.9", f"d,1,{RED},,0.9"])
    lines, faults = text(make(root))
    assert [fault.split(": ", 1)[1] for fault in faults] == [
        "action id 99 is not in the label map",
        "expected a person score in [0, 1] as eighth column",
        "second 77 is not within the video b, which has 0 to 6; is data.timestamp_offset=0 right?",
    ]
    assert "ava_val_v2.2.csv, row 5" in faults[0]
    assert "persons.csv, row 1" in faults[1]
    assert "persons.csv, row 2" in faults[2]
    assert "videos that are missing: 1 (c)" in lines
    assert "action ids that are not in the label map, whose rows cannot match: 1 (99)" in lines
    assert "videos without person boxes: 1 (c)" in lines
    assert "videos of person boxes that the ground truth lacks: 1 (d)" in lines


def test_the_rest_is_said_where_a_file_is_wrong(root):
    (root / "labels.pbtxt").write_text("1,walk\n")
    (root / "persons.csv").unlink()
    lines, faults = text(make(root))
    assert "labels.pbtxt, row 1" in faults[0]
    assert "data.person_boxes.test=persons.csv: no such file" in faults[1]
    assert "ground truth: 4 rows" in lines
    assert "person boxes: none" in lines
    (root / "ava_val_v2.2.csv").unlink()
    assert "no ground truth" in text(make(root))[0]


def test_classes_that_never_occur(root):
    write(root, "ava_val_v2.2.csv", [f"a,2,{RED},12,0"])
    lines, _ = text(make(root))
    assert "evaluated classes without ground truth, left out of the mean: 1 (sit)" in lines
    assert "1 of 1 rows are of the 2 that are evaluated" in lines


def test_it_finds_what_would_stop_training(root):
    _, (fault,) = text(make(root, person_boxes={"val": "persons.csv"}))
    assert "data.person_boxes.test is null: set it to a detector's boxes" in fault
    assert not text(make(root, person_boxes=None, eval_boxes="ground_truth"))[1]
    boxes = {"train": "persons.csv"}
    _, (fault,) = text(make(root, person_boxes=boxes), "train")
    assert "persons.csv: has no actions, and would teach that nobody does anything" in fault
    write(root, "persons.csv", [f"other,2,{RED},,0.9"])  # of no video of the ground truth
    assert not text(make(root, person_boxes=boxes), "train")[1]


def test_keyframes_without_a_box_are_compared_with_the_length(root):
    write(root, "ava_val_v2.2.csv", [*TRUTH, "a,55"])
    _, (fault,) = text(make(root))
    assert "row 5: second 55 is not within the video a, which has 0 to 6" in fault


def test_ground_truth_without_an_action(root):
    write(root, "ava_val_v2.2.csv", [*TRUTH, f"b,1,{RED},,0"])
    _, (fault,) = text(make(root))
    assert "ava_val_v2.2.csv, row 5: no action id" in fault


def test_splits_of_one_ground_truth_are_diagnosed_where_they_differ(root):
    def names(**kwargs):
        diagnoses = diagnose_all(make(root, **kwargs), ["val", "test"])
        return [diagnosis.lines[0].split(":")[0] for diagnosis in diagnoses]

    assert names() == ["val"]
    assert names(person_boxes={"val": "persons.csv", "test": "other.csv"}) == ["val", "test"]
    assert names(excluded={"test": "excluded.csv"}) == ["val", "test"]
    assert len(diagnose_all(make(root), ["train", "val"])) == 2
