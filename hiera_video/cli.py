"""``python -m hiera_video <command>``: the commands, and from their words to Hydra's.

Nothing heavy is imported before it is needed, so that ``--help`` answers at once.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hiera_video.running.words import (
    RUN_COMMANDS,
    UsageError,
    configs,
    run_help,
    translate,
)
from hiera_video.spelling import did_you_mean

USAGE = """\
usage: hiera-video COMMAND ...        (or: python -m hiera_video COMMAND ...)

Train and use Hiera on video files.

  fit       train                              hiera-video fit --config demo/pretrain
  validate  evaluate on the validation split   hiera-video validate --config NAME ckpt_path=FILE
  test      evaluate with all views            hiera-video test --config NAME ckpt_path=FILE
  predict   name the class of video files      hiera-video predict --config NAME ckpt_path=FILE PATH
  evaluate  a test's numbers from its files    hiera-video evaluate --task classification|ava
  prepare   probe or transcode a data set      hiera-video prepare VIDEOS --out DIR
  check     missing, changed, corrupt videos   hiera-video check VIDEOS_OR_DIR
  export    for other programs, with a card    hiera-video export RUN_OR_FILE --format onnx
  doctor    decode rate and workers needed     hiera-video doctor --config NAME
  models    parameters and multiply-adds of every model; models heads WEIGHTS VIDEO: see --help
  configs   ls | show NAME | copy NAME: the configurations that --config takes

--config takes a name from the list below or a YAML file; then any key=value of that configuration
(`COMMAND --config NAME --cfg job` prints it). Also: --multirun key=a,b; resume=auto continues the
newest run; everything after `--` is a video for `predict`.

configurations:
"""


def main() -> None:
    """Entry point of both spellings; exits 0 done, 1 failed, 2 wrong usage or input."""
    words = sys.argv[1:]
    try:
        _complete_our_grammar()
        if not words or words[0] in ("-h", "--help", "help"):
            print(USAGE + "\n".join(f"  {name}" for name in configs()))
            sys.exit(0 if words else 2)
        if words[0] in RUN_COMMANDS:
            _run(words)
        elif words[0] in ("-sc", "--shell-completion"):
            from hiera_video.running import hydra_app

            hydra_app.shell_completion(words)
        elif words[0] in OTHER_COMMANDS:
            OTHER_COMMANDS[words[0]](words[1:])
        else:
            known = (*RUN_COMMANDS, *OTHER_COMMANDS)
            raise UsageError(f"no command {words[0]!r}{did_you_mean(words[0], known)}; see --help")
    except UsageError as error:
        print(f"hiera-video: {error}", file=sys.stderr)
        sys.exit(error.code)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: Sequence[str]) -> None:
    if {"-h", "--help"} & set(words):
        print(run_help(words[0]))
        return
    call = translate(words)
    from hiera_video.running import hydra_app

    hydra_app.main(call)


def _models(words: Sequence[str]) -> None:
    if words[:1] == ["heads"]:
        from hiera_video.commands import decoder_heads

        decoder_heads.run(words[1:])
        return
    parser = argparse.ArgumentParser(
        "hiera-video models",
        usage="%(prog)s [-h] | %(prog)s heads WEIGHTS VIDEO ...",
        description="Print parameters and multiply-adds. `models heads` says with how many decoder "
        "heads a masked autoencoder was trained.",
    )
    parser.parse_args(words)
    from hiera_video.models.complexity import complexity_table

    print(complexity_table())


def _configs(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("hiera-video configs")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("ls", help="list the names")
    actions.add_parser("show", help="print one").add_argument("name")
    copy = actions.add_parser("copy", help="copy one here, to edit and pass to --config")
    copy.add_argument("name")
    copy.add_argument("target", nargs="?", type=Path, help="file to write; default: NAME.yaml here")
    arguments = parser.parse_args(words)
    known = configs()
    if arguments.action == "ls":
        print("\n".join(known))
        return
    if arguments.name not in known:
        raise UsageError(
            f"no configuration {arguments.name!r}{did_you_mean(arguments.name, known)}"
        )
    source = known[arguments.name]
    if arguments.action == "show":
        print(source.read_text(), end="")
        return
    target = arguments.target or Path(arguments.name.replace("/", "_") + ".yaml")
    if target.exists():
        raise UsageError(f"{target} exists; name another file")
    shutil.copyfile(source, target)
    print(f"{target}: use it with --config {target}")


def _on_data(command: str) -> Callable[[Sequence[str]], None]:
    def run(words: Sequence[str]) -> None:
        from hiera_video.commands import prepare as data_commands

        data_commands.run(command, words)

    return run


def _export(words: Sequence[str]) -> None:
    from hiera_video.commands import export as export_command

    export_command.run(words)


def _complete_our_grammar() -> None:
    """Let Hydra's shell completion see its own grammar in what has been typed so far."""
    line = os.environ.get("COMP_LINE")
    if line is None or len(words := line.split(" ")) < 3 or words[1] not in RUN_COMMANDS:
        return
    if not any(word.startswith("--config") for word in words[2:-1]):
        return
    call = translate(words[1:-1])
    os.environ["COMP_LINE"] = " ".join([words[0], *call.config_flags, *call.overrides, words[-1]])
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))


def _evaluate(words: Sequence[str]) -> None:
    from hiera_video.commands import evaluate as evaluate_command

    evaluate_command.run(words)


OTHER_COMMANDS = {
    "evaluate": _evaluate,
    "prepare": _on_data("prepare"),
    "check": _on_data("check"),
    "doctor": _on_data("doctor"),
    "export": _export,
    "models": _models,
    "configs": _configs,
}
