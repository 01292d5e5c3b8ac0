"""Features of videos from the encoder of any model that `load` gives."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from datamodules.clips.format import ClipFormat
from datamodules.clips.videos import clips_of_views
from datamodules.clips.windows import sliding_windows, window_step
from datamodules.video.decoding import VideoFile
from datamodules.video.opening import open_media
from datamodules.video.pictures import PictureFile
from hiera_video.models.features import feature_map, feature_maps, pooled_features
from hiera_video.predicting.batches import CLIPS_AT_ONCE, ClipNetwork, batches, clip_at
from hiera_video.results.embedding_files import Embedding


class EmbeddingOptions(NamedTuple):
    """Which features of a video are wanted.

    Attributes:
        stride: seconds from a vector to the next; None: one for the whole video.
        window: with a stride, seconds of the clip that a vector sees; None: as in training.
        views: without a stride, numbers of (temporal, spatial) views over which the vector is
            averaged; None: for a classifier those of its tests, else the clip in the middle.
        stage: 1 for the first; None: the last.
        pool: a vector for each clip, the mean over all tokens of the stage, of the last stage with
            the model's norm after it; False: the map of all tokens, without a norm, and without a
            stride only that of the clip in the middle.
    """

    stride: float | None = None
    window: float | None = None
    views: Sequence[int] | None = None
    stage: int | None = None
    pool: bool = True


class StageMaps(NamedTuple):
    """One clip of a video, and what each stage of a network makes of it.

    Attributes:
        clip: what the network sees, uint8 ``(T, H, W, 3)``.
        times: seconds from the start of the video to each frame, float64 ``(T,)``.
        maps: for each stage, its tokens in raster order, float32 ``(T', H', W', C)``, not normed.
    """

    clip: np.ndarray
    times: np.ndarray
    maps: list[np.ndarray]


class VideoEncoder:
    """Computes features of videos.

    Pooled features of the last stage are those of the probes (`ProbingTask`): what a classifier's
    head sees, without its dropout and projection; of a masked autoencoder, which then masks
    nothing, the same with its ``encoder_norm``. See `pooled_features`.

    Args:
        network: a `Hiera`, on its device.
        clip: what it sees of a video.
        views: numbers of temporal and spatial views of a whole video.
    """

    def __init__(
        self, network: ClipNetwork, clip: ClipFormat, views: Sequence[int] = (1, 1)
    ) -> None:
        self._network, self._clip, self._views = network, clip, views

    def embed(self, video: str | Path, options: EmbeddingOptions) -> Embedding:
        """All features of a video at once.

        Args:
            video: a file, also of a picture.
            options: which features.

        Returns:
            N parts of the video, one without a stride: ``start`` and ``end`` ``(N,)`` in seconds,
            0 of a picture; ``features`` float32 ``(N, C)`` or, as maps, ``(N, T', H', W', C)``.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: the options contradict each other or the model.
        """
        start: list[float] = []
        end: list[float] = []
        # Small arrays, kept between the large ones of the network, would fragment memory.
        values, shape = bytearray(), ()
        with open_media(video) as file:
            for piece in self.pieces(file, options):
                start += piece.start.tolist()
                end += piece.end.tolist()
                values += piece.features.tobytes()
                shape = piece.features.shape[1:]
        features = np.frombuffer(values, np.float32).reshape(len(start), *shape)
        return Embedding(np.array(start), np.array(end), features)

    def pieces(
        self, file: VideoFile | PictureFile, options: EmbeddingOptions
    ) -> Iterator[Embedding]:
        """The same, some parts at a time: memory does not grow with the length of the video."""
        self.check(options)
        if options.stride is None:
            yield self._whole(file, options)
            return
        if isinstance(file, PictureFile):
            raise ValueError(f"{file.path}: a picture has one vector; leave out the stride")
        windows = sliding_windows(file, self._clip, options.stride, options.window)
        while group := list(islice(windows, CLIPS_AT_ONCE)):
            clips = np.concatenate([window.clips for window in group])  # (n, T, H, W, 3)
            start, end = (
                np.array(seconds) for seconds in zip(*(w[:2] for w in group), strict=True)
            )
            yield Embedding(start, end, self._features(clips, options))

    def clips_of(self, file: VideoFile | PictureFile, options: EmbeddingOptions) -> np.ndarray:
        """The clips whose features are averaged to those of a whole file, without a stride.

        Returns:
            uint8 ``(views, T, H, W, 3)``.

        Raises:
            VideoDecodeError: the file is damaged.
        """
        return clips_of_views(file, self._clip, *self._views_of(options))

    def together(
        self, clips: Iterable[np.ndarray], options: EmbeddingOptions
    ) -> Iterator[np.ndarray]:
        """Features of whole files; several files share a pass of the network if they fit into it.

        Args:
            clips: of each file, as `clips_of` gives them.
            options: which features.

        Yields:
            Those of the next n files, in their order: float32 ``(n, C)``, or maps
            ``(n, T', H', W', C)``.
        """
        clips, count = iter(clips), math.prod(self._views_of(options))
        while group := list(islice(clips, max(1, CLIPS_AT_ONCE // count))):
            features = self._features([clip for views in group for clip in views], options)
            yield features.reshape(len(group), count, *features.shape[1:]).mean(axis=1)

    def stages(self, video: str | Path, second: float | None = None) -> StageMaps:
        """The maps of all stages for one clip of a video, from one pass.

        Args:
            video: a file.
            second: the middle of the clip, seconds; None: the middle of the video.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ChoiceError: a ValueError: the video does not last so long.
        """
        clip, times, last = clip_at(video, self._clip, second)
        ((_, batch),) = batches(clip[None])
        model: Any = self._network.network
        maps = self._network.apply(
            lambda pixels: feature_maps(model, pixels), self._network.normalized(batch)
        )
        return StageMaps(clip, times.clip(0, last), [x[0].cpu().numpy() for x in maps])

    def check(self, options: EmbeddingOptions) -> None:
        """See that there are such features.

        Raises:
            ValueError: the options contradict each other or the model.
        """
        stages = len(self._network.network.stage_ends)  # pyright: ignore[reportArgumentType]
        if options.stage is not None and not 1 <= options.stage <= stages:
            raise ValueError(f"stage must be 1 to {stages}, not {options.stage}")
        if options.stride is not None:
            window_step(self._clip, options.stride, options.window)
        elif options.window is not None:
            raise ValueError("a window needs a stride; without one, features are of whole videos")
        if options.views is None:
            return
        if options.stride is not None or not options.pool:
            raise ValueError("views are averaged to one vector a video: no stride and no maps")
        if len(options.views) != 2 or min(options.views) < 1:
            raise ValueError(
                f"views must be (temporal, spatial), each at least 1, not {options.views}"
            )

    def _whole(self, file: VideoFile | PictureFile, options: EmbeddingOptions) -> Embedding:
        """One row for the whole video."""
        (features,) = self.together([self.clips_of(file, options)], options)
        seconds = 0.0 if isinstance(file, PictureFile) else file.duration
        return Embedding(np.zeros(1), np.array([seconds]), features)

    def _views_of(self, options: EmbeddingOptions) -> Sequence[int]:
        """Numbers of temporal and spatial views of a whole file."""
        return options.views or (self._views if options.pool else (1, 1))

    def _features(
        self, clips: Sequence[np.ndarray] | np.ndarray, options: EmbeddingOptions
    ) -> np.ndarray:
        """Features of n clips, each uint8 ``(T, H, W, 3)``: float32 ``(n, C)`` or maps."""
        model: Any = self._network.network
        stage = None if options.stage is None else options.stage - 1
        compute = pooled_features if options.pool else feature_map

        def features(video: Tensor) -> Tensor:
            return compute(model, video, stage)

        parts = [
            self._network.apply(features, self._network.normalized(batch)).cpu().numpy()
            for _, batch in batches(clips)
        ]
        return np.concatenate(parts)
