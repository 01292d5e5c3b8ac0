"""What else happens when `prepare` does a file, in tests. Workers import it: it must be small."""

import os
import signal
import time


def logged(do, log, path, alive):
    """Do a file, and note in a log that it was opened; die or hang at some files."""
    with open(log, "a") as lines:
        lines.write(f"{path}\n")
    if "crash" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in path:
        time.sleep(100)
    return do(path, alive)


def full_disk(path, alive):
    raise OSError(28, "No space left on device", path)
