"""What is predicted about the persons in a video at one second: scores, and actions by name."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datamodules.video.decoding import VideoFile
from hiera_video.errors import ChoiceError
from hiera_video.predicting.batches import check_second
from hiera_video.predicting.persons import PersonBoxes, PersonSource


class Action(NamedTuple):
    """What a person does.

    Attributes:
        label: name of the action.
        score: in [0, 1]; those of a person's actions do not sum to 1.
    """

    label: str
    score: float


class Person(NamedTuple):
    """A person at one second.

    Attributes:
        box: x1, y1, x2, y2 in [0, 1] of the frame.
        score: how certain it is that this is a person, in [0, 1].
        actions: the best first.
    """

    box: tuple[float, float, float, float]
    score: float
    actions: list[Action]


class Second(NamedTuple):
    """The persons at one second.

    Attributes:
        second: seconds from the start of the video.
        persons: in the order of their boxes' source; empty if nobody is there.
    """

    second: int
    persons: list[Person]


class Moment(NamedTuple):
    """The scores of all actions at one second.

    Attributes:
        second: seconds from the start of the video.
        persons: N boxes in the full frame.
        scores: float32 ``(N, classes)`` in [0, 1].
    """

    second: int
    persons: PersonBoxes
    scores: np.ndarray

    def labelled(
        self, class_names: Sequence[str], least: float = 0.0, top: int | None = None
    ) -> Second:
        """The actions of each person by name.

        Args:
            class_names: in the order of the columns of `scores`.
            least: score below which an action is left out, in [0, 1].
            top: at most so many actions of each person; None: no limit.
        """
        return Second(self.second, labelled(self.persons, self.scores, class_names, least, top))


def labelled(
    people: PersonBoxes,
    scores: np.ndarray,
    class_names: Sequence[str],
    least: float = 0.0,
    top: int | None = None,
) -> list[Person]:
    """Persons with their actions by name.

    Args:
        people: N persons.
        scores: of all actions, float32 ``(N, classes)`` in [0, 1].
        class_names: names of the actions, in the order of their scores.
        least: score below which an action is left out, in [0, 1].
        top: at most so many actions of each person; None: no limit.
    """
    persons = []
    for box, person, row in zip(*people, scores, strict=True):
        order: list[int] = np.argsort(-row, kind="stable").tolist()
        best = [i for i in order if row[i] >= least][:top]
        x1, y1, x2, y2 = box.tolist()
        actions = [Action(class_names[i], float(row[i])) for i in best]
        persons.append(Person((x1, y1, x2, y2), float(person), actions))
    return persons


def second_with_persons(
    file: VideoFile, source: PersonSource, second: float | None
) -> tuple[int, PersonBoxes]:
    """A second of a video, and who is there.

    Args:
        file: the video.
        source: finds persons.
        second: a whole second; None: the one nearest to the middle of the video at which anybody
            is there.

    Raises:
        DatasetError: the persons of this video are not known.
        ChoiceError: nobody is there, or no such second.
    """
    seconds = source.seconds(file.path, file.duration)
    if second is not None:
        if second not in seconds:
            check_second(file, second)
            raise ChoiceError(f"persons are found at whole seconds, 0 to {seconds[-1]}")
        seconds = [int(second)]
    for candidate in sorted(seconds, key=lambda one: abs(one - file.duration / 2)):
        (people,) = source.at(file, [candidate])
        if len(people.boxes):
            return candidate, people
    where = "" if second is None else f" at second {second:g}"
    raise ChoiceError(f"{file.path}: nobody is there{where}; choose other seconds or boxes")
