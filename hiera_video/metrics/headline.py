"""The numbers by which a test is known, of all that its ``results.json`` holds."""

from collections.abc import Mapping
from typing import Any

from hiera_video.metrics.ava_results import METRIC as MAP
from hiera_video.metrics.coco_results import LOGGED
from hiera_video.metrics.results import METRICS


def headline(results: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of a test, the most important first; counts and single classes are left out.

    Args:
        results: ``results.json`` of any task.

    Returns:
        ``top1``, ``top5`` and ``mean_class_accuracy``; or the mAP of AVA, with its protocol, and of
        each group of its classes; or ``mask_AP``, ``box_AP`` and the others of COCO's `LOGGED`; and
        whatever else was logged, such as ``test/loss``. None stands for NaN.
    """
    numbers = {name: results.get(name) for name in METRICS if name in results}
    if MAP in results:
        numbers[f"{MAP} ({results.get('protocol')} protocol)"] = results[MAP]
        groups = _section(results, "groups").items()
        numbers |= {f"{MAP} of classes of {name}": value for name, value in groups}
    for kind in ("mask", "box"):
        values = _section(results, kind)
        numbers |= {f"{kind}_{name}": values[name] for name in LOGGED if name in values}
    numbers |= {name: value for name, value in results.items() if "/" in name}
    return {n: v for n, v in numbers.items() if v is None or _is_number(v)}


def _section(results: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return value if isinstance(value := results.get(name), Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
