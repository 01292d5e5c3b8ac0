"""What the first process of a run does for all of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from lightning import Trainer

Result = TypeVar("Result")


def in_first_process(trainer: "Trainer | None", work: Callable[[], Result]) -> Result:
    """Have the first process do some work; its result, or its error, is that of all processes.

    All processes must call this, and none of them within ``work``.

    Args:
        trainer: of the run; None: there is only this process.
        work: called without arguments; what it returns is sent to the other processes.

    Raises:
        Exception: what ``work`` raised, in all processes: otherwise the others would wait for it.
    """
    if trainer is None:
        return work()
    result: Any = None
    error: Exception | None = None
    if trainer.is_global_zero:
        try:
            result = work()
        except Exception as raised:
            error = raised
    result, error = trainer.strategy.broadcast((result, error))
    if error is not None:
        raise error
    return result
