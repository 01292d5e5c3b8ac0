import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from datamodules.errors import WorkerFailure
from datamodules.loading.file_workers import Lost, work


def task(item, alive):
    """Do what the item says."""
    kind, value = item
    if kind == "die":
        os.kill(os.getpid(), value)
    elif kind == "exit":
        os._exit(value)
    elif kind == "die once" and not os.path.exists(value):
        open(value, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "die beside others":  # at first; then it must be alone
        folder = os.path.dirname(value)
        if not os.path.exists(value):
            open(value, "w").close()
            wait_until(lambda: len(os.listdir(folder)) > 1, seconds=100)
            os.kill(os.getpid(), signal.SIGKILL)
        os.mkdir(os.path.join(folder, "alone"))
        time.sleep(0.5)
        os.rmdir(os.path.join(folder, "alone"))
    elif kind == "hang":
        time.sleep(100)
    elif kind == "slow":
        for _ in range(value):
            time.sleep(0.1)
            alive()
    elif kind == "raise":
        raise ValueError(value)
    return value


class Dying:
    """Work that ends the process which receives it."""

    def __reduce__(self):
        return os._exit, (4,)


def results(items, **kwargs):
    return dict(work(task, items, **{"processes": 2, "patience": 60.0, **kwargs}))


def test_every_item_gets_its_result_whatever_happens_to_others(tmp_path):
    items = [("value", i) for i in range(20)]
    crash, leave = ("die", signal.SIGSEGV), ("exit", 3)
    killed = ("die", signal.SIGKILL)
    once = ("die once", str(tmp_path / "died"))
    result_of = results([crash, *items[:10], leave, once, *items[10:], killed])
    assert all(result_of[item] == item[1] for item in items)
    assert result_of[crash] == Lost("the decoder's process was ended by SIGSEGV")
    assert result_of[leave] == Lost("the decoder ended its process with exit code 3")
    assert result_of[killed] == Lost("the decoder's process was ended by SIGKILL; out of memory?")
    assert result_of[once] == once[1]  # its worker's death may have been chance
    assert len(result_of) == 24


def test_items_that_die_beside_others_are_tried_alone(tmp_path):
    items = [("die beside others", str(tmp_path / name)) for name in "ab"]
    assert results([*items, ("slow", 20)]) == {item: item[1] for item in [*items, ("slow", 20)]}
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_machine_that_ends_all_processes():
    with pytest.raises(WorkerFailure, match="ends before it gets any work: the decoder ended its"):
        dict(work(Dying(), [1], processes=1, patience=60.0))


def test_one_that_hangs_is_ended_and_one_that_is_slow_is_not():
    hang, slow = ("hang", 0), ("slow", 20)
    result_of = results([hang, slow, ("value", 1)], patience=1.2)
    assert result_of[hang] == Lost("the decoder hangs: nothing came for 1.2 s")
    assert result_of[slow] == 20
    assert result_of["value", 1] == 1


def test_an_error_of_the_work_is_raised_here():
    with pytest.raises(ValueError, match="mine"):
        results([("value", 1), ("raise", "mine")])


def test_no_items_no_processes():
    assert results([]) == {}


def test_workers_end_with_their_parent_even_if_they_hang(tmp_path):
    script = textwrap.dedent(f"""
        import os, time
        from datamodules.loading.file_workers import work

        def hang(item, alive):
            with open({str(tmp_path)!r} + f"/{{item}}", "w") as file:
                file.write(str(os.getpid()))
            time.sleep(100)

        if __name__ == "__main__":
            list(work(hang, [0, 1], processes=2, patience=100.0))
    """)
    (tmp_path / "script.py").write_text(script)
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py")]) as parent:
        files = [tmp_path / "0", tmp_path / "1"]
        wait_until(lambda: all(f.exists() and f.read_text() for f in files))
        parent.kill()
    workers = [int(file.read_text()) for file in files]
    wait_until(lambda: not any(map(is_running, workers)))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
