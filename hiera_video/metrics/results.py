"""The results of a test, for people and for programs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from datamodules.suffixes import kind_of
from datamodules.wording import counted, few
from hiera_video.metrics.outcomes import Outcomes

MOST_CONFUSED = 20
SHOWN = 5


class Results(NamedTuple):
    """Outcomes, with the names of classes and videos.

    Attributes:
        outcomes: for the videos that were seen.
        class_names: in the order of the label ids.
        paths: path of each video of `outcomes`.
    """

    outcomes: Outcomes
    class_names: Sequence[str]
    paths: Sequence[str]

    def summary(self) -> dict[str, Any]:
        """Plain values, as in ``results.json`` and ``evaluate --json``.

        Returns:
            ``top1``, ``top5`` (from five classes on) and ``mean_class_accuracy`` in [0, 1];
            ``videos`` and ``unlabelled``: numbers of videos with and without a label; ``views``:
            the accuracy for each number of views, from ``"1x1"`` to all; ``per_class`` and
            ``videos_per_class``: top-1 and number of videos of each class that has videos;
            ``confused``: see `confused`; ``failed``: videos that could not be decoded and
            ``without_prediction``: videos without finite probabilities, both counted as wrong;
            ``missing_views``: see `missing_views`.
        """
        outcomes = self.outcomes
        accuracy, videos = outcomes.class_accuracy()
        present = videos.nonzero()[0].tolist()
        labelled = outcomes.label >= 0
        return {
            **self._top(),
            "mean_class_accuracy": outcomes.mean_class_accuracy(),
            "videos": int(labelled.sum()),
            "unlabelled": int((~labelled).sum()),
            "views": {group.name: self._top(i) for i, group in enumerate(outcomes.groups)},
            "per_class": {self.class_names[i]: float(accuracy[i]) for i in present},
            "videos_per_class": {self.class_names[i]: int(videos[i]) for i in present},
            "confused": self.confused(),
            "failed": self._named(outcomes.failed),
            "without_prediction": self._named((outcomes.predicted < 0) & ~outcomes.failed),
            "missing_views": self.missing_views(),
        }

    def confused(self) -> list[dict[str, Any]]:
        """The pairs of classes that are confused most often, at most 20.

        Returns:
            ``label``, ``predicted``, ``videos``, and ``share`` of the videos with that label.
        """
        counts = self.outcomes.confusion()
        of_label = counts.sum(1)
        wrong = counts[:, :-1].copy()
        np.fill_diagonal(wrong, 0)
        pairs = np.argwhere(wrong)
        order = np.argsort(-wrong[tuple(pairs.T)], kind="stable")[:MOST_CONFUSED]
        return [
            {
                "label": self.class_names[label],
                "predicted": self.class_names[predicted],
                "videos": int(wrong[label, predicted]),
                "share": float(wrong[label, predicted] / of_label[label]),
            }
            for label, predicted in pairs[order].tolist()
        ]

    def missing_views(self) -> list[dict[str, Any]]:
        """Videos that lack views, which were left out of their averages.

        Returns:
            ``path``, and ``views``: those that are missing, as in `Outcomes.views`.
        """
        outcomes = self.outcomes
        lacking = (~outcomes.seen.all(1) & ~outcomes.failed).nonzero()[0].tolist()
        return [
            {
                "path": self.paths[i],
                "views": [outcomes.views[v] for v in (~outcomes.seen[i]).nonzero()[0].tolist()],
            }
            for i in lacking
        ]

    def describe(self) -> str:
        """The results in some lines of text."""
        summary, noun = self.summary(), kind_of(self.paths).noun
        lines = [
            "  ".join(f"{name} {summary[name]:.2%}" for name in METRICS if name in summary)
            + f"  ({counted(summary['videos'], noun)}, {self.outcomes.groups[-1].name} views)"
        ]
        if summary["unlabelled"]:
            lines.append(f"not counted: {counted(summary['unlabelled'], noun)} without a label")
        if summary["failed"]:
            lines.append(f"could not be decoded, counted as wrong: {few(summary['failed'], SHOWN)}")
        if unpredicted := summary["without_prediction"]:
            lines.append(f"no finite probabilities, counted as wrong: {few(unpredicted, SHOWN)}")
        if lacking := summary["missing_views"]:
            names = [f"{v['path']} (views {few(v['views'], SHOWN)})" for v in lacking]
            lines.append(f"lacking views, judged by the others: {few(names, SHOWN)}")
        if len(self.outcomes.groups) > 1:
            lines += self._lines_of_views()
        worst = sorted(summary["per_class"].items(), key=lambda item: item[1])[:SHOWN]
        lines.append("lowest classes: " + ", ".join(f"{name} {value:.0%}" for name, value in worst))
        lines += [
            f"most confused: {pair['label']} as {pair['predicted']}, "
            f"{counted(pair['videos'], noun)}, {pair['share']:.0%} of the class"
            for pair in summary["confused"][:SHOWN]
        ]
        return "\n".join(lines)

    def _named(self, chosen: np.ndarray) -> list[str]:
        return [path for path, is_chosen in zip(self.paths, chosen, strict=True) if is_chosen]

    def _top(self, group: int = -1) -> dict[str, float]:
        outcomes = self.outcomes
        top = {f"top{k}": outcomes.accuracy(k, group) for k in (1, 5)}
        return top if outcomes.num_classes >= 5 else {"top1": top["top1"]}

    def _lines_of_views(self) -> list[str]:
        """Top-1 by number of views, as a table if all numbers are there, else in one line."""
        names = [group.name for group in self.outcomes.groups]
        values = [f"{self.outcomes.accuracy(1, i):.2%}" for i in range(len(names))]
        spatial = [name for name in names if name.startswith("1x")]
        places = range(1, len(spatial) + 1)
        moments = range(1, len(names) // max(1, len(spatial)) + 1)
        if len(spatial) < 2 or names != [f"{t}x{s}" for t in moments for s in places]:
            pairs = zip(names, values, strict=True)
            return ["top1 by views: " + "  ".join(f"{name} {value}" for name, value in pairs)]
        rows = [values[i : i + len(spatial)] for i in range(0, len(values), len(spatial))]
        header = "".join(f"{name[1:]:>9}" for name in spatial)
        return [f"top1 by views{header}"] + [
            f"{t + 1:>13}" + "".join(f"{value:>9}" for value in row) for t, row in enumerate(rows)
        ]


METRICS = ("top1", "top5", "mean_class_accuracy")
