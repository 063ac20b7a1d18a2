"""What a model answers for the images of a split, and whether an export answers as the trained model does."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.bundle import LARGEST_GAP, LARGEST_UNFAMILIARITY_GAP, TARGETS, Parity
from imgrec_cli.dataset import Dataset
from imgrec_cli.engines import Engine
from imgrec_cli.errors import ParityError
from imgrec_cli.progress import Advance, Listener
from imgrec_cli.training.input import padded_blocks
from imgrec_cli.training.model import behind_backbone

BATCH_SIZE = 32  # of the comparison; does not change its result


LEAST_AGREEMENT = 0.9  # share of the validation images; below it the accuracy is another model's


@dataclass(frozen=True)
class Answers:
    """What a model answers for the images of a split: probabilities float32 [N, classes], and unfamiliarity float32
    [N], NaN where it has none."""

    scores: NDArray[np.float32]
    unfamiliarity: NDArray[np.float32]

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.scores.argmax(axis=1)


def answers_of(
    model: "keras.Model | Engine", dataset: Dataset, stage: str, on_event: Listener, split: str = "validation"
) -> Answers:
    """Score every image of a split by a Keras model or an engine."""
    rows = dataset.rows(split)
    found: list[Any] = []
    done = 0
    for pixels, count in padded_blocks(dataset.pixels, rows, BATCH_SIZE):
        if isinstance(model, keras.Model):
            answers = model.predict_on_batch(pixels)
            outputs = [np.asarray(a)[:count] for a in (answers if isinstance(answers, list) else [answers])]
        else:
            outputs = [a for a in model.outputs(pixels[:count]) if a is not None]
        found.append((outputs[0], outputs[1] if len(outputs) > 1 else np.full(count, np.nan, np.float32)))
        done += count
        on_event(Advance(stage, done, len(rows)))
    scores, unfamiliarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return Answers(scores, unfamiliarity)


def compare(reference: Answers, found: Answers, labels: NDArray[np.int64], *, exact: bool = True) -> Parity:
    """How the answers of an export compare with those of the float32 Keras model; labels int [N] are the true ones.

    With `exact` unfamiliarity is compared as well.
    """
    unfamiliarity_gap = None
    if exact and not np.isnan(found.unfamiliarity).all():
        # unfamiliarity has no largest value: its gap is relative where it is large
        expected = reference.unfamiliarity
        unfamiliarity_gap = float((np.abs(found.unfamiliarity - expected) / np.maximum(np.abs(expected), 1)).max())
    return Parity(
        len(labels),
        float(np.abs(found.scores - reference.scores).max()),
        int((found.labels != reference.labels).sum()),
        0,
        accuracy=float((found.labels == labels).mean()),
        reference_accuracy=float((reference.labels == labels).mean()),
        unfamiliarity_gap=unfamiliarity_gap,
    )


def check_parity(target: str, parity: Parity, max_drop: float) -> None:
    """Raise ParityError where an export does not answer as it should.

    A format of full precision may differ by less than 1e-3 in a probability and 0.02 in unfamiliarity. One of reduced
    precision may lose `max_drop` of the accuracy, or one image where that is less than an image; and nine of ten labels
    stay.
    """
    if TARGETS[target].exact:
        gaps = [("a probability", parity.largest_gap, LARGEST_GAP)]
        if parity.unfamiliarity_gap is not None:
            gaps.append(("unfamiliarity", parity.unfamiliarity_gap, LARGEST_UNFAMILIARITY_GAP))
        for what, gap, allowed in gaps:
            if not gap < allowed:  # so that NaN fails too
                raise ParityError(
                    f"the exported model differs from the trained one by {gap:.2g} in {what} on "
                    f"{parity.images} validation images, allowed is less than {allowed:g}; "
                    f"{parity.disagreements} labels differ. Nothing was shipped",
                    "this is a fault of the exporter or of imgrec: please report it with the output of imgrec info",
                )
        return
    accuracy, reference = parity.accuracy or 0.0, parity.reference_accuracy or 0.0
    lost = parity.images * (reference - accuracy)
    agreement = 1 - parity.disagreements / parity.images
    told = (
        f"{target}: validation accuracy {100 * accuracy:.1f} % instead of {100 * reference:.1f} %, "
        f"{100 * agreement:.1f} % of the labels agree"
    )
    if np.isnan(parity.largest_gap) or lost > max(1, max_drop * parity.images) + 1e-6:
        raise ParityError(
            f"{told}; allowed is a loss of {100 * max_drop:g} points. Nothing was shipped",
            "allow more with --max-drop, or take litert-float16 or litert-dynamic",
        )
    if agreement < LEAST_AGREEMENT:
        raise ParityError(f"{told}; at least {100 * LEAST_AGREEMENT:g} % have to. Nothing was shipped")


def labels_as_trained(
    trained: keras.Model, dataset: Dataset, features: NDArray[np.float32] | None, on_event: Listener
) -> NDArray[np.int64]:
    """What the model answers for the validation images in the precision that it was trained in, int64 [N].

    `features` are those that its last layers alone were trained on, by row of the pack.
    """
    if features is None:
        return answers_of(trained, dataset, "scoring as trained", on_event).labels
    answers: Any = features[dataset.rows("validation")]
    for layer in behind_backbone(trained):
        answers = layer(answers)
    return np.asarray(answers).argmax(axis=1)
