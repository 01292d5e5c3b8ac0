"""Handlers of the log for which a lost terminal or a full disk is one line, not a traceback."""

import errno
import logging
import os
import sys
from contextlib import suppress

log = logging.getLogger(__name__)


class _TellsOnce(logging.StreamHandler):
    """Says once that its lines cannot be written, where other handlers can be read.

    The stream keeps lines that do not fit on a disk, and writes them once there is room.
    """

    name_of_stream = "standard output"
    gone: frozenset[int] = frozenset()  # errors after which nothing can be written any more
    told = False

    def flush(self) -> None:
        """Write what waits; after that, a failure is a new one."""
        super().flush()
        self.told = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say why a line could not be written."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        gone = error.errno in self.gone
        if gone:  # nothing that is printed later, or flushed at exit, can fail again
            with suppress(OSError):  # no stream of the system
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)
        if not self.told:
            self.told = True
            rest = "no more lines go there" if gone else "its lines wait until they can be written"
            log.warning(f"{self.name_of_stream}: {error.strerror}; {rest}")


class ConsoleHandler(_TellsOnce):
    """Writes the log to the standard output: a terminal that may be lost, or a pipe."""

    gone = frozenset({errno.EPIPE, errno.EIO})


class LogFileHandler(_TellsOnce, logging.FileHandler):
    """Writes the log to a file."""

    @property
    def name_of_stream(self) -> str:
        """The path of the file."""
        return self.baseFilename
