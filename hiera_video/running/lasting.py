"""Imports without garbage collection."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Keep the garbage collector away from what is imported, then and ever after.

    Modules last as long as the process. Looking for garbage in those of torch and Lightning, again
    and again while they are imported and once more at exit, takes a quarter of the time of a
    command that does little else. What else is alive then is kept from it, too: in a command that
    is little; in a notebook, what its cells have made. Where nothing is imported, as in the later
    jobs of a sweep, nothing is kept.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        gc.enable()
