"""Pictures for the loggers of a run; the one place that knows how each of them takes a picture."""

import io
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from PIL import Image

log = logging.getLogger(__name__)

SHOW_PICTURES = {
    TensorBoardLogger: "TensorBoard",
    WandbLogger: "Weights & Biases",
    MLFlowLogger: "MLflow",
}
COLOURS = 256  # of a still picture; those painted here have no more


def showing(loggers: Iterable[Logger]) -> list[Logger]:
    """Those loggers that show pictures; a file of numbers does not."""
    return [logger for logger in loggers if isinstance(logger, tuple(SHOW_PICTURES))]


def log_picture(
    loggers: Iterable[Logger], name: str, picture: Image.Image | bytes, step: int, caption: str
) -> None:
    """Log a picture; loggers of numbers alone are passed over.

    A full disk or a service that fails does not end a run: the picture is left out, and the log
    says so.

    Args:
        loggers: of the trainer, in the first process.
        name: of the picture, under which its versions at several steps are shown.
        picture: RGB, with few colours; or the bytes of an animated GIF.
        step: steps of the optimiser so far.
        caption: what it shows; Weights & Biases alone has a place for it.
    """
    file = picture if isinstance(picture, bytes) else _png(picture)
    for logger in showing(loggers):
        try:
            if isinstance(logger, TensorBoardLogger):
                _to_tensorboard(logger, name, file, step)
            elif isinstance(logger, WandbLogger):
                _to_wandb(logger, name, file, step, caption)
            elif isinstance(logger, MLFlowLogger):
                _to_mlflow(logger, name, file, step)
        except Exception as error:  # each service has errors of its own
            place = next(SHOW_PICTURES[kind] for kind in SHOW_PICTURES if isinstance(logger, kind))
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            log.warning(f"the picture {name} of step {step} is not in {place}: {reason}")


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.quantize(COLOURS).save(file, "PNG", optimize=True)
    return file.getvalue()


def _is_gif(file: bytes) -> bool:
    return file.startswith(b"GIF8")


def _to_tensorboard(logger: TensorBoardLogger, name: str, file: bytes, step: int) -> None:
    """Write the file as it is; `SummaryWriter.add_video` would need MoviePy to make a GIF."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore

    with Image.open(io.BytesIO(file)) as opened:
        width, height = opened.size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file)
    value = Summary.Value(tag=name, image=image)
    logger.experiment._get_file_writer().add_summary(Summary(value=[value]), step)


def _to_wandb(logger: WandbLogger, name: str, file: bytes, step: int, caption: str) -> None:
    if _is_gif(file):
        logger.log_video(name, [io.BytesIO(file)], step=step, caption=[caption], format=["gif"])
    else:
        with Image.open(io.BytesIO(file)) as opened:
            logger.log_image(name, [opened], step=step, caption=[caption])


def _to_mlflow(logger: MLFlowLogger, name: str, file: bytes, step: int) -> None:
    """Log an artifact such as ``val/confusion/step-0000120.png``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"step-{step:07d}.{'gif' if _is_gif(file) else 'png'}")
        path.write_bytes(file)
        logger.experiment.log_artifact(logger.run_id or "", str(path), name)
