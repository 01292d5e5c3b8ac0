import pytest
from omegaconf import OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.predict_actions import persons_of


def message(boxes, **persons):
    with pytest.raises(UsageError) as error:
        persons_of(OmegaConf.create({"boxes": boxes, "persons": persons}), "cpu")
    return str(error.value)


def test_wrong_persons_name_what_was_asked_for_once(tmp_path):
    weights = str(tmp_path / "none.pth")
    assert message(None, weights=weights).startswith(f"boxes=detector: {weights}: no such file")
    assert message("full_frame", min_score=2).startswith("boxes=full_frame: min_score must be")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("hall,1,0.9,0.1,0.1,0.8,,0.9\n")
    assert message(str(boxes)).startswith(f"{boxes}, row 1: the box ")
