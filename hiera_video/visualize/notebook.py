"""What notebooks show: clips to play, and pictures that follow sliders."""

import base64
import inspect
import io
import itertools
import json
import re
from collections.abc import Callable, Sequence
from html import escape
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

_NUMBERS = itertools.count()  # of the players of a page
_PAGE = """<div id="ID" style="display:inline-block;font:13px sans-serif">
<div style="display:flex;flex-wrap:wrap;gap:8px;align-items:flex-end">CLIPS</div>
<div style="display:flex;gap:8px;align-items:center;margin-top:4px">
<button style="width:5em">pause</button><input type="range" min="0" max="LAST" value="0"
style="flex:1" aria-label="frame"><span style="width:4em">0</span></div></div>
<script>(() => {
const box = document.getElementById("ID"), clips = FRAMES, count = LAST + 1;
const images = box.querySelectorAll("img"), slider = box.querySelector("input");
const button = box.querySelector("button"), label = box.querySelector("span");
const show = frame => { slider.value = frame; label.textContent = frame;
  images.forEach((image, i) => image.src = clips[i][frame]); };
let timer = null;
const stop = () => { clearInterval(timer); timer = null; button.textContent = "play"; };
const play = () => { button.textContent = "pause";
  timer = setInterval(() => show((+slider.value + 1) % count), PERIOD); };
button.onclick = () => timer ? stop() : play();
slider.oninput = () => { stop(); show(+slider.value); };
show(0); play();
})();</script>"""


class Player:
    """Clips side by side that play together, with a button and a slider for the frame.

    A notebook shows it as the result of a cell. The frames are inside the page, so it also plays
    where the notebook was exported to HTML, with no network and no kernel.

    Args:
        clips: R clips of one length, uint8 ``(R, T, H, W, 3)``.
        captions: R lines, one above each clip; none: nothing is written.
        milliseconds: how long a frame is shown.
        side: pixels; smaller pictures are enlarged until their short side has about so many.

    Raises:
        ValueError: there are no frames, or another number of captions.
    """

    def __init__(
        self,
        clips: np.ndarray,
        captions: Sequence[str] = (),
        milliseconds: int = 150,
        side: int = 160,
    ) -> None:
        if clips.ndim != 5 or not clips.size:
            raise ValueError(f"clips must be (R, T, H, W, 3) with frames, not {clips.shape}")
        if captions and len(captions) != len(clips):
            raise ValueError(f"{len(captions)} captions for {len(clips)} clips")
        self.clips, self.captions = clips, tuple(captions) or ("",) * len(clips)
        self.milliseconds, self.side = milliseconds, side

    def html(self) -> str:
        """The player as a part of a page."""
        height, width = self.clips.shape[2:4]
        scale = max(1.0, self.side / min(height, width))
        style = f"width:{width * scale:.0f}px;image-rendering:pixelated;display:block"
        pictures = "".join(
            f'<figure style="margin:0;width:{width * scale:.0f}px"><figcaption '
            f'style="padding-bottom:2px">{escape(caption)}</figcaption>'
            f'<img style="{style}" alt="{escape(caption)}"></figure>'
            for caption in self.captions
        )
        frames = json.dumps([[_png_uri(frame) for frame in clip] for clip in self.clips])
        parts = {
            "ID": f"hiera-player-{next(_NUMBERS)}-{id(self):x}",
            "PERIOD": str(self.milliseconds),
            "LAST": str(self.clips.shape[1] - 1),
            "CLIPS": pictures,
            "FRAMES": frames,
        }
        # In one pass, so that nothing is replaced within a caption.
        return re.sub("|".join(parts), lambda name: parts[name[0]], _PAGE)

    def _repr_html_(self) -> str:
        return self.html()


def sliders(draw: Callable[..., Any], **choices: Sequence[Any]) -> Any:
    """Show what a function draws, and sliders for its arguments.

    The sliders need ipywidgets (the extra ``notebooks``) and a running kernel. Without ipywidgets,
    the function is called once, so that a notebook runs anywhere.

    Args:
        draw: its arguments need default values, with which it starts; what it returns is shown.
        **choices: the values of each argument that has a slider.

    Returns:
        What ``draw()`` returns if there are no sliders, for the notebook to show; else None.

    Raises:
        ValueError: a default value is not among the choices.
    """
    parameters = inspect.signature(draw).parameters
    defaults = {name: parameters[name].default for name in choices}
    for name, default in defaults.items():
        if default not in choices[name]:
            raise ValueError(f"{name}={default} is not among its choices {list(choices[name])}")
    if find_spec("ipywidgets") is None:
        return draw()
    import ipywidgets  # pyright: ignore[reportMissingImports]
    from IPython.display import DisplayHandle, display  # pyright: ignore[reportMissingImports]

    made = {
        name: ipywidgets.SelectionSlider(
            options=list(choices[name]), value=default, description=name, continuous_update=False
        )
        for name, default in defaults.items()
    }
    # Not `interact`: its output widget makes nbclient wait for ever if Matplotlib is loaded.
    display(*made.values())
    picture = DisplayHandle()
    picture.display(draw())
    for slider in made.values():
        slider.observe(
            lambda _: picture.update(draw(**{name: s.value for name, s in made.items()})), "value"
        )
    return None


def _png_uri(frame: np.ndarray) -> str:
    """A frame, uint8 ``(H, W, 3)``, as a ``data:`` URI."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
