"""Classifier × labelled images → Evaluation: the figures, and every prediction behind them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.classifier import Classifier
from imgrec_cli.errors import BadImageError, DataError
from imgrec_cli.metrics.summary import Summary, summarize
from imgrec_cli.progress import Advance, Listener, ignore
from imgrec_cli.rundir import write_csv, write_json

CHOSE_THE_MODEL = "measured on the images that chose the model"
TRAINED_THE_MODEL = "measured on the images that trained the model"
CAVEATS = {"validation": CHOSE_THE_MODEL, "train": TRAINED_THE_MODEL}


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image file, the path it is reported under, and the index of its class."""

    path: str
    file: Path
    label: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one split or folder, and what they were computed from.

    `scores` float32 [N, classes] are the probabilities of `paths`, `labels` int [N]; `unreadable` maps the images
    left out to the reason.
    """

    split: str
    class_names: list[str]
    summary: Summary
    paths: list[str]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    unreadable: dict[str, str]

    @property
    def caveat(self) -> str:
        """What has to be said beside every figure of this split; empty for test images."""
        return CAVEATS.get(self.split, "")

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values for JSON; the split is named first."""
        return {
            "split": self.split,
            "caveat": self.caveat,
            "images": self.summary.images,
            "accuracy": self.summary.accuracy,
            "top_k": {str(k): value for k, value in self.summary.top_k.items()},
            "loss": self.summary.loss,
            "macro": asdict(self.summary.macro),
            "weighted": asdict(self.summary.weighted),
            "classes": {
                name: asdict(scores) for name, scores in zip(self.class_names, self.summary.classes, strict=True)
            },
            "confusion": {"rows": "true class", "columns": "predicted", "counts": self.summary.confusion.tolist()},
            "class_names": self.class_names,
            "unreadable": self.unreadable,
        }

    def save(self, folder: Path) -> None:
        """Write `metrics.json` and `predictions.csv` (path, label, predicted, one score per class)."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "metrics.json", self.as_dict())
        names = self.class_names
        write_csv(
            folder / "predictions.csv",
            ["path", "label", "predicted", *(f"score:{name}" for name in names)],
            (
                [path, names[label], names[int(row.argmax())], *(f"{value:.6g}" for value in row)]
                for path, label, row in zip(self.paths, self.labels, self.scores, strict=True)
            ),
        )


def evaluate_files(
    classifier: Classifier, images: Sequence[LabelledImage], split: str, on_event: Listener = ignore
) -> Evaluation:
    """Score image files as prediction would read them.

    Unreadable files are left out and listed in the result. Raises DataError where no image can be read.
    """
    readable: list[LabelledImage] = []
    scores: list[NDArray[np.float32]] = []
    unreadable: dict[str, str] = {}
    for image, result in zip(images, classifier.score_files(image.file for image in images), strict=True):
        if isinstance(result, BadImageError):
            unreadable[image.path] = result.message
        else:
            readable.append(image)
            scores.append(result.scores)
        on_event(Advance("evaluating", len(readable) + len(unreadable), len(images)))
    if not readable:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(unreadable.items())[:3])
        raise DataError(
            f"none of the {len(images)} images of {split} can be read" + (f": {reasons}" if reasons else "")
        )
    labels = np.array([image.label for image in readable], np.int64)
    table = np.stack(scores)
    return Evaluation(
        split, classifier.class_names, summarize(table, labels), [i.path for i in readable], labels, table, unreadable
    )
