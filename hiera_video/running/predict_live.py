"""``predict`` of a camera or a stream: a line on standard output for each answer."""

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from datamodules.video.live_source import is_live
from hiera_video.errors import UsageError
from hiera_video.metrics.top_classes import Prediction
from hiera_video.predicting.along import top_of
from hiera_video.predicting.live import LiveAnswer, live_answers
from hiera_video.running.predict_along import class_predictor, names_classes
from hiera_video.weights.trained import Classes

log = logging.getLogger(__name__)


def live_sources(config: DictConfig) -> list[str]:
    """The cameras and streams among what is to be predicted."""
    return [source for source in config.data.get("predict", ()) if is_live(str(source))]


def predict_live(config: DictConfig, weights: str, classes: Classes) -> None:
    """Print the classes of a camera or a stream until it ends, or until Ctrl-C.

    The answers are written to the file ``out``, too, as JSON lines.

    Args:
        config: the whole configuration; ``stride`` is 1 s if it is null.
        weights: a checkpoint, an export's file of weights, or a published name.
        classes: those that ``weights`` names; if none, they are numbers.

    Raises:
        UsageError: the configuration is wrong.
        VideoDecodeError: the stream cannot be opened, or fails.
    """
    source, *others = config.data.predict
    if others:
        raise UsageError(f"{live_sources(config)[0]} is live: predict it alone")
    if not names_classes(config):
        raise UsageError(f"{source}: live predictions are for classification")
    if (out := Path(config.out)).exists():
        raise UsageError(f"{out} exists already; set another out=")
    predictor = class_predictor(config, weights, classes)
    stride = 1.0 if config.stride is None else config.stride
    try:
        answers = live_answers(predictor, source, stride, config.along.window)
    except ValueError as error:
        raise UsageError(str(error)) from error
    log.info(f"predict {config.name} live from {source} -> {out}; Ctrl-C ends it")
    count, dropped, file = 0, 0, None
    with ExitStack() as stack:
        stack.enter_context(suppress(KeyboardInterrupt))
        for answer in answers:
            if not count:  # a stream that cannot be opened leaves no file
                out.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(out, "w", encoding="utf-8"))
            best = top_of(answer.probabilities, predictor.class_names, config.along.top)
            count, dropped = count + 1, answer.dropped
            line = json.dumps(_record(answer, best), ensure_ascii=False)
            print(line, file=file, flush=True)
            print(_line(answer, best), flush=True)
    log.info(f"{count} answers, {dropped} frames dropped; results in {out}")


def _line(answer: LiveAnswer, best: Sequence[Prediction]) -> str:
    names = "  ".join(f"{label} {probability:.2f}" for label, probability in best)
    latency = round(1000 * answer.latency)
    return f"{answer.time:.2f} s  {names}  {latency} ms  {answer.dropped} dropped"


def _record(answer: LiveAnswer, best: Sequence[Prediction]) -> dict[str, Any]:
    return {
        "time": round(answer.time, 3),
        "predictions": [{"label": label, "probability": round(p, 6)} for label, p in best],
        "latency_ms": round(1000 * answer.latency),
        "dropped": answer.dropped,
    }
