"""Videos in class folders or listed in a text file, as a LightningDataModule."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from lightning import LightningDataModule

from datamodules.bad_videos import BadVideos
from datamodules.clips import ClipFormat, EvaluationViews, TrainingClips
from datamodules.loading import ClipDataset, EpochSampler, Loader
from datamodules.manifest import DatasetError, Manifest, list_videos, read_split

log = logging.getLogger(__name__)


class VideoFolderDataModule(LightningDataModule):
    """Video files under one root.

    A split is the name of a folder with one folder of videos a class, or of a text file: CSV
    ``path,label`` or lines ``path label`` as PySlowFast writes them (paths relative to ``root``),
    or of a manifest file or a folder that holds one, from ``prepare``.
    Batches are those of the project: ``video`` uint8 ``(B, 3, T, H, W)``, ``seed``, ``video_id``,
    ``label`` int64 ``(B,)``, in evaluation also ``view``; see the package's documentation.

    Args:
        root: folder of the data set; no listed path may leave it.
        train: training split, relative to ``root``; None where there is none.
        val: validation split.
        test: test split.
        predict: video files or folders without labels.
        class_names: classes in the order of their ids; None: found in the first split that exists.
        num_frames: frames of a clip.
        stride: a clip takes every ``stride``-th frame of a video of ``fps``.
        fps: nominal frame rate that ``stride`` counts in; files of another rate are sampled in the
            same seconds.
        size: height and width of a clip, pixels.
        batch_size: videos in a training batch of one process; its clips are ``repeats`` times that.
        repeats: random clips of one video in a training batch.
        crop_scale: least and greatest share of the picture that a training crop keeps.
        crop_ratio: least and greatest distortion of its aspect.
        eval_batch_size: videos in an evaluation batch of one process, each with all its views.
        val_views: temporal and spatial views of a video during `fit`.
        test_views: temporal and spatial views of a video in `validate`, `test` and `predict`.
        num_workers: decoding processes for each training process; 0 decodes in the process itself.
        decode_timeout: seconds that a worker may take for one video before it is ended.
        bad_videos: CSV file that lists the videos that cannot be decoded. None: they are only
            logged.
        killed_videos: CSV file that lists the videos that hung or crashed the decoder, also in
            earlier runs; they are not opened again until they change. None: not kept.
        max_bad_share: share of an epoch's videos, in [0, 1), that may fail and be replaced in
            training; more of them stop it. In evaluation nothing is replaced.
        stop_on_kill: stop when a worker hangs or dies, rather than go on without its video.
        seed: seed of order and of every random choice.
    """

    def __init__(
        self,
        root: str | Path,
        train: str | None = "train",
        val: str | None = "val",
        test: str | None = "test",
        predict: Sequence[str] = (),
        *,
        class_names: Sequence[str] | None = None,
        num_frames: int = 16,
        stride: int = 4,
        fps: float = 30.0,
        size: tuple[int, int] = (224, 224),
        batch_size: int = 8,
        repeats: int = 1,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        eval_batch_size: int = 4,
        val_views: tuple[int, int] = (1, 1),
        test_views: tuple[int, int] = (5, 3),
        num_workers: int = 0,
        decode_timeout: float = 60.0,
        bad_videos: str | Path | None = None,
        killed_videos: str | Path | None = None,
        max_bad_share: float = 0.01,
        stop_on_kill: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_positive(num_frames=num_frames, stride=stride, fps=fps, batch_size=batch_size)
        _check_positive(repeats=repeats, eval_batch_size=eval_batch_size)
        _check_positive(num_workers=num_workers + 1, decode_timeout=decode_timeout)
        _check_whole(num_frames=num_frames, stride=stride, batch_size=batch_size, repeats=repeats)
        _check_whole(eval_batch_size=eval_batch_size, num_workers=num_workers)
        _check_range("crop_scale", crop_scale, most=1.0)
        _check_range("crop_ratio", crop_ratio)
        if not 0 <= max_bad_share < 1:
            raise ValueError(f"max_bad_share must be in [0, 1), not {max_bad_share}")
        for name, views in (("val_views", val_views), ("test_views", test_views)):
            if isinstance(views, int | float) or len(views) != 2 or min(views) < 1:
                raise ValueError(
                    f"{name} must be [temporal, spatial], each at least 1, not {views}"
                )
        self.root = Path(root).expanduser()
        self.splits = {"train": train, "val": val, "test": test}
        self.predict_sources = tuple(predict)
        self.class_names = None if class_names is None else tuple(class_names)
        self.clip = ClipFormat(num_frames, stride, fps, *size)
        self.batch_size, self.repeats, self.eval_batch_size = batch_size, repeats, eval_batch_size
        self.crop_scale, self.crop_ratio = crop_scale, crop_ratio
        self.val_views, self.test_views = val_views, test_views
        self.num_workers, self.decode_timeout, self.seed = num_workers, decode_timeout, seed
        lists = (None if file is None else Path(file) for file in (bad_videos, killed_videos))
        self.bad_videos = BadVideos(*lists)
        self.max_bad_share, self.stop_on_kill = max_bad_share, stop_on_kill
        self.manifests: dict[str, Manifest] = {}
        self._train_loader: Loader | None = None
        self._position: dict[str, int] | None = None  # in the training data, of a resumed run

    def setup(self, stage: str) -> None:
        """Read the splits that ``stage`` needs; the training split first, for its classes."""
        if stage == "predict":
            self.manifests["predict"] = list_videos(self.predict_sources)
            return
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]
        if self.class_names is None:
            first = next((name for name, split in self.splits.items() if split), needed[0])
            self.class_names = self._manifest(first).class_names or None
        for name in needed:
            if self.splits[name] is not None or name != "val":
                self._manifest(name)

    def views(self, split: str) -> tuple[int, int]:
        """Temporal and spatial views with which a split is evaluated now."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return self.val_views if split == "val" and fitting else self.test_views

    def train_dataloader(self) -> Loader:
        """Random clips in a new order each epoch."""
        clips = TrainingClips(
            self._manifest("train"),
            self.clip,
            self.repeats,
            self.crop_scale,
            self.crop_ratio,
            self.seed,
        )
        self._train_loader = self._loader(clips, self.batch_size, training=True)
        if self._position is not None:
            self._train_loader.load_state_dict(self._position)
        return self._train_loader

    def state_dict(self) -> dict[str, int]:
        """Position in the training data, for a checkpoint."""
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the training data begin where it was.

        Lightning restores loaders, too, but not one that was made before, as it is where the
        schedule asks for the number of steps.
        """
        self._position = state_dict

    def val_dataloader(self) -> Loader | list[Loader]:
        """All views of the validation videos, each once; nothing where the split is None."""
        return [] if self.splits["val"] is None else self._evaluation_loader("val")

    def test_dataloader(self) -> Loader:
        """All views of the test videos, each once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """All views of the videos to predict."""
        return self._evaluation_loader("predict")

    def _manifest(self, name: str) -> Manifest:
        if name not in self.manifests:
            split = self.splits[name]
            if split is None:
                raise DatasetError(f"data.{name} is null: there is no such split in {self.root}")
            manifest = read_split(self.root / split, self.root, self.class_names)
            self.manifests[name] = self._trainable(manifest) if name == "train" else manifest
        return self.manifests[name]

    def _trainable(self, manifest: Manifest) -> Manifest:
        """Without the videos that a manifest file says are bad. Evaluation counts them as wrong."""
        usable = manifest.without_bad()
        if left_out := len(manifest) - len(usable):
            log.warning(f"{left_out} of {len(manifest)} training videos are bad and left out")
        return usable

    def _evaluation_loader(self, split: str) -> Loader:
        views = EvaluationViews(self.manifests[split], self.clip, self.views(split), self.seed)
        return self._loader(views, self.eval_batch_size, training=False)

    def _loader(self, dataset: ClipDataset, batch_size: int, training: bool) -> Loader:
        trainer = self.trainer
        sampler = EpochSampler(
            len(dataset.manifest),
            training=training,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        return Loader(
            dataset,
            sampler,
            batch_size,
            num_workers=self.num_workers,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            timeout=self.decode_timeout,
            bad_videos=self.bad_videos,
            max_bad_share=self.max_bad_share,
            stop_on_kill=self.stop_on_kill,
        )


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be positive, not {value}")


def _check_whole(**values: float) -> None:
    for name, value in values.items():
        if value != int(value):
            raise ValueError(f"{name} must be a whole number, not {value}")


def _check_range(name: str, values: Sequence[float], most: float = math.inf) -> None:
    if isinstance(values, int | float) or len(values) != 2:
        raise ValueError(f"{name} must be [least, greatest], not {values}")
    if not 0 < values[0] <= values[1] <= most:
        limit = f" and at most {most:g}" if most < math.inf else ""
        raise ValueError(f"{name} must be above 0, in ascending order{limit}, not {list(values)}")
