"""Run a command through Hydra, with all of its processes, and pass its errors on."""

import contextlib
import functools
import importlib.util
import io
import logging
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import InterpolationResolutionError

from hiera_video.errors import UsageError, UserError
from hiera_video.running.compose import prepare, register_resolvers
from hiera_video.running.configurations import conf_dir
from hiera_video.running.folders import (
    is_training,
    locked,
    own_run_folder,
    refuse_earlier_run,
    remove_failed_start,
)
from hiera_video.running.lasting import lasting_imports
from hiera_video.running.launchers import (
    DDP_VARIABLES,
    are_several,
    check_name,
    check_sweep,
    is_first,
    leave_process_group,
)
from hiera_video.running.quoting import without_sweeps
from hiera_video.running.sweeps import Job, OtherListError, recorded, report
from hiera_video.running.usage_errors import explained
from hiera_video.running.words import HydraCall

log = logging.getLogger(__name__)

PRINTING_FLAGS = ("--cfg", "-c", "--info", "--hydra-help", "--version")  # nothing is run


class _ThroughHydra(SystemExit):
    """Carries an error out of Hydra, which adds a line of its own to any other exception."""

    def __init__(self, error: UserError) -> None:
        super().__init__(f"hiera-video: {error}")
        self.error = error


def main(call: HydraCall) -> None:
    """Compose the configuration and run it, once or as a sweep.

    Raises:
        UserError: wrong configuration or data, or the work failed.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # pass errors on as they were raised
    check_name(call)
    job = functools.wraps(_job)(functools.partial(_job, call))
    try:
        with explained(call):
            prepare(call)
            if not any(flag.partition("=")[0] in PRINTING_FLAGS for flag in call.flags):
                register_resolvers(_own_run_folder)
            hook = f"+hydra.callbacks.folder._target_={OwnFolder.__module__}.OwnFolder"
            sys.argv[1:] = [*call.argv, hook]
            if not is_first():  # the first process describes the run
                sys.argv.append("hydra.output_subdir=null")
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=None)(job)()
    except _ThroughHydra as stop:
        raise stop.error from stop.error.__cause__
    except KeyboardInterrupt:
        if OwnFolder.ready:  # Ctrl-C may have come before the job
            _remove_if_nothing_done(OwnFolder.ready)
        raise
    finally:
        if OwnFolder.sweep and is_first():
            report(OwnFolder.sweep)


@functools.cache
def _own_run_folder(name: str, command: str, resume: str | None) -> str:
    """`own_run_folder`, the same in the whole process; at the top of a module, to be pickled."""
    return own_run_folder(name, command, resume)


class OwnFolder(Callback):
    """Lock the folder of a training before Hydra writes into it.

    So a training that is refused leaves no trace in the folder of another one. The first process
    locks; the others write only once they have met it.

    Attributes:
        before: names of what was in the folder of a single run before it.
        ready: the folder that is locked, in this process.
        sweep: the folder of the sweep that this process runs.
    """

    before: frozenset[str] = frozenset()
    ready: Path | None = None
    sweep: Path | None = None

    def __init__(self) -> None:
        self._lock = contextlib.ExitStack()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note what is in the folder; take the lock of a training.

        Raises:
            SystemExit: another run has the folder; Hydra would only warn of other exceptions.
        """
        try:
            folder = Path(config.hydra.run.dir)
        except InterpolationResolutionError:
            return  # it cannot be made: Hydra is going to meet the same error
        _refuse_reference(folder, "run_dir")
        if not is_first():
            return
        OwnFolder.before = _names_in(folder)
        if config.command != "fit":
            return
        try:
            with contextlib.suppress(OSError):  # Hydra is going to meet the same error
                folder.mkdir(parents=True, exist_ok=True)
                self._lock.enter_context(locked(folder))
            if config.resume is None:
                refuse_earlier_run(folder)
            OwnFolder.ready = folder
        except UserError as error:
            raise _ThroughHydra(error) from error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder of the sweep, whose table is printed however it ends.

        Raises:
            SystemExit: the launcher would start jobs that cannot work.
        """
        launcher = config.hydra.launcher
        if launcher._target_.endswith(".LocalLauncher") and launcher.tasks_per_node != 1:
            reason = "submitit_local starts one process a job; trainer.devices starts the others"
            raise _ThroughHydra(UsageError(f"hydra.launcher.tasks_per_node: {reason}"))
        try:
            check_sweep(config)
        except UsageError as error:
            raise _ThroughHydra(error) from error
        folder = Path(config.hydra.sweep.dir)
        _refuse_reference(folder, "hydra.sweep.dir")
        OwnFolder.sweep = folder

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Give the lock back."""
        OwnFolder.ready = None
        self._lock.close()


