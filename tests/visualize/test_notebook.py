import base64
import io
import json
import re
import sys

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from hiera_video.visualize import Player, sliders


def test_a_player_holds_all_frames_and_captions():
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 12, 3), np.uint8)
    page = Player(clips, ["one & all", "two"], milliseconds=70).html()
    assert "one &amp; all" in page
    assert 'max="2"' in page
    assert ", 70)" in page
    frames = json.loads(re.search(r"clips = (\[\[.*?\]\]), count", page)[1])
    for clip, uris in zip(clips, frames, strict=True):
        for frame, uri in zip(clip, uris, strict=True):
            png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), frame)


def test_captions_are_shown_as_they_are():
    caption = "the LAST of 8 FRAMES; CLIPS, PERIOD and ID too"
    assert Player(np.zeros((1, 2, 4, 4, 3), np.uint8), [caption]).html().count(caption) == 2


def test_players_on_one_page_do_not_share_an_id():
    player = Player(np.zeros((1, 1, 4, 4, 3), np.uint8))
    first, second = (re.search(r'id="([^"]+)"', player.html())[1] for _ in range(2))
    assert first != second


def test_wrong_clips_and_captions():
    with pytest.raises(ValueError, match="with frames, not"):
        Player(np.zeros((1, 0, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="1 captions for 2 clips"):
        Player(np.zeros((2, 1, 4, 4, 3), np.uint8), ["one"])


def test_without_ipywidgets_the_defaults_are_drawn(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)

    def draw(ratio=0.5, seed=1):
        return ratio, seed

    assert sliders(draw, ratio=[0.25, 0.5], seed=range(3)) == (0.5, 1)
    with pytest.raises(ValueError, match=r"seed=1 is not among its choices \[2, 3\]"):
        sliders(draw, seed=[2, 3])


def test_a_slider_draws_anew(monkeypatch):
    made, drawn = [], []
    slider = ipywidgets.SelectionSlider
    monkeypatch.setattr(
        ipywidgets, "SelectionSlider", lambda **k: made.append(slider(**k)) or made[-1]
    )

    def draw(ratio=0.5, seed=1):
        drawn.append((ratio, seed))

    assert sliders(draw, ratio=[0.25, 0.5], seed=range(3)) is None
    assert drawn == [(0.5, 1)]
    made[0].value = 0.25
    made[1].value = 2
    assert drawn == [(0.5, 1), (0.25, 1), (0.25, 2)]
