"""What the model said of each video, in files that other programs read."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hiera_video.errors import PredictionFileError
from hiera_video.metrics.top_classes import top_classes
from hiera_video.results.prediction_files import FailedVideo, Header, Rows, stamped
from hiera_video.results.prediction_parts import Parts, PartWriter, lock_folder

log = logging.getLogger(__name__)


class PredictionTable(Callback):
    """Write ``predictions.parquet`` during `test`: one row for each (video, view), sorted by it.

    Columns: video_id int64, path string, label int64, temporal_view and spatial_view int32,
    probabilities list of float32. The file's metadata holds as JSON ``class_names``,
    ``temporal_views``, ``spatial_views``, ``source`` (weights, videos, clips), and ``failed``: the
    videos that could not be decoded and count as wrong, each with video_id, path, label and reason.

    Rows go to disk about every minute, into a folder beside the file; all processes write there,
    the first joins them at the end. A test that was cut off goes on after them.

    Args:
        path: the file.
        weights: the checkpoint that is tested; None: what the task starts from.
    """

    def __init__(self, path: str | Path, weights: str | Path | None = None) -> None:
        self.path, self.weights = Path(path), weights
        self._writer: PartWriter | None = None
        self._lock: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave out what an earlier test in this folder has done.

        Raises:
            MisconfigurationException: that was another test, or it cannot be read.
        """
        if stage != "test":
            return
        datamodule: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        done: Any = None
        if trainer.is_global_zero:
            try:
                done = self._done(self._header(trainer, pl_module))
            except (PredictionFileError, MisconfigurationException) as error:
                done = str(error)  # for all processes: none may wait for this one
        done = trainer.strategy.broadcast(done)
        if isinstance(done, str):
            raise MisconfigurationException(done)
        # Each process needs a video: one without any would miss what the others do together.
        videos = len(datamodule.manifests["test"])
        datamodule.evaluated["test"] = done[: max(0, videos - trainer.world_size)]
        if len(done) and trainer.is_global_zero:
            log.info(f"{len(done)} of {videos} videos were evaluated before")

    def _done(self, header: Header) -> np.ndarray:
        self._lock = lock_folder(self._parts)
        parts = Parts(self._parts)
        if differs := parts.differs_from(header):
            raise MisconfigurationException(
                f"{self._parts} is of a test with another {differs}; set another run_dir="
            )
        return parts.videos()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count what was done before; open this process's parts."""
        task: Any = pl_module
        if trainer.is_global_zero:
            for part in Parts(self._parts).files:
                part.count(task.metrics["test_accuracy"])
        header = self._header(trainer, pl_module)
        self._writer = PartWriter(self._parts, header, trainer.global_rank)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append the batch."""
        assert self._writer is not None
        manifest = trainer.datamodule.manifests["test"]  # pyright: ignore
        columns = {key: value.cpu().numpy() for key, value in outputs.items()}
        ids = columns["video_id"]
        paths = {i: manifest.path(i) for i in np.unique(ids).tolist()}
        others = (columns[key] for key in ("label", "view", "probabilities"))
        rows = Rows(ids, [paths[i] for i in ids.tolist()], *others)
        failed = [
            FailedVideo(manifest.path(f.video_id), f.video_id, f.label, f.reason)
            for f in batch["failed"]
        ]
        self._writer.add(rows, failed)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the parts of all processes."""
        assert self._writer is not None
        self._writer.flush(empty=trainer.is_global_zero)
        self._writer = None
        trainer.strategy.barrier("predictions are written")
        if trainer.is_global_zero:
            Parts(self._parts).join()
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keep what there is."""
        if self._writer is not None:
            self._writer.flush()
        self._release()

    def _release(self) -> None:
        if self._lock is None:
            return
        self._lock.close()
        self._lock = None
        if not any(self._parts.glob("*.parquet")):  # nothing to go on after
            shutil.rmtree(self._parts, ignore_errors=True)

    @property
    def _parts(self) -> Path:
        return self.path.with_name(self.path.name + ".parts")

    def _header(self, trainer: Trainer, pl_module: LightningModule) -> Header:
        task: Any = pl_module
        datamodule: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        manifest = datamodule.manifests["test"]
        videos = hashlib.sha256()
        for name in ("path", "label"):
            videos.update("\n".join(map(str, manifest.table[name].to_pylist())).encode())
        source = {
            "weights": stamped(self.weights or task.init_from),
            "videos": videos.hexdigest(),
            "root": manifest.root,
            "clip": str(datamodule.clip),
            "normalisation": [v.flatten().tolist() for v in task.normalize.buffers()],
            "precision": str(trainer.precision),
        }
        names = task.class_names or datamodule.class_names or ()
        temporal, spatial = datamodule.views("test")
        return Header(tuple(names), temporal, spatial, source)


class PredictionLines(Callback):
    """Write the most probable classes of each video during `predict`, one JSON object a line.

    ``{"path": ..., "predictions": [{"label": ..., "probability": ...}, ...]}``, probabilities
    averaged over views; ``{"path": ..., "error": ...}`` for a file that cannot be decoded.

    Args:
        path: the file. Each rank writes a part beside it; rank 0 joins and removes them.
        top: classes a video.

    Attributes:
        answered: videos that this rank could decode.
    """

    def __init__(self, path: str | Path, top: int = 5) -> None:
        self.path, self.top = Path(path), top
        self.answered = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this rank's file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self._part(trainer.global_rank)
        self._file = open(part, "w", encoding="utf-8")  # noqa: SIM115  (closed below)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the batch's videos; all views of a video are in one batch."""
        task: Any = pl_module
        manifest = trainer.datamodule.manifests["predict"]  # pyright: ignore
        probabilities, ids = outputs["probabilities"].cpu(), outputs["video_id"].cpu()
        for video_id in ids.unique().tolist():
            best = top_classes(probabilities[ids == video_id], task.class_names, self.top)
            line = {
                "path": manifest.path(video_id),
                "predictions": [{"label": p.label, "probability": round(p[1], 6)} for p in best],
            }
            self._write(line)
            self.answered += 1
        for failure in batch["failed"]:
            self._write({"path": manifest.path(failure.video_id), "error": failure.reason})
        self._file.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the parts of all ranks."""
        self._file.close()
        trainer.strategy.barrier("predictions are written")
        if not trainer.is_global_zero:
            return
        parts = [self._part(rank) for rank in range(trainer.world_size)]
        with open(parts[0], "ab") as whole:
            for part in parts[1:]:
                whole.write(part.read_bytes())
                part.unlink()
        os.replace(parts[0], self.path)

    def _part(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part{rank}")

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
