"""What all data modules are: clips, loaders and their position; each reads its splits itself."""

import logging
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule

from datamodules.arguments import check_positive, check_range, check_short_side, check_whole
from datamodules.clips.items import ClipDataset
from datamodules.clips.videos import SAMPLINGS, ClipFormat, EvaluationViews, TrainingClips
from datamodules.errors import DatasetError
from datamodules.loading.bad_videos import BadVideos
from datamodules.loading.loader import EpochSampler, Loader
from datamodules.manifests.lists import MissingVideo, read_text
from datamodules.manifests.parquet import find_manifest
from datamodules.manifests.splits import Manifest, list_videos, read_split

log = logging.getLogger(__name__)


class VideoDataModule(LightningDataModule):
    """Videos in splits, as random clips to train on and as views to evaluate.

    A subclass says how a split is read, in `list_split`. A manifest that `prepare` wrote for a
    split is read in its place, by all of them.

    Batches are those of the project: ``video`` uint8 ``(B, 3, T, H, W)``, ``seed``, ``video_id``,
    ``label`` int64 ``(B,)``, in evaluation also ``view``; see the package's documentation.

    Args:
        root: folder of the data set; no listed path may leave it.
        train: training split, in most cases a path relative to ``root``; None where there is none.
        val: validation split.
        test: test split.
        predict: video files, folders and annotation files, whose labels are not read.
        class_names: classes in the order of their ids, or a text file with one a line, relative to
            ``root``; None: found in the first split that exists.
        num_frames: frames of a clip.
        sampling: ``clip``: frames at equal steps from a random moment on, in evaluation from
            equally spaced ones; ``segments``: one frame from each of ``num_frames`` equal parts of
            the video (TSN, Wang et al. 2016), at random, in evaluation at one place of each part.
        stride: a clip takes every ``stride``-th frame of a video of ``fps``.
        fps: nominal frame rate that ``stride`` counts in; files of another rate are sampled in the
            same seconds.
        size: height and width of a clip, pixels.
        batch_size: videos in a training batch of one process; its clips are ``repeats`` times that.
        repeats: random clips of one video in a training batch.
        crop_scale: least and greatest share of the picture that a training crop keeps.
        crop_ratio: least and greatest distortion of its aspect.
        short_side: crop in another way: scale the short side to a random number of pixels, from the
            least to the greatest given here, and cut ``size`` out at random (PySlowFast
            ``TRAIN_JITTER_SCALES``).
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
        class_names: Sequence[str] | str | Path | None = None,
        num_frames: int = 16,
        sampling: str = "clip",
        stride: int = 4,
        fps: float = 30.0,
        size: tuple[int, int] = (224, 224),
        batch_size: int = 8,
        repeats: int = 1,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        short_side: tuple[int, int] | None = None,
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
        check_positive(num_frames=num_frames, stride=stride, fps=fps, batch_size=batch_size)
        check_positive(repeats=repeats, eval_batch_size=eval_batch_size)
        check_positive(num_workers=num_workers + 1, decode_timeout=decode_timeout)
        check_whole(num_frames=num_frames, stride=stride, batch_size=batch_size, repeats=repeats)
        check_whole(eval_batch_size=eval_batch_size, num_workers=num_workers)
        check_range("crop_scale", crop_scale, most=1.0)
        check_range("crop_ratio", crop_ratio)
        if short_side is not None:
            check_short_side(short_side, max(size))
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be {' or '.join(SAMPLINGS)}, not {sampling!r}")
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
        if isinstance(class_names, str | Path):
            class_names = _read_class_names(self.root / class_names)
        self.class_names = None if class_names is None else tuple(class_names)
        self.clip = ClipFormat(num_frames, stride, fps, *size, sampling)
        self.batch_size, self.repeats, self.eval_batch_size = batch_size, repeats, eval_batch_size
        self.crop_scale, self.crop_ratio, self.short_side = crop_scale, crop_ratio, short_side
        self.val_views, self.test_views = val_views, test_views
        self.num_workers, self.decode_timeout, self.seed = num_workers, decode_timeout, seed
        lists = (None if file is None else Path(file) for file in (bad_videos, killed_videos))
        self.bad_videos = BadVideos(*lists)
        self.max_bad_share, self.stop_on_kill = max_bad_share, stop_on_kill
        self.manifests: dict[str, Manifest] = {}
        self.missing: list[MissingVideo] = []  # of the splits that were listed
        self._left_out: dict[str, np.ndarray] = {}  # ids of the videos of a split not to evaluate
        self._train_loader: Loader | None = None
        self._position: dict[str, int] | None = None  # in the training data, of a resumed run

    @abstractmethod
    def list_split(self, split: str, class_names: Sequence[str] | None) -> Manifest:
        """List the videos of a split, whether or not it was prepared.

        Args:
            split: as the configuration names it, or an absolute path.
            class_names: the known classes in the order of their ids; None: found here.

        Raises:
            DatasetError: the split is missing, empty or wrong; names the file and the row.
        """

    def source_of(self, split: str) -> Path:
        """The folder or file that `list_split` reads, which may not exist."""
        return self.root / split

    def source(self, name: str) -> Path:
        """The folder or file that ``train``, ``val`` or ``test`` is read from now."""
        return self._prepared(name) or self.source_of(self._named(name))

    def read_split(self, name: str) -> Manifest:
        """The videos of ``train``, ``val`` or ``test``; a manifest of `prepare` comes first.

        Raises:
            DatasetError: there is no such split, or it is missing, empty or wrong.
        """
        if prepared := self._prepared(name):
            return read_split(prepared, self.root, self.class_names)
        return self.list_split(self._named(name), self.class_names)

    def prepared_name(self, name: str) -> str:
        """Where `prepare` writes the manifest of a split, below the folder that it writes to."""
        split = self._named(name)
        # A split is found again below another root unless it is a path of its own.
        return name if os.path.isabs(split) or ".." in Path(split).parts else split

    def find_class_names(self) -> None:
        """Set the class names, unless they are known, to those of the first split that exists."""
        if self.class_names is None:
            first = next((name for name, split in self.splits.items() if split), "train")
            self.class_names = self.list_class_names(first) or None

    def list_class_names(self, name: str) -> tuple[str, ...]:
        """Classes of a split in the order of their ids; none if it has no labels."""
        return self._manifest(name).class_names

    def setup(self, stage: str) -> None:
        """Read the splits that ``stage`` needs; the classes first."""
        if stage == "predict":
            self._manifest("predict")
            return
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}[stage]
        self.find_class_names()
        for name in needed:
            if self.splits[name] is not None or name != "val":
                self._manifest(name)

    def views(self, split: str) -> tuple[int, int]:
        """Temporal and spatial views with which a split is evaluated now."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return self.val_views if split in ("train", "val") and fitting else self.test_views

    def train_dataloader(self) -> Loader:
        """Random clips in a new order each epoch."""
        clips = self.training_clips(self._manifest("train"))
        self._train_loader = self._loader(clips, self.batch_size, training=True)
        if self._position is not None:
            self._train_loader.load_state_dict(self._position)
        return self._train_loader

    def training_clips(self, manifest: Manifest) -> ClipDataset:
        """What training loads of a split's videos: random clips."""
        crop = self.crop_scale, self.crop_ratio
        short_side = self.short_side
        return TrainingClips(
            manifest, self.clip, self.repeats, *crop, self.seed, short_side=short_side
        )

    def evaluation_views(self, manifest: Manifest, split: str) -> ClipDataset:
        """What evaluation loads of a split's videos: their views."""
        return EvaluationViews(manifest, self.clip, self.views(split), self.seed)

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
        return [] if self.splits["val"] is None else self.evaluation_loader("val")

    def test_dataloader(self) -> Loader:
        """All views of the test videos, each once."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """All views of the videos to predict."""
        return self.evaluation_loader("predict")

    def evaluation_loader(self, split: str, max_videos: int | None = None) -> Loader:
        """All views of the videos of any split, also the training split, each once.

        Args:
            split: train, val, test or predict.
            max_videos: of so many videos, at equal steps through the split; None: of all.
        """
        manifest = self._manifest(split)
        if max_videos is not None:
            manifest = manifest.spread(max_videos)
        views = self.evaluation_views(manifest, split)
        done = self._left_out.get(split, ())
        return self._loader(views, self.eval_batch_size, training=False, done=done)

    def leave_out(self, split: str, video_ids: np.ndarray) -> None:
        """Evaluate a split without these videos, as they have been evaluated before.

        Args:
            split: train, val, test or predict.
            video_ids: int64 ``(n,)``; they replace those of an earlier call.
        """
        self._left_out[split] = video_ids

    def _named(self, name: str) -> str:
        split = self.splits[name]
        if split is None:
            raise DatasetError(f"data.{name} is null: there is no such split in {self.root}")
        return split

    def _prepared(self, name: str) -> Path | None:
        """What holds the manifest of a split, if it was prepared; it counts before all else."""
        places = (self.root / self._named(name), self.root / self.prepared_name(name))
        return next((place for place in places if find_manifest(place)), None)

    def _manifest(self, name: str) -> Manifest:
        if name not in self.manifests:
            self.manifests[name] = self._read_once(name)
        return self.manifests[name]

    def _read_once(self, name: str) -> Manifest:
        """Read by the main process and sent to the others: all have the same rows in any case."""
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return self._read(name)
        result: Any = None
        if trainer.is_global_zero:
            try:
                result = self._read(name)
            except Exception as error:  # raised in all processes: none may wait for this one
                result = error
        result = trainer.strategy.broadcast(result)
        if isinstance(result, Exception):
            raise result
        return result

    def _read(self, name: str) -> Manifest:
        if name == "predict":
            return list_videos(
                self.predict_sources, lambda file: self.list_split(os.path.abspath(file), None)
            )
        manifest = self.read_split(name)
        if name != "train":  # evaluation counts bad videos as wrong
            return manifest
        usable = manifest.without_bad()
        if left_out := len(manifest) - len(usable):
            log.warning(f"{left_out} of {len(manifest)} training videos are bad and left out")
        return usable

    def _loader(
        self,
        dataset: ClipDataset,
        batch_size: int,
        training: bool,
        done: Sequence[int] | np.ndarray = (),
    ) -> Loader:
        trainer = self.trainer
        sampler = EpochSampler(
            len(dataset.manifest),
            training=training,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            done=done,
        )
        return Loader(
            dataset,
            sampler,
            batch_size,
            accumulate=trainer.accumulate_grad_batches if trainer and training else 1,
            num_workers=self.num_workers,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            timeout=self.decode_timeout,
            bad_videos=self.bad_videos,
            max_bad_share=self.max_bad_share,
            stop_on_kill=self.stop_on_kill,
        )


def _read_class_names(file: Path) -> tuple[str, ...]:
    names = tuple(line.strip() for line in read_text(file).split("\n") if line.strip())
    if not names or len(set(names)) < len(names):
        raise DatasetError(f"{file}: expected the name of one class a line, each once")
    return names
