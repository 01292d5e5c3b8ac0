"""What tasks have in common whose outputs are classes with names."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from lightning import LightningModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from hiera_video.tasks.base import VideoTask
from hiera_video.weights.trained import Classes


class NamedClassesTask(VideoTask):
    """A task that takes the classes of its data, or sees that the data has those of its weights.

    Args:
        model: as in `VideoTask`; called with ``num_classes``.
        class_names: in the order of the network's outputs; None: those of the data module. They are
            saved in checkpoints, so that a prediction has names.
        **kwargs: as in `VideoTask`.

    Attributes:
        no_classes: what to say if there are none.
        named: where the data has its classes, and what they are called.
    """

    no_classes: str
    named = "the data", "classes"

    def __init__(
        self,
        model: Callable[..., nn.Module],
        *,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, **kwargs)
        self.class_names = tuple(class_names) if class_names else None

    def data_classes(self) -> Classes:
        """The classes of the data module; without names if it has none."""
        return Classes(tuple(self.datamodule.class_names or ()))

    def agreed_classes(self) -> tuple[str, ...]:
        """Take the classes from the data, or check that they agree.

        Raises:
            MisconfigurationException: they do not agree, or there are none.
        """
        data = self.data_classes()
        if self.class_names is None:
            self.take_classes(data)
        if not self.class_names:
            raise MisconfigurationException(f"no class names: {self.no_classes}")
        if data.names and data != self.classes():
            source, noun = self.named
            raise MisconfigurationException(
                f"{source} has {len(data.names)} {noun} ({data.names[0]}, ...), the model "
                f"{len(self.class_names)} ({self.class_names[0]}, ...) in another order or number"
            )
        return self.class_names

    def take_classes(self, classes: Classes) -> None:
        """Make classes those of the task."""
        self.class_names = classes.names

    def network(self) -> nn.Module:
        """A network for these classes."""
        return self.create_network(num_classes=len(self.agreed_classes()))

    def classes(self) -> Classes:
        """The classes that the network's outputs mean."""
        return Classes(self.class_names or ())


def classifying(pl_module: LightningModule) -> NamedClassesTask:
    """The task that Lightning hands to a callback, as what it is."""
    return cast(NamedClassesTask, pl_module)
