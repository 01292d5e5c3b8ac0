"""When a storage has failed, so that its videos are not those that are bad."""

from collections.abc import Callable, Collection, Sequence

from datamodules.errors import StorageFailure, UnreadableVideo
from datamodules.loading.bad_videos import Failure
from datamodules.wording import counted

_IN_A_ROW = 8  # videos


class Outage:
    """Ends an evaluation whose storage fails, rather than count its videos as wrong.

    A few files may have gone: they are counted. The storage has failed if more items than ``most``,
    of several videos, cannot be read, or eight videos in a row, or none at all.

    Args:
        most: number of items that may be missing.
        items: number of items to come.
        path_of: gives the path of a video by its id.
    """

    def __init__(self, most: int, items: int, path_of: Callable[[int], str]) -> None:
        self._most, self._items, self._path_of = most, items, path_of
        self._unreadable = 0
        self._paths: set[str] = set()
        self._in_a_row: set[str] = set()  # several items may be of one video

    def count(self, failed: Collection[Failure]) -> None:
        """Count an item.

        Args:
            failed: why it cannot be decoded; empty if it can.

        Raises:
            StorageFailure: the storage has failed.
        """
        failure = next((f for f in failed if f.unreadable), None)
        if failure is None:
            self._in_a_row.clear()
            return
        path = self._path_of(failure.video_id)
        self._unreadable += 1
        self._paths.add(path)
        self._in_a_row.add(path)
        if (
            (self._unreadable > self._most and len(self._paths) > 1)
            or len(self._in_a_row) >= _IN_A_ROW
            or self._unreadable == self._items
        ):
            raise StorageFailure(
                f"{self._unreadable} of {self._items} items cannot be read, the last of them "
                f"{path}: {failure.reason}; when the storage gives them, run the same command "
                "again (fit and test with resume=auto), or count them as wrong with "
                "data.max_bad_share=1"
            )


def check_training(bad: Collection[Failure], most: int, last: str) -> None:
    """See that it is not the storage's fault that too many videos failed.

    Args:
        bad: the videos of this epoch that failed.
        most: how many of them may.
        last: path and reason of the last of them.

    Raises:
        StorageFailure: too many failed, and half of them or more cannot be read.
    """
    unreadable = sum(failure.unreadable for failure in bad)
    if len(bad) > most and unreadable * 2 >= len(bad):
        raise StorageFailure(
            f"{unreadable} videos of this epoch cannot be read, the last of them {last}; when the "
            "storage gives them, continue with resume=auto"
        )


def check_files(unreadable: Sequence[UnreadableVideo], count: int) -> None:
    """See that the storage has given all files, in work that goes on where it was left.

    Args:
        unreadable: the errors of those that it has not given.
        count: number of all files.

    Raises:
        StorageFailure: there are such files.
    """
    if unreadable:
        raise StorageFailure(
            f"{len(unreadable)} of {counted(count, 'files')} cannot be read, the first of them "
            f"{unreadable[0]}; run the same command again when they can be (it opens only what is "
            "left), or leave them out"
        )
