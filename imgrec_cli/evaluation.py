"""Classifier × labelled images → Evaluation: the figures, and every prediction behind them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.atomic import write_csv, write_json
from imgrec_cli.bundle import Manifest
from imgrec_cli.classifier import Classifier, Scored
from imgrec_cli.errors import BadImageError, DataError, InputError
from imgrec_cli.metrics.calibration import Reliability, conformal_limit, reliability, with_temperature
from imgrec_cli.metrics.curves import curve
from imgrec_cli.metrics.intervals import Interval, f1_interval, wilson
from imgrec_cli.metrics.summary import Summary, summarize
from imgrec_cli.progress import Advance, Listener, ignore
from imgrec_cli.storage import File

CHOSE_THE_MODEL = "measured on the images that chose the model"
TRAINED_THE_MODEL = "measured on the images that trained the model"
LARGEST_INDENTED = 60  # classes: of more, every number of the confusion matrix on a line of its own helps nobody
SHOWN_COVERAGES = (0.8, 0.9, 0.95)
SHOWN_CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
CAVEATS = {"validation": CHOSE_THE_MODEL, "train": TRAINED_THE_MODEL}
_OF_ALL = ("accuracy", "balanced_accuracy", "mcc", "kappa")
_MEANS = ("macro", "weighted")
_OF_CLASS = ("precision", "recall", "f1")


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image file, the path it is reported under, and the index of its class."""

    path: str
    file: File
    label: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one split or folder, and what they were computed from.

    `scores` float32 [N, classes] are the calibrated probabilities of `paths`, `labels` int [N], `predicted` int [N]
    the answers, `unfamiliarity` float32 [N] (NaN: not known), `manifest` that of the bundle; `unreadable` maps the
    images left out to the reason.
    """

    split: str
    manifest: Manifest
    summary: Summary
    paths: list[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32]
    unreadable: dict[str, str]

    @property
    def class_names(self) -> list[str]:
        return self.manifest.class_names

    @property
    def caveat(self) -> str:
        """What has to be said beside every figure of this split; empty for test images."""
        return CAVEATS.get(self.split, "")

    @property
    def accuracy_interval(self) -> Interval:
        """95 % interval of the accuracy."""
        return wilson(int((self.predicted == self.labels).sum()), len(self.labels))

    def worst_mistakes(self, count: int) -> list[int]:
        """Places of the wrong answers that were surest, surest first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        sure = self.scores[wrong, self.predicted[wrong]]
        return [int(place) for place in wrong[np.argsort(-sure, kind="stable")][:count]]

    def least_sure(self, count: int) -> list[int]:
        """Places of the images with the smallest largest probability, least sure first."""
        return [int(place) for place in np.argsort(self.scores.max(axis=1), kind="stable")[:count]]

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values for JSON; the split is named first."""
        summary = self.summary
        return {
            "split": self.split,
            "caveat": self.caveat,
            "images": summary.images,
            "accuracy": summary.accuracy,
            "accuracy_interval": self.accuracy_interval,
            "balanced_accuracy": summary.balanced_accuracy,
            "mcc": summary.mcc,
            "kappa": summary.kappa,
            "top_k": {str(k): value for k, value in summary.top_k.items()},
            "loss": summary.loss,
            "macro": asdict(summary.macro),
            "weighted": asdict(summary.weighted),
            "classes": {name: self._of_class(label) for label, name in enumerate(self.class_names)},
            "calibration": self._calibration(),
            "sets": self._sets(),
            "abstention": self._abstention(),
            "thresholds": self._thresholds(),
            "unfamiliar": self._unfamiliar(),
            "confusion": {"rows": "true class", "columns": "predicted", "counts": summary.confusion.tolist()},
            "class_names": self.class_names,
            "other": self.manifest.other,
            "unreadable": self.unreadable,
        }

    def figure(self, name: str) -> float:
        """One figure by its name: accuracy, …, macro.f1, f1.CLASS, recall.CLASS, precision.CLASS. Raises InputError."""
        check_figure(name, self.class_names)
        kind, _, rest = name.partition(".")
        summary = self.summary
        if name in _OF_ALL:
            return float(getattr(summary, name))
        if kind in _MEANS:
            return float(getattr(getattr(summary, kind), rest))
        return float(getattr(summary.classes[self.class_names.index(rest)], kind))

    def _of_class(self, label: int) -> dict[str, Any]:
        scores, confusion = self.summary.classes[label], self.summary.confusion
        hits, support, claimed = (int(n) for n in (confusion[label, label], scores.support, confusion[:, label].sum()))
        found = curve(self.scores[:, label], self.labels == label)
        return {
            **asdict(scores),
            "precision_interval": wilson(hits, claimed),
            "recall_interval": wilson(hits, support),
            "f1_interval": f1_interval(hits, claimed - hits, support - hits),
            "auc": found and found.auc,
            "average_precision": found and found.average_precision,
        }

    def _calibration(self) -> dict[str, Any]:
        temperature = self.manifest.decision.temperature
        after = reliability(self.scores, self.labels)
        before = reliability(with_temperature(self.scores, 1 / temperature), self.labels)

        def bins(found: Reliability) -> list[dict[str, float]]:
            columns = zip(found.counts.tolist(), found.confidence.tolist(), found.accuracy.tolist(), strict=True)
            return [{"images": n, "confidence": c, "accuracy": a} for n, c, a in columns]

        return {
            "temperature": temperature,
            "ece": after.error,
            "ece_before": before.error,
            "bins": bins(after),
            "bins_before": bins(before),
        }

    def _sets(self) -> list[dict[str, Any]]:
        """How often the sets of classes hold the true one, and how large they are."""
        rows = []
        limits = self.manifest.decision.conformal
        for coverage in SHOWN_COVERAGES if limits else ():
            sets = self.scores >= conformal_limit(limits, coverage)
            covered = int(sets[np.arange(len(self.labels)), self.labels].sum())
            sizes = sets.sum(axis=1)
            rows.append(
                {
                    "coverage": coverage,
                    "measured": covered / len(self.labels),
                    "interval": wilson(covered, len(self.labels)),
                    "mean_size": float(sizes.mean()),
                    "empty": float((sizes == 0).mean()),
                    "single": float((sizes == 1).mean()),
                }
            )
        return rows

    def _abstention(self) -> list[dict[str, Any]]:
        """Accuracy of the answers that are left where the least confidence is asked for, and their share."""
        sure = self.scores[np.arange(len(self.labels)), self.predicted]
        right = self.predicted == self.labels
        rows = []
        for limit in SHOWN_CONFIDENCES:
            kept = sure >= limit
            accuracy = float(right[kept].mean()) if kept.any() else None
            rows.append({"min_confidence": limit, "answered": float(kept.mean()), "accuracy": accuracy})
        return rows

    def _thresholds(self) -> dict[str, dict[str, float]]:
        """What the threshold of a class gains and costs, beside the most probable class answered always."""
        thresholds = self.manifest.decision.thresholds
        plain = summarize(self.scores, self.labels) if thresholds else self.summary
        found = {}
        for name, threshold in thresholds.items():
            label = self.class_names.index(name)
            ours, without = self.summary.classes[label], plain.classes[label]
            found[name] = {
                "threshold": threshold,
                "recall": ours.recall,
                "recall_without": without.recall,
                "precision": ours.precision,
                "precision_without": without.precision,
            }
        return found

    def _unfamiliar(self) -> dict[str, Any] | None:
        above = self.manifest.unfamiliar_above
        if above is None:
            return None
        return {"above": above, "flagged": float((self.unfamiliarity > above).mean())}

    def save(self, folder: Path) -> None:
        """Write `metrics.json` and `predictions.csv` (path, label, predicted, one score per class)."""
        folder.mkdir(parents=True, exist_ok=True)
        names = self.class_names
        write_json(folder / "metrics.json", self.as_dict(), indented=len(names) <= LARGEST_INDENTED)
        write_csv(
            folder / "predictions.csv",
            ["path", "label", "predicted", *(f"score:{name}" for name in names), "unfamiliarity"],
            (
                [path, names[label], names[answer], *(f"{value:.6g}" for value in row), f"{unfamiliarity:.6g}"]
                for path, label, answer, row, unfamiliarity in zip(
                    self.paths, self.labels, self.predicted, self.scores, self.unfamiliarity, strict=True
                )
            ),
        )


def check_figure(name: str, class_names: Sequence[str]) -> None:
    """Raise InputError where `Evaluation.figure` has none of this name."""
    kind, _, rest = name.partition(".")
    of_class = kind in _OF_CLASS and rest in class_names
    if not (name in _OF_ALL or of_class or (kind in _MEANS and rest in _OF_CLASS)):
        raise InputError(
            f"{name}: no such figure",
            "accuracy, balanced_accuracy, mcc, kappa, macro.f1, or of one class f1.CLASS, recall.CLASS, "
            f"precision.CLASS with one of {', '.join(class_names[:20])}",
        )


def evaluate_files(
    classifier: Classifier, images: Sequence[LabelledImage], split: str, on_event: Listener = ignore
) -> Evaluation:
    """Score image files as prediction would read them.

    Unreadable files are left out and listed in the result. Raises DataError where no image can be read.
    """
    readable: list[LabelledImage] = []
    answers: list[Scored] = []
    unreadable: dict[str, str] = {}
    for image, result in zip(images, classifier.score_files(image.file for image in images), strict=True):
        if isinstance(result, BadImageError):
            unreadable[image.path] = result.message
        else:
            readable.append(image)
            answers.append(result)
        on_event(Advance("evaluating", len(readable) + len(unreadable), len(images)))
    if not readable:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(unreadable.items())[:3])
        raise DataError(
            f"none of the {len(images)} images of {split} can be read" + (f": {reasons}" if reasons else "")
        )
    labels = np.array([image.label for image in readable], np.int64)
    scores = np.stack([answer.scores for answer in answers])
    predicted = classifier.decided(scores)
    return Evaluation(
        split,
        classifier.manifest,
        summarize(scores, labels, predicted),
        [image.path for image in readable],
        labels,
        predicted,
        scores,
        np.array([answer.unfamiliarity for answer in answers], np.float32),
        unreadable,
    )
