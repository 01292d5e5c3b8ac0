"""The commands of the demos."""

import os
import signal
import subprocess
import sys

import pytest

from benchmarks.demo import command
from tests.integration.conftest import ROOT

STUB = """#!/bin/sh
trap 'echo saved; exit 130' INT
echo ready
while true; do sleep 0.05; done
"""


def test_a_command_that_fails_ends_the_demo_with_its_code():
    assert command("--version") > 0
    with pytest.raises(SystemExit) as stopped:
        command("fitt")
    assert stopped.value.code == 2


def test_on_ctrl_c_the_command_ends_first(tmp_path):
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    program = f"import sys; from benchmarks.demo import command; sys.executable = {str(stub)!r}"
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}; command('fit')"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout
        while demo.stdout.readline() != "ready\n":
            pass
        os.killpg(demo.pid, signal.SIGINT)
        output = demo.stdout.read()
    assert (output, demo.returncode) == ("saved\n", 130)
