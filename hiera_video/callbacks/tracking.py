"""Loggers of services that track runs: Weights & Biases and MLflow.

Each keeps the id of its run in a file of the run's folder, so that a training that is resumed goes
on with the same run there.
"""

import logging
import os
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from datamodules.files import atomic_file
from hiera_video.errors import UsageError

log = logging.getLogger(__name__)


class WandbRun(WandbLogger):
    """A run of Weights & Biases.

    Offline, everything is written to ``save_dir/wandb``, and nothing uses the network.

    Args:
        id_file: has the id of the run; written when it begins.
        id: of a run to go on with, in place of the file's.
        offline: write to the disk alone.
        **arguments: of Lightning's ``WandbLogger``, which passes others on to ``wandb.init``.

    Raises:
        UsageError: the package wandb is missing.
    """

    def __init__(
        self, id_file: str | Path, id: str | None = None, offline: bool = False, **arguments: Any
    ) -> None:
        _see_that_it_is_installed("wandb")
        if offline:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._id_file = Path(id_file)
        super().__init__(id=id or _id_in(self._id_file), offline=offline, **arguments)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, which begins when it is first asked for.

        Raises:
            UsageError: the service cannot be reached, or does not take the run.
        """
        if self._experiment is None:
            from wandb.errors import Error  # pyright: ignore[reportMissingImports]

            try:
                run = super().experiment
            except Error as error:
                reason = _first_line(error)
                raise UsageError(
                    f"Weights & Biases: {reason} To run without it: logger.wandb.offline=true"
                ) from error
            _write_id(self._id_file, run.id)
        return self._experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run, so that another one can begin in this process, as in a sweep."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)


class MLflowRun(MLFlowLogger):
    """A run of MLflow. If the server fails, the log says so and the training goes on.

    Args:
        id_file: has the id of the run; written when it begins.
        tracking_uri: of a server or of a store on the disk.
        run_id: of a run to go on with, in place of the file's.
        **arguments: of Lightning's ``MLFlowLogger``.

    Raises:
        UsageError: the package mlflow is missing, or cannot use ``tracking_uri``.
    """

    def __init__(
        self,
        id_file: str | Path,
        tracking_uri: str | None = None,
        run_id: str | None = None,
        **arguments: Any,
    ) -> None:
        _see_that_it_is_installed("mlflow")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it must be asked for by its URI
        self._id_file, self._gave_up = Path(id_file), False
        run_id = run_id or _id_in(self._id_file)
        with _explained():
            super().__init__(tracking_uri=tracking_uri, run_id=run_id, **arguments)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client; the run begins, or goes on, when it is first asked for.

        Raises:
            UsageError: the server cannot be reached, or has no such run.
        """
        if self._gave_up:
            return DummyLogger().experiment
        if not self._initialized:
            earlier = self._run_id
            with _explained(f"; {self._id_file} names the run" if earlier else ""):
                client = super().experiment
                if earlier:
                    client.update_run(earlier, "RUNNING")
            _write_id(self._id_file, self._run_id or "")
        return self._mlflow_client

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add points to curves; what MLflow refuses in their names becomes ``_``.

        Lightning would drop all letters but English ones, and with them the classes of others.
        """
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        prefix, now = f"{self._prefix}-" if self._prefix else "", round(1000 * time.time())
        points = [
            Metric(_allowed(prefix + name), float(value), now, step or 0)
            for name, value in metrics.items()
        ]

        def log_points() -> None:
            self.experiment.log_batch(self.run_id, metrics=points, **self._log_batch_kwargs)

        self._unless_given_up(log_points)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Record hyperparameters; of a resumed run MLflow keeps those of its first start."""

        def log_new() -> None:
            earlier = self.experiment.get_run(self.run_id).data.params
            new = {name: value for name, value in params.items() if name not in earlier}
            MLFlowLogger.log_hyperparams(self, new)

        self._unless_given_up(log_new)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """End the run."""
        self._unless_given_up(super().finalize, status)

    def _unless_given_up(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call, and give up if the server fails; MLflow has tried for minutes by then."""
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]

        if self._gave_up:
            return
        try:
            call(*arguments)
        except MlflowException as error:
            self._gave_up = True
            log.warning(f"MLflow: {_first_line(error)}; its curves end here")


def _allowed(name: str) -> str:
    """A name of a curve as MLflow takes it: with letters of any language, and as a plain path."""
    name = re.sub(r"[^\w/. -]", "_", name)
    return name if posixpath.normpath(name) == name else name.replace("/", "_")


def _see_that_it_is_installed(package: str) -> None:
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a mere folder of this name has no origin
        raise UsageError(
            f"the package {package} is not installed: pip install {package}, or leave it out with "
            f"logger.{package}=null"
        )


@contextmanager
def _explained(hint: str = "") -> Iterator[None]:
    """Turn an error of MLflow into a UsageError."""
    from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]

    try:
        yield
    except MlflowException as error:
        raise UsageError(f"MLflow: {_first_line(error)}{hint}", 1) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _id_in(file: Path) -> str | None:
    """The id that an earlier start of the run wrote; None for a new run."""
    return file.read_text(encoding="utf-8").strip() or None if file.is_file() else None


def _write_id(file: Path, run_id: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        temporary.write_text(f"{run_id}\n", encoding="utf-8")
