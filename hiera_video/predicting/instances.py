"""The objects in pictures and videos: what `load` gives for an instance segmentation."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.video.opening import open_media
from datamodules.video.playback import Shown, play, play_every
from hiera_video.augment.basic import Normalize
from hiera_video.errors import CheckpointError
from hiera_video.models.mask_rcnn import paste_mask
from hiera_video.predicting.batches import ClipNetwork, check_second
from hiera_video.weights.description import Description, words_for
from hiera_video.weights.portable import build
from hiera_video.weights.trained import read_trained


class Objects(NamedTuple):
    """The objects in a picture of height H and width W; N of them, in falling order of scores.

    Attributes:
        labels: names of their classes.
        scores: float32 ``(N,)`` in [0, 1].
        boxes: x1, y1, x2, y2 in pixels, float32 ``(N, 4)``.
        masks: which pixels are of each, bool ``(N, H, W)``.
    """

    labels: list[str]
    scores: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


class ObjectsOverTime(NamedTuple):
    """The objects in a frame of a video.

    Attributes:
        start: seconds from the start of the video to the frame.
        end: the same to the next frame that is looked at, or to the end of the video.
        objects: in the frame.
    """

    start: float
    end: float
    objects: Objects


class InstancePredictor:
    """Finds objects in pictures and videos, with the numbers of a test in float32.

    Args:
        model: a `MaskRCNNHiera`, or what is called like one and has its ``pixels``.
        class_names: in the order of its labels, of which the first is 1.
        size: height and width to which a picture is scaled and padded, pixels.
        category_ids: numbers of the classes in COCO's files; None or empty: 1, 2, 3, ...
        normalize: from uint8 to what the model takes.
        device: None: a GPU if there is one.
        precision: as in `ClipNetwork`.

    Attributes:
        class_names: a tuple.
        category_ids: a tuple, of the same length.
        size: a tuple.
        device: where the model is.
        model: in evaluation mode; it drops objects that score less than 0.05.

    Raises:
        ValueError: the size is not of whole mask units, or there is no such precision.
    """

    def __init__(
        self,
        model: Any,
        class_names: Sequence[str],
        size: Sequence[int],
        category_ids: Sequence[int] | None = None,
        normalize: Normalize | None = None,
        device: str | torch.device | None = None,
        precision: str = "32-true",
    ) -> None:
        height, width = size
        if height % model.pixels[0] or width % model.pixels[1]:
            raise ValueError(f"size must be multiples of {model.pixels}, not {height, width}")
        self._network = ClipNetwork(model, normalize, device, precision)
        self.model, self.device = self._network.network, self._network.device
        self.class_names, self.size = tuple(class_names), (height, width)
        self.category_ids = tuple(category_ids or range(1, len(self.class_names) + 1))

    def predict(
        self, file: str | Path, second: float | None = None, min_score: float = 0.5
    ) -> Objects:
        """The objects in a picture, or in one frame of a video.

        Args:
            file: a picture or a video.
            second: of a video, when to look; None: in the middle.
            min_score: objects with a lower score are left out, in [0, 1].

        Raises:
            VideoDecodeError: the file cannot be read.
            ChoiceError: a ValueError: the video does not last so long.
            ValueError: the score is not in [0, 1].
        """
        with open_media(file) as opened:
            if second is not None:
                check_second(opened, second)
            (picture,) = opened.frames_at([opened.duration / 2 if second is None else second])
        return self.in_picture(picture, min_score)

    def along(
        self, video: str | Path, stride: float | None = None, min_score: float = 0.5
    ) -> Iterator[ObjectsOverTime]:
        """The objects in a video, frame by frame; memory does not grow with its length.

        Args:
            video: a file.
            stride: seconds from one frame that is looked at to the next; None: all frames are.
            min_score: as in `predict`.

        Yields:
            ``ObjectsOverTime(start, end, objects)``, in the order of time.

        Raises:
            VideoDecodeError: the file cannot be read as a video, or it is damaged; frames before
                the damage have been yielded.
            ValueError: ``stride`` is not positive, or the score is not in [0, 1].
        """
        check_options(min_score, stride)
        for shown in frames_of(str(video), stride):
            objects = self.in_picture(shown.picture, min_score)
            yield ObjectsOverTime(float(shown.start), float(shown.end), objects)

    def in_picture(self, picture: np.ndarray, min_score: float = 0.5) -> Objects:
        """The objects in a picture in memory, uint8 RGB ``(H, W, 3)``.

        Raises:
            ValueError: the score is not in [0, 1].
        """
        check_options(min_score)
        objects = self.detections(picture)
        objects = {name: x[objects["scores"] >= min_score] for name, x in objects.items()}
        height, width = picture.shape[:2]
        masks = np.zeros((len(objects["boxes"]), height, width), bool)
        for whole, mask, box in zip(masks, objects["masks"], objects["boxes"], strict=True):
            part, (top, left) = paste_mask(mask[0], box, height, width)
            whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        labels = [self.class_names[label - 1] for label in objects["labels"].tolist()]
        return Objects(labels, objects["scores"].numpy(), objects["boxes"].numpy(), masks)

    @torch.inference_mode()
    def detections(self, picture: np.ndarray) -> dict[str, Tensor]:
        """What the model returns for a picture, on the CPU.

        Args:
            picture: uint8 RGB ``(H, W, 3)``.

        Returns:
            ``boxes`` float32 ``(N, 4)``: x1, y1, x2, y2 in pixels of the picture; ``labels`` int64
            ``(N,)``, from 1 on; ``scores`` float32 ``(N,)``, falling; and ``masks`` float32
            ``(N, 1, 28, 28)``: the probability of the object in its box.
        """
        image = torch.from_numpy(np.array(picture, order="C")).permute(2, 0, 1)  # (3, H, W)
        from datamodules.coco.jitter import GREY, fit, pad  # with torchvision, which loads slowly

        scaled = fit(image, self.size)
        sizes = [(scaled.shape[1], scaled.shape[2])]
        clip = pad(scaled, self.size, GREY)[None, :, None]  # (1, 3, 1, *size)
        (objects,) = self._network.apply(
            lambda images: self.model(images, sizes), self._network.normalized(clip)
        )
        objects = {name: x.cpu() for name, x in objects.items()}
        objects = {name: x.float() if x.is_floating_point() else x for name, x in objects.items()}
        factor = torch.tensor(image.shape[1:]) / torch.tensor(sizes[0])  # height, width
        objects["boxes"] = objects["boxes"] * factor[[1, 0, 1, 0]]
        return objects


def load_instances(
    source: str | Path, device: str | torch.device | None = None
) -> InstancePredictor:
    """A trained instance segmentation.

    Args:
        source: as in `load`.
        device: None: a GPU if there is one.

    Raises:
        CheckpointError: a ValueError: the source is none, or of another kind.
    """
    trained = read_trained(source)
    if (kind := trained.description.kind) != "mask_rcnn":
        raise CheckpointError(
            f"{source}: holds {words_for(kind)}; give a run of instance segmentation"
        )
    return instance_predictor(trained.description, trained.weights, device)


def instance_predictor(
    description: Description, weights: str | Path, device: str | torch.device | None = None
) -> InstancePredictor:
    """Build the predictor of a described Mask R-CNN.

    Args:
        description: of the model.
        weights: a file or a published name.
        device: None: a GPU if there is one.

    Raises:
        CheckpointError: the weights do not fit, or the size of pictures is missing or wrong.
    """
    size = description.evaluation.get("pad")
    if size is None:
        raise CheckpointError(f"{weights}: does not say what its input is; use create_mask_rcnn")
    model = build(description, weights)
    names = description.class_names or [str(i + 1) for i in range(model.num_classes)]
    normalize = Normalize(description.mean, description.std)  # pyright: ignore[reportArgumentType]
    try:
        return InstancePredictor(model, names, size, description.action_ids, normalize, device)
    except ValueError as error:
        raise CheckpointError(f"{weights}: {error}") from error


def frames_of(video: str, stride: float | None) -> Iterator[Shown]:
    """The frames that are looked at, as in `InstancePredictor.along`."""
    if stride is not None:
        yield from play_every(video, stride)
        return
    with closing(play(video)) as frames:
        yield from frames


def check_options(min_score: float, stride: float | None = None) -> None:
    """Check the options of `InstancePredictor`.

    Raises:
        ValueError: the score is not in [0, 1], or the stride is not a positive number.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score must be in [0, 1], not {min_score}")
    if stride is not None and not 0 < stride < float("inf"):
        raise ValueError(f"stride must be a number of seconds above 0, not {stride}")
