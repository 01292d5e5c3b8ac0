"""The predictions for each video, in files that other programs read."""

import glob
import hashlib
import json
import logging
import shutil
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from datamodules.files import atomic_file, take_lock
from datamodules.processes import in_first_process
from datamodules.suffixes import kind_of
from datamodules.wording import counted
from hiera_video.metrics.top_classes import top_classes
from hiera_video.results.prediction_files import FailedVideo, Header, Rows, stamped
from hiera_video.results.prediction_parts import Parts, PartWriter, lock_folder
from hiera_video.tasks.named_classes import classifying
from hiera_video.tasks.protocols import data_of

log = logging.getLogger(__name__)


class PredictionTable(Callback):
    """Write ``predictions.parquet`` during `test`: a row for each view, sorted by video and view.

    Columns: video_id int64, path string, label int64, temporal_view and spatial_view int32,
    probabilities list of float32. The file's metadata holds as JSON ``class_names``,
    ``temporal_views``, ``spatial_views``, ``source`` (weights, videos, clips), and ``failed``: the
    videos that could not be decoded and count as wrong, each with video_id, path, label and reason.

    About every minute all processes write their rows to a folder beside the file. The first process
    joins these parts at the end. A test that was cut off leaves out the videos that are in them;
    those that the storage did not give are in none before the end.

    Args:
        path: Parquet file to write.
        weights: the checkpoint that is tested; None: the weights that the task starts from.
    """

    def __init__(self, path: str | Path, weights: str | Path | None = None) -> None:
        self.path, self.weights = Path(path), weights
        self._writer: PartWriter | None = None
        self._lock: Any = None
        self._unread: list[FailedVideo] = []  # that the storage did not give

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave out the videos that an earlier test in this folder has evaluated.

        Raises:
            MisconfigurationException: the earlier test was another one.
            PredictionFileError: the earlier test cannot be read, or is under way.
        """
        if stage != "test":
            return
        datamodule = data_of(trainer)
        done = in_first_process(trainer, lambda: self._done(self._header(trainer, pl_module)))
        # Each process keeps a video: without any it would miss the collectives of the others.
        videos = len(datamodule.manifests["test"])
        datamodule.leave_out("test", done[: max(0, videos - trainer.world_size)])
        if len(done) and trainer.is_global_zero:
            verb = "was" if len(done) == 1 else "were"
            noun = kind_of(datamodule.manifests["test"].table["path"].to_pylist()).noun
            log.info(f"{len(done)} of {counted(videos, noun)} {verb} evaluated before")

    def _done(self, header: Header) -> np.ndarray:
        """Ids of the videos in the parts, int64; takes the folder's lock."""
        self._lock = lock_folder(self._parts)
        parts = Parts(self._parts)
        if differs := parts.differs_from(header):
            raise MisconfigurationException(
                f"{self._parts} is of a test with another {differs}; set another run_dir="
            )
        return parts.videos()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add earlier predictions to the metric; open a writer for this process."""
        metric = classifying(pl_module).metric("test")
        in_first_process(trainer, lambda: Parts(self._parts).count(metric))
        header = self._header(trainer, pl_module)
        self._unread = []
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
        """Append the views of the batch, and its videos that could not be decoded."""
        assert self._writer is not None
        manifest = data_of(trainer).manifests["test"]
        columns = {key: value.cpu().numpy() for key, value in outputs.items()}
        ids = columns["video_id"]
        paths = {i: manifest.path(i) for i in np.unique(ids).tolist()}
        others = (columns[key] for key in ("label", "view", "probabilities"))
        rows = Rows(ids, [paths[i] for i in ids.tolist()], *others)
        failed: list[FailedVideo] = []
        for f in batch["failed"]:
            video = FailedVideo(manifest.path(f.video_id), f.video_id, f.label, f.reason)
            (self._unread if f.unreadable else failed).append(video)
        self._writer.add(rows, failed)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the parts of all processes."""
        assert self._writer is not None
        self._writer.add_failed(self._unread)
        self._writer.flush(empty=trainer.is_global_zero)
        self._writer = None
        trainer.strategy.barrier("predictions are written")
        in_first_process(trainer, lambda: Parts(self._parts).join())
        self._release()

    def on_exception(self, *_: Any, **__: Any) -> None:
        """Keep the rows so far, for the test to go on after them."""
        if self._writer is not None:
            self._writer.flush()
        self._release()

    def _release(self) -> None:
        if self._lock is None:
            return
        self._lock.close()
        self._lock = None
        if not any(self._parts.glob("*.parquet")):  # no test to go on with
            shutil.rmtree(self._parts, ignore_errors=True)

    @property
    def _parts(self) -> Path:
        return self.path.with_name(self.path.name + ".parts")

    def _header(self, trainer: Trainer, pl_module: LightningModule) -> Header:
        task, datamodule = classifying(pl_module), data_of(trainer)
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

    ``{"path": ..., "predictions": [{"label": ..., "probability": ...}, ...]}`` with probabilities
    averaged over views, or ``{"path": ..., "error": ...}`` for a file that cannot be decoded, in
    the order of the videos. The predictions for a single video are logged, too.

    Args:
        path: JSON Lines file to write. Each rank writes a part beside it; rank 0 joins the parts
            and removes them.
        top: classes per video, at least 1.

    Attributes:
        answered: number of videos that this rank could decode; in the end, of all ranks.
    """

    def __init__(self, path: str | Path, top: int = 5) -> None:
        if top < 1:
            raise ValueError(f"top must be at least 1, not {top}")
        self.path, self.top = Path(path), top
        self.answered = 0
        self._file: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep other runs out, and see that no earlier file is overwritten.

        Raises:
            MisconfigurationException: the file exists, or another run is writing it.
        """
        if stage != "predict":
            return
        in_first_process(trainer, self._begin)

    def _begin(self) -> None:
        """Open the first part and lock it; nothing of another run is touched before."""
        self._refuse_earlier()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._part(0), "a+", encoding="utf-8")  # noqa: SIM115  (closed at the end)
        try:
            take_lock(self._file)
        except (BlockingIOError, PermissionError):
            raise MisconfigurationException(
                f"{self.path}: another run is writing it; wait for it to end, or set another out="
            ) from None
        except OSError as error:
            log.warning(
                f"{self.path}: this file system has no locks ({error.strerror}), so nothing keeps "
                "a second run from writing it"
            )
        self._refuse_earlier()  # the run that had the lock may just have ended
        self._file.truncate(0)  # of a run that was killed, as are the other parts
        for part in self.path.parent.glob(f"{glob.escape(self.path.name)}.part[1-9]*"):
            part.unlink()

    def _refuse_earlier(self) -> None:
        if self.path.exists():
            raise MisconfigurationException(f"{self.path} exists already; set another out=")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this rank's file; that of the first is open already."""
        if not trainer.is_global_zero:
            self._file = open(self._part(trainer.global_rank), "w", encoding="utf-8")  # noqa: SIM115

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a line for each video of the batch; all views of a video are in one batch."""
        names = classifying(pl_module).class_names or ()
        manifest = data_of(trainer).manifests["predict"]
        probabilities, ids = outputs["probabilities"].cpu(), outputs["video_id"].cpu()
        answers: dict[int, Any] = {f.video_id: {"error": f.reason} for f in batch["failed"]}
        for video_id in ids.unique().tolist():
            best = top_classes(probabilities[ids == video_id], names, self.top)
            rows = [{"label": p.label, "probability": round(p.probability, 6)} for p in best]
            answers[video_id] = {"predictions": rows}
            self.answered += 1
            if len(manifest) == 1:
                shares = (f"{p.label} {p.probability:.1%}" for p in best)
                log.info(f"{manifest.path(video_id)}: {', '.join(shares)}")
        for video_id, answer in sorted(answers.items()):
            line = {"path": manifest.path(video_id), **answer}
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the parts of all ranks."""
        if not trainer.is_global_zero:
            self._file.close()
        answered = torch.tensor(self.answered, device=trainer.strategy.root_device)
        # All wait here, so that all parts are written.
        self.answered = int(trainer.strategy.reduce(answered, reduce_op="sum"))
        in_first_process(trainer, lambda: self._join(trainer.world_size))

    def _join(self, ranks: int) -> None:
        """Write all lines in the order of the videos, of which each of n ranks has every n-th."""
        parts = [self._part(rank) for rank in range(ranks)]
        with atomic_file(self.path) as temporary, ExitStack() as stack:
            # The first part is locked, until it is closed or opened once more.
            others = [stack.enter_context(open(part, encoding="utf-8")) for part in parts[1:]]
            file = stack.enter_context(open(temporary, "w", encoding="utf-8"))
            self._file.seek(0)
            for lines in zip_longest(self._file, *others, fillvalue=""):
                file.writelines(lines)
        for part in parts:
            part.unlink()
        self._file.close()

    def on_exception(self, *_: Any, **__: Any) -> None:
        """Let other runs write the file."""
        if self._file is not None:
            self._file.close()

    def _part(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part{rank}")
