"""What the model said of each video, in files that other programs read."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning import Callback, LightningModule, Trainer


class PredictionTable(Callback):
    """Write ``predictions.parquet`` during `test`: one row for each (video, view), sorted by it.

    Columns: video_id int64, path string, label int64, temporal_view and spatial_view int32,
    probabilities list of float32. The file's metadata holds as JSON ``class_names``,
    ``temporal_views``, ``spatial_views``, and ``failed``: the videos that could not be decoded and
    count as wrong, each with video_id, path, label and reason.

    Args:
        path: the file. Each rank writes a part beside it; rank 0 joins and removes them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._writer: pq.ParquetWriter | None = None
        self._failed: list[dict[str, Any]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this rank's part."""
        task: Any = pl_module
        temporal, spatial = trainer.datamodule.views("test")  # pyright: ignore
        metadata = {
            "class_names": json.dumps(task.class_names),
            "temporal_views": json.dumps(temporal),
            "spatial_views": json.dumps(spatial),
        }
        self._spatial, self._failed = spatial, []
        self._schema = pa.schema(
            [
                ("video_id", pa.int64()),
                ("path", pa.string()),
                ("label", pa.int64()),
                ("temporal_view", pa.int32()),
                ("spatial_view", pa.int32()),
                ("probabilities", pa.list_(pa.float32())),
            ],
            metadata=metadata,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._part(trainer.global_rank), self._schema)

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
        manifest = trainer.datamodule.manifests["test"]  # pyright: ignore
        self._failed += [f._asdict() | {"path": manifest.path(f[0])} for f in batch["failed"]]
        columns = {key: value.cpu().numpy() for key, value in outputs.items()}
        ids = columns["video_id"]
        table = pa.table(
            {
                "video_id": ids,
                "path": [manifest.path(int(i)) for i in ids],
                "label": columns["label"],
                "temporal_view": (columns["view"] // self._spatial).astype(np.int32),
                "spatial_view": (columns["view"] % self._spatial).astype(np.int32),
                "probabilities": list(columns["probabilities"].astype(np.float32)),
            },
            schema=self._schema,
        )
        assert self._writer is not None
        self._writer.write_table(table)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the parts of all ranks."""
        assert self._writer is not None
        self._writer.add_key_value_metadata({"failed": json.dumps(self._failed)})
        self._writer.close()
        self._writer = None
        trainer.strategy.barrier("predictions are written")
        if not trainer.is_global_zero:
            return
        parts = [self._part(rank) for rank in range(trainer.world_size)]
        tables = [pq.read_table(part) for part in parts]
        lists = [json.loads(pq.read_metadata(part).metadata[b"failed"]) for part in parts]
        failed = sorted((v for videos in lists for v in videos), key=lambda v: v["video_id"])
        metadata = {**self._schema.metadata, "failed": json.dumps(failed)}
        table = pa.concat_tables([t.replace_schema_metadata(None) for t in tables])
        keys = ("video_id", "temporal_view", "spatial_view")
        table = table.sort_by([(key, "ascending") for key in keys])
        unfinished = self.path.with_name(self.path.name + ".unfinished")
        pq.write_table(table.replace_schema_metadata(metadata), unfinished)
        os.replace(unfinished, self.path)
        for part in parts:
            part.unlink()

    def _part(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part{rank}")


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
        probabilities = outputs["probabilities"].double().cpu()
        ids = outputs["video_id"].cpu()
        for video_id in ids.unique().tolist():
            mean = probabilities[ids == video_id].mean(0)
            best = mean.topk(min(self.top, len(mean)))
            line = {
                "path": manifest.path(video_id),
                "predictions": [
                    {"label": task.class_names[i], "probability": round(p, 6)}
                    for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
                ],
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
