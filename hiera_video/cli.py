"""``python -m hiera_video COMMAND``: find the command's module and run it.

Heavy packages are imported only where they are needed, so that ``--help`` answers at once.
"""

import json
import os
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hiera_video.errors import LostProcess, UsageError, UserError, as_user_error
from hiera_video.running.configurations import configurations, overview
from hiera_video.running.words import RUN_COMMANDS, translate
from hiera_video.terminal import did_you_mean

USAGE = """\
usage: hiera-video COMMAND ...        (or: python -m hiera_video COMMAND ...)

Train and use Hiera on video files.

  fit       train                              hiera-video fit --config demo/pretrain
  validate  evaluate on the validation split   hiera-video validate RUN
  test      evaluate with all views            hiera-video test RUN
  predict   classes, actions or objects        hiera-video predict RUN VIDEO...
  explain   where a model looks                hiera-video explain RUN VIDEO... --out DIR
  embed     features of videos and pictures    hiera-video embed RUN VIDEO... --out DIR
  evaluate  recompute a test's results         hiera-video evaluate --task classification|ava|coco
  report    one HTML page about a run          hiera-video report RUN
  prepare   probe or transcode a data set      hiera-video prepare VIDEOS --out DIR
  check     find missing or corrupt videos     hiera-video check VIDEOS_OR_DIR
  export    write a model for other programs   hiera-video export RUN --format onnx
  hub       models to and from a hub           hiera-video hub push RUN OWNER/NAME | pull OWNER/NAME
  doctor    memory and workers for training    hiera-video doctor --config NAME
  models    list the cost of every model       hiera-video models
  configs   list, show or copy configurations  hiera-video configs ls | show NAME | copy NAME

RUN is the folder of a training run, or a checkpoint of one; both contain their configuration.
--config takes a name from the list below, or a YAML file. key=value words change any value of the
configuration, which `COMMAND --config NAME --cfg job` prints. --multirun key=a,b runs once for each
value. resume=auto continues the newest run. All words after `--` are videos for `predict`.

"""

# Modules in hiera_video.commands. `run` of each takes the words that follow the command; that of
# the module `run` takes the command, too.
COMMANDS = {
    **dict.fromkeys(RUN_COMMANDS, "run"),
    "embed": "embed",
    "evaluate": "evaluate",
    "explain": "explain",
    "report": "report",
    "prepare": "prepare",
    "check": "check",
    "doctor": "doctor",
    "export": "export",
    "hub": "hub",
    "models": "models",
    "configs": "configs",
}
# What is said when Ctrl-C ends a command.
GOES_ON = {
    **dict.fromkeys(("prepare", "check", "embed"), "; run the same command again to continue"),
    "test": "; to continue, run the same command with resume=auto",
}
# If this variable is set, errors of the user keep their traceback, too.
SHOW_TRACEBACK = "HIERA_VIDEO_TRACEBACK"
COMPLETION = ("-sc", "--shell-completion")


def main() -> None:
    """Run a command line; the exit code is 0: done, 1: failed, 2: wrong usage or input."""
    words = sys.argv[1:]
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(USAGE + overview())
            sys.exit(0 if words else 2)
        if words == ["--version"]:
            print(f"hiera-video {_version()}")
            return
        _run(words)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        explanation = as_user_error(error)
        _tell_torchrun(explanation or error)
        if explanation is None or os.environ.get(SHOW_TRACEBACK):
            raise
        print(f"hiera-video: {explanation}", file=sys.stderr)
        sys.exit(explanation.exit_code)


def _tell_torchrun(error: Exception) -> None:
    """Let torchrun end with the reason of the process that failed first, not only its exit code."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    text = str(error) if isinstance(error, UserError) else traceback.format_exc()
    # In whole seconds, several processes may fail at once: the cause comes before its consequences.
    second = int(time.time()) + 60 * isinstance(error, LostProcess)
    details = {"py_callstack": text, "timestamp": str(second)}
    report = {"message": {"message": f"{type(error).__name__}: {error}", "extraInfo": details}}
    with suppress(OSError):  # which would hide the error itself
        Path(path).write_text(json.dumps(report))


def _run(words: list[str]) -> None:
    command = words[0]
    if command in COMPLETION:
        if names := _configurations_for_completion():
            print("\n".join(names))
        elif (flags := _flags_for_completion()) is not None:
            from hiera_video.running.hydra_app import shell_completion

            shell_completion([*flags, *words])
        return
    if command not in COMMANDS:
        raise UsageError(f"no command {command!r}{did_you_mean(command, COMMANDS)}; see --help")
    module = import_module(f"hiera_video.commands.{COMMANDS[command]}")
    try:
        module.run(words if command in RUN_COMMANDS else words[1:])
    except KeyboardInterrupt:
        raise UsageError(f"stopped{GOES_ON.get(command, '')}", 130) from None


def _version() -> str:
    try:
        return version("hiera-video")
    except PackageNotFoundError:
        return "of a checkout that is not installed"


def _configurations_for_completion() -> list[str]:
    """Names that begin as the word that is being typed after ``--config``."""
    words = os.environ.get("COMP_LINE", "").split(" ")
    if words[-2:-1] != ["--config"]:
        return []
    return [name for name in configurations() if name.startswith(words[-1])]


def _flags_for_completion() -> list[str] | None:
    """Translate the words typed so far for Hydra's shell completion.

    Returns:
        Flags that select their configuration, none if Hydra installs itself; None: it cannot
        answer, as there is no command with its configuration.
    """
    line = os.environ.get("COMP_LINE")
    if line is None:
        return []
    words = line.split(" ")
    if len(words) < 3 or words[1] not in RUN_COMMANDS:
        return None
    try:
        call = translate(words[1:-1])
    except UsageError:  # of words that are not complete yet
        return None
    os.environ["COMP_LINE"] = " ".join([words[0], *call.overrides, words[-1]])
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return call.config_flags
