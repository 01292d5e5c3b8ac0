"""The base of all data modules: clips, loaders and the position in the training data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.arguments import (
    check_numbers,
    check_positive,
    check_range,
    check_short_side,
    check_whole,
)
from datamodules.clips.format import SAMPLINGS, ClipFormat
from datamodules.clips.items import ClipDataset
from datamodules.clips.videos import EvaluationViews, TrainingClips
from datamodules.loading.bad_videos import BadVideos
from datamodules.loading.loader import Loader
from datamodules.loading.sampler import EpochSampler
from datamodules.manifests.manifest import Manifest
from datamodules.manifests.range_cache import RangeCache
from datamodules.splits import SplitDataModule
from datamodules.video.decoding import check_interpolation


class VideoDataModule(SplitDataModule):
    """Videos in splits, as random clips to train on and as views to evaluate.

    A subclass implements `list_split`, which reads a split.

    A batch is a dict with ``video`` uint8 ``(B, 3, T, H, W)``, and ``seed``, ``video_id`` and
    ``label`` (-1 = unknown) int64 ``(B,)``; in evaluation also ``view`` int64 ``(B,)``. For all
    keys, see docs/extending.md, "The batch".

    Args:
        root: folder of the data set; listed paths must lie in it.
        train: training split, usually a path relative to ``root``; None if there is none.
        val: validation split.
        test: test split.
        predict: video files, folders and annotation files; labels are not read.
        class_names: classes in the order of their ids, or a text file with one name a line,
            relative to ``root``; None: those of the first split that exists.
        num_frames: frames of a clip.
        sampling: ``clip``: every ``stride``-th frame, from a random moment on in training and from
            equally spaced moments on in evaluation; ``spread``: the same, but at equal steps over
            all of ``num_frames * stride`` frames, the last one included, as PySlowFast does and as
            the published weights were trained (16 x 4: 0, 4.2, ..., 63 in place of 0, 4, ..., 60);
            ``segments``: one frame from each of ``num_frames`` equal parts of the video (TSN, Wang
            et al. 2016), at a random place in each part in training and at the same place in all
            parts in evaluation.
        stride: step of a clip in frames of a nominal ``fps``.
        fps: nominal frames a second; a file of another rate is sampled at the same seconds.
        size: height and width of a clip, pixels.
        batch_size: videos in a training batch of one process, which holds ``batch_size * repeats``
            clips.
        repeats: random clips of one video in a training batch.
        crop_scale: least and greatest share of the picture that a training crop keeps, in (0, 1].
        crop_ratio: least and greatest factor by which a training crop distorts the aspect ratio.
        short_side: least and greatest pixels of the short side. Instead of the crop above, the
            picture is scaled to a random short side in this range, and ``size`` is cropped from it
            at random (PySlowFast ``TRAIN_JITTER_SCALES``).
        interpolation: how crops are scaled to ``size``: ``bilinear`` or ``bicubic``.
        eval_crop: share of the short side that a view covers in evaluation, in (0, 1]; ImageNet's
            usual 0.875 scales to 256 pixels and crops 224.
        eval_batch_size: videos in an evaluation batch of one process, each with all its views.
        val_views: temporal and spatial views of a video during `fit`.
        test_views: temporal and spatial views of a video in `validate`, `test` and `predict`.
        num_workers: decoding processes of each training process; 0 decodes in the process itself.
        decode_timeout: seconds that a worker may take for one video before it is killed.
        bad_videos: CSV file that lists the videos that cannot be decoded; None: they are only
            logged.
        killed_videos: CSV file that lists the videos that hung or crashed the decoder, in this run
            or an earlier one; they are not opened again until they change. None: no list is kept.
        max_bad_share: share of an epoch's videos, in [0, 1] and rounded up to whole videos, that
            may fail and be replaced in training; if more fail, training stops. In evaluation
            nothing is replaced, and 1 counts videos that cannot be read as wrong, too.
        stop_on_kill: stop when a worker hangs or dies, instead of going on without its video.
        cache_dir: folder on a local disk for copies of packed videos that lie in a storage; see
            `RangeCache`. None: no copies are kept.
        cache_gib: greatest size of these copies, in GiB.
        seed: seed of the order and of every random choice.
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
        interpolation: str = "bilinear",
        eval_crop: float = 1.0,
        eval_batch_size: int = 4,
        val_views: tuple[int, int] = (1, 1),
        test_views: tuple[int, int] = (5, 3),
        num_workers: int = 0,
        decode_timeout: float = 60.0,
        bad_videos: str | Path | None = None,
        killed_videos: str | Path | None = None,
        max_bad_share: float = 0.01,
        stop_on_kill: bool = False,
        cache_dir: str | Path | None = None,
        cache_gib: float = 100.0,
        seed: int = 0,
    ) -> None:
        check_positive(num_frames=num_frames, stride=stride, fps=fps, batch_size=batch_size)
        check_positive(repeats=repeats, eval_batch_size=eval_batch_size)
        check_positive(decode_timeout=decode_timeout, cache_gib=cache_gib)
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, not {num_workers}")
        check_whole(num_frames=num_frames, stride=stride, batch_size=batch_size, repeats=repeats)
        check_whole(eval_batch_size=eval_batch_size, num_workers=num_workers)
        check_numbers("size", size, "height, width")
        check_numbers("val_views", val_views, "temporal, spatial")
        check_numbers("test_views", test_views, "temporal, spatial")
        check_range("crop_scale", crop_scale, most=1.0)
        check_range("crop_ratio", crop_ratio)
        if short_side is not None:
            check_short_side(short_side, max(size))
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, not {sampling!r}")
        check_interpolation(interpolation)
        if not 0 < eval_crop <= 1:
            raise ValueError(f"eval_crop must be in (0, 1], not {eval_crop}")
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"max_bad_share must be in [0, 1], not {max_bad_share}")
        cache = None if cache_dir is None else RangeCache(cache_dir, cache_gib)
        splits = {"train": train, "val": val, "test": test}
        super().__init__(root, splits, predict, class_names, cache)
        self.clip = ClipFormat(
            num_frames, stride, fps, *size, sampling, interpolation, float(eval_crop)
        )
        self.batch_size, self.repeats, self.eval_batch_size = batch_size, repeats, eval_batch_size
        self.crop_scale, self.crop_ratio, self.short_side = crop_scale, crop_ratio, short_side
        self.val_views, self.test_views = val_views, test_views
        self.num_workers, self.decode_timeout, self.seed = num_workers, decode_timeout, seed
        lists = (None if file is None else Path(file) for file in (bad_videos, killed_videos))
        self.bad_videos = BadVideos(*lists)
        self.max_bad_share, self.stop_on_kill = max_bad_share, stop_on_kill
        self._left_out: dict[str, np.ndarray] = {}  # by split: ids not to evaluate
        self._train_loader: Loader | None = None
        self._position: dict[str, int] | None = None  # where a resumed run continues

    def views(self, split: str) -> tuple[int, int]:
        """Temporal and spatial views of a split's videos in the trainer's current stage.

        Without a trainer, that is a training.
        """
        fitting = self.trainer is None or self.trainer.state.fn == "fit"
        return self.val_views if split in ("train", "val") and fitting else self.test_views

    def train_dataloader(self) -> Loader:
        """Random clips of the training videos, in a new order each epoch.

        Without a trainer, a new loader begins the epoch after that which the last one has ended.
        """
        clips, last = self.training_clips(self._manifest("train")), self._train_loader
        self._train_loader = self._loader(clips, self.batch_size, training=True)
        if last is not None and self.trainer is None:
            self._train_loader.sampler.set_epoch(last.sampler.epoch + (not last.batches_left))
        elif self._position is not None:
            self._train_loader.load_state_dict(self._position)
            # Other videos have been warned of; the trainer may ask for another loader.
            self._position = self._position | {"videos": self._train_loader.sampler.length}
        return self._train_loader

    def training_clips(self, manifest: Manifest) -> ClipDataset:
        """Random clips of a split's videos, as training loads them."""
        crop = self.crop_scale, self.crop_ratio
        short_side = self.short_side
        return TrainingClips(
            manifest, self.clip, self.repeats, *crop, self.seed, short_side=short_side
        )

    def evaluation_views(self, manifest: Manifest, split: str) -> ClipDataset:
        """All views of a split's videos, as evaluation loads them."""
        return EvaluationViews(manifest, self.clip, self.views(split), self.seed)

    def state_dict(self) -> dict[str, int]:
        """The position in the training data, for a checkpoint: ``epoch`` and ``used`` samples."""
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue training at a saved position.

        Lightning restores loaders, too, but not one that exists already, as it does if the schedule
        has asked for the number of steps.
        """
        self._position = state_dict
        if self.trainer is None:  # the next loader begins there, whatever the last one had
            self._train_loader = None

    def val_dataloader(self) -> Loader | list[Loader]:
        """All views of the validation videos, each once; empty where the split is None."""
        return [] if self.splits["val"] is None else self.evaluation_loader("val")

    def test_dataloader(self) -> Loader:
        """All views of the test videos, each once."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> Loader:
        """All views of the videos to predict."""
        return self.evaluation_loader("predict")

    def evaluation_loader(self, split: str, max_videos: int | None = None) -> Loader:
        """All views of the videos of any split, even the training split, each once.

        Args:
            split: train, val, test or predict.
            max_videos: number of videos, taken at equal steps through the split; None: all.
        """
        manifest = self._manifest(split)
        if max_videos is not None:
            manifest = manifest.spread(max_videos)
        views = self.evaluation_views(manifest, split)
        done = self._left_out.get(split, ())
        return self._loader(views, self.eval_batch_size, training=False, done=done)

    def leave_out(self, split: str, video_ids: np.ndarray) -> None:
        """Evaluate a split without these videos, which have been evaluated before.

        Args:
            split: train, val, test or predict.
            video_ids: int64 ``(n,)``; they replace those of an earlier call.
        """
        self._left_out[split] = video_ids

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
            media=self.media,
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
