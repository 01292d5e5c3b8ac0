"""The command ``hub``: trained models to and from the Hugging Face Hub."""

import argparse
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hiera_video.commands.export import new_folder, write_export
from hiera_video.errors import UsageError
from hiera_video.terminal import progress_line


def run(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        UserError: wrong usage or input (exit code 2), or a hub that does not answer (1).
    """
    parser = argparse.ArgumentParser(
        "hiera-video hub",
        description="Send a trained model to the Hugging Face Hub, or fetch one, as `export "
        "--format safetensors` writes it. The token comes from HF_TOKEN or `hf auth login`. "
        "HF_ENDPOINT names another hub.",
    )
    commands = parser.add_subparsers(required=True)
    add = (command := commands.add_parser("push", help="send a model to owner/name")).add_argument
    command.set_defaults(call=_push)
    add("source", metavar="RUN_OR_FILE", help="run folder, checkpoint, exported folder (whose card "
        "is kept), or published name")  # fmt: skip
    add("name", metavar="OWNER/NAME", help="repository; created if there is none")
    add("--public", action="store_true", help="for everybody; default: private")
    add("--license", metavar="NAME", type=str.lower, help="such as apache-2.0, if the weights "
        "inherit none")  # fmt: skip
    add("--results", type=Path, metavar="RUN", help="test run whose metrics the card shows")
    add("--revision", metavar="BRANCH", help="created if there is none; default: main")
    add = (command := commands.add_parser("pull", help="fetch the model owner/name")).add_argument
    command.set_defaults(call=_pull)
    add("name", metavar="OWNER/NAME", help="repository")
    add("--out", type=Path, metavar="DIR", help="new folder; default: NAME")
    add("--revision", help="branch, tag or commit; default: main")
    arguments = parser.parse_args(words)
    arguments.call(arguments)


def _push(arguments: argparse.Namespace) -> None:
    from hiera_video.export import hub
    from hiera_video.export.sharing import check_card, state_licence

    name, licence = arguments.name, arguments.license
    hub.check_name(name)
    hub.check_login()
    if licence and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise UsageError(f"--license {licence}: not a name such as apache-2.0")
    with tempfile.TemporaryDirectory(prefix="hiera-video-push-") as place:
        folder = Path(place)
        _gather(arguments, folder)
        state_licence(folder, licence)
        print(check_card(folder, private=not arguments.public))
        with progress_line(f"send to {name}", None):
            address = hub.push(folder, name, not arguments.public, arguments.revision)
    print(f"{arguments.source} -> {address} ({'public' if arguments.public else 'private'})")


def _gather(arguments: argparse.Namespace, folder: Path) -> None:
    """Put the files to send into a folder: those of an export as they are, else new ones."""
    from hiera_video.export.hub import FILES
    from hiera_video.export.provenance import read_results
    from hiera_video.weights.portable import build
    from hiera_video.weights.trained import read_trained

    trained = read_trained(arguments.source)
    results = arguments.results and read_results(arguments.results, trained.weights)
    home = trained.home
    if home and not trained.checkpoint and all((home / file).is_file() for file in FILES):
        if results:
            raise UsageError("--results is for runs: the card of an export is sent as it is")
        build(trained.description, trained.weights)  # refuses what is damaged
        for file in FILES:
            shutil.copyfile(home / file, folder / file)
        return
    short = arguments.name.rpartition("/")[2]
    fetch = f"# hiera-video hub pull {arguments.name}\n"
    write_export(folder, trained, "safetensors", short, results, fetch=fetch)


def _pull(arguments: argparse.Namespace) -> None:
    from hiera_video.export import hub
    from hiera_video.weights.description import one_line, words_for

    name = arguments.name
    hub.check_name(name)
    out = arguments.out or Path(name.rpartition("/")[2])
    with new_folder(out) as folder, progress_line(f"fetch {name}", None):
        pulled = hub.pull(name, folder, arguments.revision)
    model = pulled.description
    print(f"{name} ({pulled.commit[:10]}) -> {out}: {words_for(model.kind)}, {model.name}")
    print(f"licence: {one_line(model.licence or 'none stated; ask its owner')}")
    if pulled.left_out:
        print(f"left on the hub: {', '.join(pulled.left_out)}")
