import numpy as np

from hiera_video.visualize.class_accuracy import BAR, COLOUR, ROW, class_accuracy_picture


def bars(picture):
    """Pixels of each row's bar, without the first line."""
    pixels = (np.asarray(picture) == COLOUR).all(-1)
    return [int(pixels[top + ROW // 2].sum()) for top in range(ROW, len(pixels) - ROW // 2, ROW)]


def test_the_lowest_class_is_on_top():
    accuracy, videos = np.array([1.0, np.nan, 0.25, 0.0]), np.array([4, 0, 4, 2])
    picture = class_accuracy_picture(accuracy, videos, ["a", "b", "c", "d"])
    assert bars(picture) == [0, BAR // 4, BAR]  # a class without videos has no bar


def test_of_many_classes_the_lowest_are_shown():
    accuracy = np.linspace(0, 1, 400)
    names = [f"a name so long that it must be shortened, number {i}" * 2 for i in range(400)]
    picture = class_accuracy_picture(accuracy, np.full(400, 50), names, most=40)
    assert len(bars(picture)) == 40
    assert picture.size[0] < 800
    # Names end before the bars, with a gap between them.
    pixels = np.asarray(picture)
    left = (pixels == (225, 229, 234)).all(-1).any(0).argmax()
    assert (pixels[ROW:, left - 4 : left] == 255).all()
