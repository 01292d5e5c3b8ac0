import numpy as np
import pytest
from PIL import ImageChops

from hiera_video.visualize import confusion
from hiera_video.visualize.confusion import confusion_picture


def frame(pixels):
    """The upper left corner of the matrix; its frame has the longest black lines."""
    black = (pixels == 0).all(-1)
    return black.sum(1).argmax(), black.sum(0).argmax()


@pytest.mark.parametrize("classes", [2, 8, 174, 400])
def test_each_class_has_room_for_its_name(classes):
    counts = np.zeros((classes, classes + 1), int)
    counts[np.arange(classes), np.arange(classes)] = 9
    counts[1, 0] = 1
    picture = confusion_picture(counts, [f"class number {i}" for i in range(classes)])
    pixels = np.asarray(picture)
    top, left = frame(pixels)
    cell = (len(pixels) - top) // classes
    assert cell >= 10  # letters of ten pixels
    assert (pixels[top + 2, left + 2] == (0, 110, 60)).all()  # green: all of the first class
    # The names: something is written beside each row and above each column.
    for i in range(classes):
        rows = slice(top + i * cell, top + (i + 1) * cell)
        assert (pixels[rows, :left] < 128).any()
        assert (pixels[:top, left + i * cell : left + (i + 1) * cell] < 128).any()
    red = pixels[top + cell + 2, left + 2].astype(int)
    assert red[0] > red[1] + 50  # a tenth of the class can be seen


def test_the_caption_has_a_corner_of_its_own():
    counts = np.array([[3, 0, 0], [0, 2, 0]])
    pixels = np.asarray(confusion_picture(counts, ["a", "b"]))
    top, left = frame(pixels)
    assert (pixels[:40, : left - 6] < 128).any()  # the caption
    green = (pixels[:top, : left - 6] == (0, 110, 60)).all(-1)  # the scale, which ends with it
    red = (pixels[:top, : left - 6] == (190, 20, 20)).all(-1)
    assert green.any()
    assert red.any()
    assert (pixels[:40, left - 6 : left] == 255).all()  # a gap
    # Column names stand at the matrix, not in the caption's rows.
    assert (pixels[:40, left + 1 :] == 255).all()


def test_a_column_for_videos_without_a_prediction():
    counts = np.array([[3, 0, 0], [0, 2, 0]])
    plain = confusion_picture(counts, ["a", "b"])
    counts[1, 2] = 1
    wide = confusion_picture(counts, ["a", "b"])
    assert wide.size[0] > plain.size[0]
    assert ImageChops.difference(plain, wide.crop((0, 0, *plain.size))).getbbox() is not None


def test_of_many_classes_the_most_confused_are_shown():
    counts = np.zeros((100, 101), int)
    counts[np.arange(100), np.arange(100)] = 10
    counts[7, 90], counts[90, 50], counts[3, 4] = 5, 4, 1
    names = [f"class number {i}" for i in range(100)]
    part = counts[np.ix_([7, 50, 90], [7, 50, 90, 100])]
    alone = np.asarray(confusion_picture(part, [names[i] for i in (7, 50, 90)]))
    most = np.asarray(confusion_picture(counts, names, most=3))
    (top, left), (others_top, others_left) = frame(alone), frame(most)
    assert (most[others_top:, others_left:] == alone[top:, left:]).all()
    names_of = slice(-100, None)  # left of the matrix
    assert (most[others_top:, :others_left][:, names_of] == alone[top:, :left][:, names_of]).all()
    counts[50, 3] = 1  # "(others)" have a column
    assert confusion_picture(counts, names, most=3).size[0] > most.shape[1]
    assert confusion_picture(counts, names, most=100) == confusion_picture(counts, names)


def written(counts):
    """How many pixels of the cells have none of the colours that fill cells."""
    size = len(counts)
    pixels = np.asarray(confusion_picture(counts, [str(i) for i in range(size)]))
    top, left = frame(pixels)
    cell = (len(pixels) - top) // size
    cells = pixels[top : top + size * cell, left : left + size * cell]
    cells = cells.reshape(size, cell, size, cell, 3).transpose(0, 2, 1, 3, 4)[..., 4:-4, 4:-4, :]
    return (cells != cells[..., :1, :1, :]).any(-1).sum((-1, -2))  # (size, size)


def test_cells_of_few_classes_have_their_numbers():
    counts = np.zeros((20, 21), int)
    counts[np.arange(20), np.arange(20)] = 9
    counts[1, 0] = 1
    assert ((written(counts) > 0) == (counts[:, :-1] > 0)).all()
    counts[0, 0] = 10**9  # fits into no cell, so that none has a number
    assert not written(counts).any()
    assert not written(np.eye(21, 22, dtype=int) * 9).any()


def test_no_picture_has_more_classes_than_fit_into_memory(monkeypatch):
    monkeypatch.setattr(confusion, "MOST_CLASSES", 3)
    counts, names = np.eye(9, 10, dtype=int), [str(i) for i in range(9)]
    assert confusion_picture(counts, names) == confusion_picture(counts, names, most=3)
    assert confusion_picture(counts, names, most=8) == confusion_picture(counts, names, most=3)


def test_names_of_any_script_that_the_font_has_are_written():
    counts = np.eye(2, 3, dtype=int)
    first, second = (confusion_picture(counts, [name, "b"]) for name in ("бег", "шаг"))
    assert first.size == second.size
    assert ImageChops.difference(first, second).getbbox() is not None