def _refuse_reference(folder: Path, key: str) -> None:
    """Refuse a folder to write to in whose path Hydra would read a reference to another key."""
    if "${" in (path := os.path.abspath(folder)):
        if is_first():  # Hydra may have made the folder
            remove_failed_start(folder, _names_in(folder))
        reason = f"a run cannot be in a folder with ${{ in its name; set another {key}="
        raise _ThroughHydra(UsageError(f"{path}: {reason}"))


def shell_completion(words: list[str]) -> None:
    """Install, remove or answer Hydra's completion: ``-sc install=bash``."""
    sys.argv[1:] = words
    register_resolvers()
    answer = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="hiera_video")
    with contextlib.redirect_stdout(io.StringIO()) as text:
        answer(lambda _: None)()
    if text.getvalue().strip():  # else there is nothing to offer
        print(text.getvalue(), end="")


def _job(call: HydraCall, config: DictConfig) -> float | None:
    """Run a composed configuration; Hydra calls this once, or for each job of a sweep."""
    hydra_config: Any = HydraConfig.get()
    run_dir = hydra_config.runtime.output_dir
    # Lightning starts the other ranks with `sys.argv` and `hydra.run.dir`. The words must be those
    # of this job only: with those of the user, each rank would run the whole sweep again.
    words = [word for word in call.overrides if word.startswith("hydra.searchpath=")]
    words += _words_of_user(call, hydra_config)
    flags = [flag for flag in call.flags if flag not in ("-m", "--multirun")]
    if "SUBMITIT_EXECUTOR" in os.environ:
        _be_queued_again(config, words)
    with read_write(hydra_config), open_dict(hydra_config):
        hydra_config.run.dir = run_dir
    config.run_dir = run_dir
    sys.argv[1:] = [call.command, *call.config_words, *flags, *words]

    launcher = {name: os.environ.get(name) for name in DDP_VARIABLES}
    try:
        with lasting_imports():
            from hiera_video.running.run import run  # imports torch and Lightning: only now

        with _record(call, hydra_config) as job, explained(call):
            score = run(config)
            if score is not None:
                job.metric, job.mode, job.value = score
            return job.value
    except BaseException as error:
        _remove_if_nothing_done(Path(run_dir))
        if isinstance(error, UserError):
            if not _goes_on(hydra_config, error):
                raise _ThroughHydra(error) from error
            log.error(f"job {hydra_config.job.num} failed: {error}")
            raise UsageError(str(error), error.exit_code) from error  # which can be pickled
        raise
    finally:
        leave_process_group(launcher)


def _words_of_user(call: HydraCall, hydra_config: Any) -> list[str]:
    """The ``key=value`` words of a job without those that follow from its command line."""
    own = (f"++command={call.command}", call.own_name)
    return [word for word in hydra_config.overrides.task if word not in own]


def _be_queued_again(config: DictConfig, words: list[str]) -> None:
    """Have a job of submitit go on when it is queued again; its command stays the same."""
    if config.command in ("fit", "test") and config.resume is None:
        config.resume = "auto"
        words.append("resume=auto")
    # The other ranks are started as `python -m` of the main module, which is submitit's here.
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("hiera_video.__main__")


def _record(call: HydraCall, hydra_config: Any) -> contextlib.AbstractContextManager[Job]:
    """The job that runs, of which a sweep keeps a record."""
    sweep, words = Path(hydra_config.sweep.dir), _words_of_user(call, hydra_config)
    folder = os.path.relpath(hydra_config.runtime.output_dir, sweep)
    shared = without_sweeps(call.overrides)
    swept = [w for w in words if w not in shared and not w.startswith("++data.predict=")]
    job = Job(hydra_config.job.get("num", 0), words, folder, swept=swept)
    if hydra_config.mode == RunMode.MULTIRUN and is_first():
        return recorded(job, sweep)
    return contextlib.nullcontext(job)


def _goes_on(hydra_config: Any, error: UserError) -> bool:
    """Whether a sweep goes on after a job that failed.

    With other lists of values it does not. With several processes it does not, as the others may be
    in the middle of the job; but each job of submitit has processes of its own.
    """
    if "SUBMITIT_EXECUTOR" in os.environ:
        return True
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    return is_sweep and not are_several() and not isinstance(error, OtherListError)


def _remove_if_nothing_done(run_dir: Path) -> None:
    """Remove the folder of a run that did not start, unless it is that of another run."""
    if not is_first() or is_training(run_dir):
        return
    remove_failed_start(run_dir, OwnFolder.before)
    for handler in logging.root.handlers[:]:
        # A log file that is not open yet could not be made any more; torch logs as it ends.
        if isinstance(handler, logging.FileHandler) and not run_dir.exists():
            logging.root.removeHandler(handler)
            handler.close()


def _names_in(folder: Path) -> frozenset[str]:
    """What is in a folder, without what other processes of this run may have put there by now."""
    try:
        names = os.listdir(folder)
    except OSError:  # there is none
        return frozenset()
    return frozenset(name for name in names if not (are_several() and name.endswith(".log")))
