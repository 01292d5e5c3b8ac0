"""Trained models on the Hugging Face Hub, in the format of ``export --format safetensors``.

Three files by fixed names go there and come back. So nothing that is fetched can run code or lie
outside the folder, whatever else a repository holds.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hiera_video.errors import CheckpointError, UsageError
from hiera_video.export.sharing import CARD
from hiera_video.weights.description import JSON, Description, one_line, read_description
from hiera_video.weights.portable import WEIGHTS, build, check_readable

FILES = (JSON, WEIGHTS, CARD)
USUAL = ".gitattributes"  # the hub puts it into every repository
LOGIN = "set HF_TOKEN, or run `hf auth login`"


class Pulled(NamedTuple):
    """What came from the hub.

    Attributes:
        commit: the commit that was fetched, a hexadecimal hash.
        description: of the model.
        left_out: other files of the repository, which were not fetched.
    """

    commit: str
    description: Description
    left_out: list[str]


def check_login() -> None:
    """See that there is a token, in the environment or from a login.

    Raises:
        UsageError: there is none, or huggingface_hub is not installed.
    """
    if _library().get_token() is None:
        raise UsageError(f"not logged in to the hub: {LOGIN}")


def push(folder: Path, name: str, private: bool = True, revision: str | None = None) -> str:
    """Send an export to a repository, which is created if there is none, in one commit.

    Args:
        folder: what ``export --format safetensors`` wrote, with a card that `check_card` passed.
        name: of the repository, ``owner/name``.
        private: whether it is, or will be, for its owner alone.
        revision: a branch, which is created if there is none; None: the main one.

    Returns:
        The address of the commit.

    Raises:
        UsageError: no access, no network, or a repository of the other visibility.
    """
    hub = _library()
    api = hub.HfApi()
    with _one_line(name):
        try:
            exists_private = bool(api.model_info(name).private)
        except hub.errors.RepositoryNotFoundError:
            api.create_repo(name, private=private)
        else:
            _check_visibility(name, exists_private, private)
        if revision:
            api.create_branch(name, branch=revision, exist_ok=True)
        commit = api.create_commit(
            name,
            [hub.CommitOperationAdd(file, folder / file) for file in FILES],
            commit_message="Upload with hiera-video",
            revision=revision,
        )
    return commit.commit_url


def pull(name: str, folder: Path, revision: str | None = None) -> Pulled:
    """Fetch an export from a repository, and see that the model can be built from it.

    Args:
        name: of the repository, ``owner/name``.
        folder: an empty folder.
        revision: a branch, tag or commit; None: the main branch.

    Raises:
        UsageError: no such repository or revision, no access, no network, or no export in it.
        CheckpointError: its files are damaged, or not what they should be.
    """
    api = _library().HfApi()
    with _one_line(name):
        info = api.model_info(name, revision=revision, files_metadata=True)
        files = {file.rfilename: file for file in info.siblings or ()}
        if not {JSON, WEIGHTS} <= files.keys():
            missing = JSON if JSON not in files else WEIGHTS
            raise UsageError(f"{name}: not an export of this project (there is no {missing})")
        for file in FILES:
            if file in files:
                api.hf_hub_download(name, file, revision=info.sha, local_dir=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's notes
    try:
        for file in folder.iterdir():
            _check_hash(file, files[file.name])
        description = read_description(folder / JSON)
        check_readable(description, folder / JSON)
        build(description, folder / WEIGHTS)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), name)) from error
    left_out = [one_line(file) for file in sorted(files) if file not in (*FILES, USUAL)]
    return Pulled(str(info.sha), description, left_out)


def check_name(name: str) -> None:
    """See that a name is that of a repository.

    Raises:
        UsageError: it is not ``owner/name``.
    """
    try:
        _library().utils.validate_repo_id(name)
    except ValueError:
        pass
    else:
        if "/" in name:
            return
    raise UsageError(f"{name}: not the name of a repository, which is owner/name")


def _check_visibility(name: str, is_private: bool, wanted_private: bool) -> None:
    if is_private and not wanted_private:
        raise UsageError(f"{name} is private; push without --public, or change it on its page")
    if wanted_private and not is_private:
        raise UsageError(f"{name} is public; push with --public if everybody may have the model")


def _check_hash(file: Path, remote: Any) -> None:
    """Compare a large file with the hash that the hub has of it."""
    if file.is_symlink() or not file.is_file():
        raise CheckpointError(f"{file}: not a file")
    if remote.lfs is None:
        return
    with open(file, "rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != remote.lfs.sha256:
            raise CheckpointError(f"{file}: not the file that the hub describes; pull it again")


def _library() -> Any:
    """The package huggingface_hub; quiet, unless someone watches."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise UsageError(
            "the hub needs another package: in the checkout, pip install '.[hub]'"
        ) from error
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    return huggingface_hub


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Raise errors of the library as a UsageError of one line."""
    hub = _library()
    errors = hub.errors
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{name}: no such revision") from error
    except errors.GatedRepoError as error:
        raise UsageError(f"{name}: ask for access on its page first") from error
    except errors.RepositoryNotFoundError as error:
        hidden = "one that your token does not open" if hub.get_token() else "a private one"
        raise UsageError(
            f"{name}: no such repository on the hub, or {hidden}; to log in, {LOGIN}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise UsageError(f"{name}: {_answer(error)}", 1) from error
    except errors.OfflineModeIsEnabled as error:
        raise UsageError(f"{name}: the hub is switched off (HF_HUB_OFFLINE)", 1) from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError) as error:
        reason = one_line(error.__cause__ or error) or type(error).__name__
        where = hub.constants.ENDPOINT
        raise UsageError(f"{name}: {where} cannot be reached ({reason})", 1) from error
    except ValueError as error:  # of the first lines of the card
        raise UsageError(f"{name}: {one_line(error)}") from error


def _answer(error: Any) -> str:
    """What the hub's refusal means."""
    status = error.response.status_code
    if status == 401:
        return f"the hub does not accept the token; {LOGIN}"
    if status == 403:
        return "the token may not do this; it needs the right to write there"
    words = one_line(error.server_message or "")
    return f"the hub answered {status} {words}".rstrip()
