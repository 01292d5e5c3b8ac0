"""Where the relative paths of a list to predict start."""

import pytest

from datamodules.errors import DatasetError
from datamodules.manifests.predicted_lists import list_to_predict


def test_the_first_folder_with_any_video_of_the_list_is_taken(tmp_path, caplog):
    one, two, file = tmp_path / "one", tmp_path / "two", tmp_path / "list.txt"
    for path in (one / "a.mp4", two / "a.mp4", two / "b.mp4", tmp_path / "c.mp4"):
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def found(text, *roots):
        caplog.clear()
        file.write_text(text)
        manifest = list_to_predict(file, roots)
        return [manifest.path(i) for i in range(len(manifest))]

    assert found("a.mp4\nb.mp4\n", one, two) == [f"{one}/a.mp4"]
    assert caplog.messages == [
        f"{file}: 1 of 2 videos is missing in {one}, the first in row 2: b.mp4"
    ]
    assert found("b.mp4\n", one, two) == [f"{two}/b.mp4"]
    assert found(f"../c.mp4\n{two}/b.mp4\n", one) == [f"{tmp_path}/c.mp4", f"{two}/b.mp4"]
    assert not caplog.messages
    for roots, places in (((one, two), f"{one} and {two}"), ((one, one), one)):
        message = f"1 of 1 video is missing in {places}, the first in row 1: gone.mp4$"
        with pytest.raises(DatasetError, match=message):
            found("gone.mp4\n", *roots)
