"""``predict`` of a camera or a stream: a line on standard output for each answer."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from datamodules.video.live_source import is_live
from datamodules.wording import counted
from hiera_video.errors import UsageError
from hiera_video.predicting.action_files import record_of
from hiera_video.predicting.along import top_of
from hiera_video.predicting.live import LiveAnswer, live_answers
from hiera_video.predicting.live_actions import LiveActions, live_actions
from hiera_video.predicting.moments import Person
from hiera_video.running.predict_actions import action_predictor, detects_actions, persons_of
from hiera_video.running.predict_along import class_predictor, names_classes
from hiera_video.weights.trained import Classes

log = logging.getLogger(__name__)


def live_sources(config: DictConfig) -> list[str]:
    """The cameras and streams among what is to be predicted."""
    return [source for source in config.data.get("predict", ()) if is_live(str(source))]


def predict_live(config: DictConfig, weights: str, classes: Classes) -> None:
    """Print the classes, or the actions of persons, of a camera or a stream until it ends.

    Ctrl-C ends it as well. The file ``out`` gets the same answers as JSON lines.

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
    answers_of: Callable[..., Iterator[_Answer]]
    if detects_actions(config):
        answers_of = _actions
    elif names_classes(config):
        answers_of = _classes
    else:
        raise UsageError(f"{source}: live, classes and actions are predicted")
    out = Path(config.out)
    if out.exists():
        raise UsageError(_exists(out))
    stride = 1.0 if config.stride is None else config.stride
    try:
        answers = answers_of(config, weights, classes, source, stride)
    except ValueError as error:
        raise UsageError(str(error)) from error
    log.info(f"predict {config.name} live from {source} -> {out}; Ctrl-C ends it")
    count, dropped, file = 0, 0, None
    with ExitStack() as stack:
        stack.enter_context(suppress(KeyboardInterrupt))
        for answer in answers:
            if not count:  # a stream that cannot be opened leaves no file
                out.parent.mkdir(parents=True, exist_ok=True)
                try:  # another run may have come in between
                    file = stack.enter_context(open(out, "x", encoding="utf-8"))
                except FileExistsError:
                    raise UsageError(_exists(out)) from None
            count, dropped, latency = count + 1, answer.dropped, round(1000 * answer.latency)
            record = {"time": round(answer.time, 3), **answer.record}
            record |= {"latency_ms": latency, "dropped": dropped}
            print(json.dumps(record, ensure_ascii=False), file=file, flush=True)
            line = f"{answer.time:.2f} s  {answer.words}  {latency} ms  {dropped} dropped"
            print(line, flush=True)
    log.info(f"{counted(count, 'answers')}, {counted(dropped, 'frames')} dropped; results in {out}")


def _exists(out: Path) -> str:
    return f"{out} exists already; set another out="


class _Answer(NamedTuple):
    """An answer as it is written: ``words`` for people, ``record`` for JSON."""

    time: float
    latency: float
    dropped: int
    words: str
    record: dict[str, Any]


def _classes(
    config: DictConfig, weights: str, classes: Classes, source: str, stride: float
) -> Iterator[_Answer]:
    """The best classes of the newest frames."""
    predictor = class_predictor(config, weights, classes)
    answers = live_answers(predictor, source, stride, config.along.window)

    def written(answer: LiveAnswer) -> _Answer:
        best = top_of(answer.probabilities, predictor.class_names, config.along.top)
        words = "  ".join(f"{label} {probability:.2f}" for label, probability in best)
        labels = [{"label": label, "probability": round(p, 6)} for label, p in best]
        return _Answer(answer.time, answer.latency, answer.dropped, words, {"predictions": labels})

    return map(written, answers)


def _actions(
    config: DictConfig, weights: str, classes: Classes, source: str, stride: float
) -> Iterator[_Answer]:
    """The persons of the newest frames, with their best actions."""
    predictor = action_predictor(config, weights, classes)
    persons = persons_of(config, predictor.device)
    least = config.min_action_score
    answers = live_actions(predictor, source, persons, stride, least, config.along.top)

    def written(answer: LiveActions) -> _Answer:
        words = "  ".join(map(_words_of, answer.persons)) or "nobody"
        boxes = [record_of(person) for person in answer.persons]
        return _Answer(answer.time, answer.latency, answer.dropped, words, {"boxes": boxes})

    return map(written, answers)


def _words_of(person: Person) -> str:
    x1, y1, x2, y2 = person.box
    actions = ", ".join(f"{label} {score:.2f}" for label, score in person.actions)
    return f"[{x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f}: {actions or 'no action'}]"
