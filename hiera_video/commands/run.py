"""The commands ``fit``, ``validate``, ``test`` and ``predict``, which run a configuration."""

from collections.abc import Sequence

from hiera_video.running.configurations import overview
from hiera_video.running.words import translate

DESCRIPTIONS = {
    "fit": "train; resume=RUN or auto continues a run, task.init_from=FILE starts from weights",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split with all views; resume=auto continues an interrupted test",
    "predict": "classify videos or pictures (files and folders); write JSON lines to out=FILE\n"
    "stride=SECONDS: answers along each video, to out=DIR; camera:N, rtsp:// or http://: live\n"
    "action detection: persons from boxes=detector, RUN, FILE.csv or full_frame; write to out=DIR\n"
    "instance segmentation: objects in pictures and videos; write to out=DIR",
}
USAGES = {
    "fit": "(--config NAME_OR_FILE | resume=RUN) [key=value ...]",
    "validate": "(RUN | --config NAME_OR_FILE ckpt_path=FILE) [key=value ...]",
    "test": "(RUN | --config NAME_OR_FILE ckpt_path=FILE) [key=value ...]",
    "predict": "(RUN | --config NAME_OR_FILE ckpt_path=FILE) [key=value ...] VIDEO_OR_FOLDER...",
}


def run(words: Sequence[str]) -> None:
    """Run one of the commands.

    Args:
        words: the command and what follows it.

    Raises:
        UserError: wrong usage or input, or the work failed.
    """
    if {"-h", "--help"} & set(words):
        rest = [word for word in words if word not in ("-h", "--help")]
        print(help_text(words[0]))
        if any(word.partition("=")[0] == "--config" for word in rest):
            print(f"\n{_described(rest)}")
        return
    call = translate(words)
    from hiera_video.running.hydra_app import main

    main(call)


def help_text(command: str) -> str:
    """The text that ``--help`` prints for one of the commands."""
    return (
        f"usage: hiera-video {command} {USAGES[command]}\n"
        "\n"
        f"{DESCRIPTIONS[command]}\n\n"
        "  RUN                folder of a training run, or a checkpoint of one\n"
        "  --cfg job          print the configuration and stop\n"
        "  --help --config NAME   also list what can be set in model, data and task\n"
        "  --multirun         run once for every combination of key=a,b,...; prints a table of\n"
        "                     the jobs, best first; a sweep's folder can stand for RUN\n\n"
        f"{overview()}"
    )


def _described(words: Sequence[str]) -> str:
    """What can be set in the configuration that the words name.

    Raises:
        UsageError: an unknown configuration, or words that do not fit it.
    """
    from hiera_video.running.settings import settings

    return settings(translate(words))
