"""``python -m hiera_video <command>``: from the first word to the command's own module.

Nothing heavy is imported before it is needed, so that ``--help`` answers at once.
"""

import os
import sys
from importlib import import_module

from hiera_video.errors import UsageError, as_user_error
from hiera_video.running.configurations import configurations
from hiera_video.running.words import RUN_COMMANDS, translate
from hiera_video.terminal import did_you_mean

USAGE = """\
usage: hiera-video COMMAND ...        (or: python -m hiera_video COMMAND ...)

Train and use Hiera on video files.

  fit       train                              hiera-video fit --config demo/pretrain
  validate  evaluate on the validation split   hiera-video validate RUN
  test      evaluate with all views            hiera-video test RUN
  predict   name what happens in videos        hiera-video predict RUN VIDEO...
  evaluate  a test's numbers from its files    hiera-video evaluate --task classification|ava
  prepare   probe or transcode a data set      hiera-video prepare VIDEOS --out DIR
  check     missing, changed, corrupt videos   hiera-video check VIDEOS_OR_DIR
  export    for other programs, with a card    hiera-video export RUN --format onnx
  doctor    decode rate and workers needed     hiera-video doctor --config NAME
  models    parameters and multiply-adds of every model; models heads WEIGHTS VIDEO: see --help
  configs   ls | show NAME | copy NAME: the configurations that --config takes

RUN is the folder of a training run, or a checkpoint of one: it says what it is and how it was made.
--config takes a name from the list below or a YAML file, to begin. After either come any key=value
of the configuration (`COMMAND --config NAME --cfg job` prints it). Also: --multirun key=a,b;
resume=auto continues the newest run; everything after `--` is a video for `predict`.

configurations:
"""

# The module of each command in hiera_video.commands; its `run` takes the words that follow.
COMMANDS = {
    **dict.fromkeys(RUN_COMMANDS, "run"),
    "evaluate": "evaluate",
    "prepare": "prepare",
    "check": "check",
    "doctor": "doctor",
    "export": "export",
    "models": "models",
    "configs": "configs",
}
# Set, it shows where an error comes from that is one line for the user.
SHOW_TRACEBACK = "HIERA_VIDEO_TRACEBACK"
COMPLETION = ("-sc", "--shell-completion")


def main() -> None:
    """Entry point of both spellings; exits 0 done, 1 failed, 2 wrong usage or input."""
    words = sys.argv[1:]
    try:
        _complete_our_grammar()
        if not words or words[0] in ("-h", "--help", "help"):
            print(USAGE + "\n".join(f"  {name}" for name in configurations()))
            sys.exit(0 if words else 2)
        _run(words)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        explanation = as_user_error(error)
        if explanation is None or os.environ.get(SHOW_TRACEBACK):
            raise
        print(f"hiera-video: {explanation}", file=sys.stderr)
        sys.exit(explanation.exit_code)


def _run(words: list[str]) -> None:
    command = words[0]
    if command in COMPLETION:
        from hiera_video.running.hydra_app import shell_completion

        shell_completion(words)
        return
    if command not in COMMANDS:
        raise UsageError(f"no command {command!r}{did_you_mean(command, COMMANDS)}; see --help")
    module = import_module(f"hiera_video.commands.{COMMANDS[command]}")
    try:
        module.run(words if command in RUN_COMMANDS else words[1:])
    except KeyboardInterrupt:
        if command not in ("prepare", "check"):
            raise
        raise UsageError("stopped; the same command goes on from here", 130) from None


def _complete_our_grammar() -> None:
    """Let Hydra's shell completion see its own grammar in what has been typed so far."""
    line = os.environ.get("COMP_LINE")
    if line is None or len(words := line.split(" ")) < 3 or words[1] not in RUN_COMMANDS:
        return
    try:
        call = translate(words[1:-1])
    except UsageError:  # of words that are not complete yet
        return
    os.environ["COMP_LINE"] = " ".join([words[0], *call.config_flags, *call.overrides, words[-1]])
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
