"""Commands that need not import anything first: forks of a process that has done so once.

A tiny run takes a second and its imports take six. Here `python -m hiera_video` begins in a process
of its own, with its own words, folder, environment, output and exit code, but with everything
imported that a run may import. What a command itself imports, and how Lightning starts the other
processes of a run, is for tests that use `run` of `conftest.py`.
"""

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cache, partial

from tests.integration.conftest import ROOT
from tests.ports import free_port

SECONDS = 300  # that a command may take
# Threads of so little work, on cores that others want too, would wait for one another.
THREADS = {"OMP_NUM_THREADS": "1"}


class Command:
    """A command that has been started.

    Args:
        words: after `hiera-video`.
        module: that runs; by default, that of our commands.
        cwd: its current folder.
        stderr: file descriptor that its errors go to; by default, where its output goes.
        environment: variables besides ours.
    """

    def __init__(self, *words, cwd, module="hiera_video", stderr: int | None = None, **environment):
        self.words = [*map(str, words)]
        variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **THREADS, **environment}
        request = {"words": self.words, "cwd": str(cwd), "environment": variables}
        request["module"] = module
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `wait`
        self._status, theirs = os.pipe()
        output = self._output.fileno()
        files = [output, output if stderr is None else stderr, theirs]
        _, requests = _server()
        socket.send_fds(requests, [json.dumps(request).encode()], files)
        os.close(theirs)

    def wait(self, code: int | None = 0) -> str:
        """See that it ends with this code, whichever with None; returns what it printed."""
        with open(self._status, "rb") as status, self._output as file:
            ended = int(status.read())
            file.seek(0)
            output = file.read().decode()
        assert code is None or ended == code, f"{self.words} ended with {ended}\n{output}"
        return output


def run(*words, cwd, code: int | None = 0, **environment) -> str:
    """Run a command to its end."""
    return Command(*words, cwd=cwd, **environment).wait(code)


def run_several(*words, processes, cwd, code: int | None = 0, **environment) -> str:
    """Run a command as several processes, started as `torchrun --nproc-per-node N` does.

    Those that Lightning starts need imports of their own. Returns what all printed.
    """
    group = {"TORCHELASTIC_RUN_ID": "several", "GROUP_RANK": "0", "ROLE_RANK": "0"}
    group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    group |= {"WORLD_SIZE": f"{processes}", "LOCAL_WORLD_SIZE": f"{processes}"}
    started = [
        Command(*words, cwd=cwd, **environment, **group, LOCAL_RANK=f"{rank}", RANK=f"{rank}")
        for rank in range(processes)
    ]
    with ExitStack() as ends:  # also if another one has not ended as it should
        outputs: list[str] = []
        for process in reversed(started):
            ends.callback(lambda process=process: outputs.append(process.wait(code)))
    return "".join(outputs)


run_two = partial(run_several, processes=2)


@cache
def _server() -> tuple[subprocess.Popen, socket.socket]:
    """Start it; it ends with this process, which holds the only other end of its input."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        program = [sys.executable, "-m", "tests.integration.forked"]
        environment = {**os.environ, **THREADS}
        return subprocess.Popen(program, cwd=ROOT, stdin=theirs, env=environment), ours


def _serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for `_watch`
    requests = socket.socket(fileno=os.dup(0))
    while True:
        message, files, *_ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            return
        if not os.fork():
            requests.close()
            _watch(json.loads(message), *files)
        for file in files:
            os.close(file)


def _watch(request, output: int, errors: int, status: int) -> None:
    """Run one command in a fork, and write its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    if pid := os.fork():
        os.write(status, b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    os.close(status)
    signal.alarm(SECONDS)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [request["cwd"], *filter(None, more)]
    sys.argv = ["hiera-video", *request["words"]]
    raise _Begin(request["module"])


class _Begin(BaseException):
    """Leaves the server's frames, so that the command ends as a program does."""


if __name__ == "__main__":
    import PIL.Image
    import s3fs  # noqa: F401
    import tensorboard.plugins.hparams.metadata  # noqa: F401
    from hydra import compose, initialize_config_dir

    import hiera_video.commands.prepare
    import hiera_video.running.hydra_app
    import hiera_video.running.run  # noqa: F401
    from hiera_video.running.compose import register_resolvers
    from hiera_video.running.configurations import conf_dir

    PIL.Image.init()
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        # Hydra's parsers keep what they have found out about their grammars.
        compose("experiment/demo/finetune", ["data.size=[64,64]", "+a.b=c", "trainer.devices=1"])
    gc.freeze()  # what is there now stays: no fork need look at it
    try:
        _serve()
    except _Begin as begin:
        runpy.run_module(begin.args[0], run_name="__main__", alter_sys=True)
