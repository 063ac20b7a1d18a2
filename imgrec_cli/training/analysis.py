"""What only Keras can tell of a trained network, written into the run for the report."""

from dataclasses import asdict

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.atomic import replacing, write_json
from imgrec_cli.config import Config, layer_table
from imgrec_cli.dataset import Dataset
from imgrec_cli.evaluation import Evaluation
from imgrec_cli.metrics.learning_curve import gain_from_doubling, learning_curve
from imgrec_cli.progress import Listener
from imgrec_cli.rundir import Run
from imgrec_cli.training.augment import Augment
from imgrec_cli.training.familiarity import features_of, sample
from imgrec_cli.training.gradcam import GradCam
from imgrec_cli.training.input import training_source
from imgrec_cli.training.model import behind_backbone

SHOWN_AUGMENTED = 8
EXPLAINED = 12  # worst mistakes, and as many of the least sure
LARGEST_SHOWN = 160  # pixels along a side of an image that is kept for the report


def write_layers(config: Config, dataset: Dataset, run: Run) -> None:
    """Keep the table of layers."""
    run.layers_file.parent.mkdir(exist_ok=True)
    write_json(run.layers_file, [asdict(row) for row in layer_table(config, len(dataset.class_names))])


def first_batch(config: Config, dataset: Dataset) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The first training images of the first epoch, and what the network sees of them: both uint8 [n, H, W, C].

    The random changes are those of the first training step: they follow from the seed and the size of the batch.
    """
    pixels, _ = next(training_source(config, dataset, dataset.pixels).blocks(1, 0, 1))
    changed = np.asarray(Augment(config.augment, seed=config.seed, dtype="float32")(pixels[0], training=True))
    shown = slice(0, SHOWN_AUGMENTED)
    return pixels[0][shown], np.rint(changed[shown]).astype(np.uint8)


def write_augmented(config: Config, dataset: Dataset, run: Run) -> None:
    """Keep a picture of the first training images: above as they are, below as the network sees them."""
    from PIL import Image

    before, after = first_batch(config, dataset)
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in (before, after)])
    picture = Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet)
    scale = min(1.0, LARGEST_SHOWN / max(before.shape[1:3]))
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BOX)
    run.augmented_file.parent.mkdir(exist_ok=True)
    with replacing(run.augmented_file) as stream:
        picture.save(stream, "PNG")


def learn_familiar(
    config: Config,
    dataset: Dataset,
    shipped: keras.Model,
    on_event: Listener,
    known: NDArray[np.float32] | None = None,
) -> NDArray[np.float32] | None:
    """Let the model to ship know what training images look like, and return their features float32 [N, d].

    N images are looked at (`familiarity.sample`); `known` are features that were computed before, by row of the pack.
    None, and nothing is done, where the model has no features.
    """
    if len(shipped.outputs) < 2:
        return None
    positions = sample(config, dataset, "train")
    if known is None:
        features, logits = features_of(shipped, dataset, "train", positions, on_event)
    else:
        features = known[dataset.rows("train")[positions]]
        *hidden, last = behind_backbone(shipped)
        for layer in hidden:
            features = np.asarray(layer(features))
        logits = np.asarray(last(features))
    shipped.get_layer("unfamiliarity").learn(features, logits, dataset.labels("train")[positions])
    return features


def write_learning_curve(
    config: Config,
    dataset: Dataset,
    shipped: keras.Model,
    features: NDArray[np.float32] | None,
    run: Run,
    on_event: Listener,
) -> None:
    """Keep the test score against the number of training images; nothing where there are no features or test images."""
    classes = len(dataset.class_names)
    if features is None or not len(dataset.rows("test")):
        return
    judged = sample(config, dataset, "test")
    labels = dataset.labels("train")[sample(config, dataset, "train")]
    test_labels = dataset.labels("test")[judged]
    test_features, _ = features_of(shipped, dataset, "test", judged, on_event)
    points = learning_curve(features, labels, test_features, test_labels, classes, config.seed)
    half, whole = points[-2 if len(points) > 1 else -1], points[-1]

    def share(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    run.learning_curve_file.parent.mkdir(exist_ok=True)
    write_json(
        run.learning_curve_file,
        {
            "split": "test",
            "test_images": len(test_labels),
            "training_images": len(dataset.rows("train")),
            "points": [
                {"images": p.images, "accuracy": p.accuracy, "lowest": p.lowest, "highest": p.highest} for p in points
            ],
            "gain_from_doubling": gain_from_doubling(points),
            "classes": {
                name: {"half": share(half.recall[label]), "all": share(whole.recall[label])}
                for label, name in enumerate(dataset.class_names)
            },
        },
    )


def write_explanations(
    config: Config, dataset: Dataset, shipped: keras.Model, evaluation: Evaluation, run: Run
) -> None:
    """Keep a map of what spoke for the answer, for the worst mistakes and the least sure images of a split."""
    cam = GradCam.of(config, shipped)
    if cam is None:
        return
    rows = {e.path: e.row for e in dataset.examples if e.split == evaluation.split}
    chosen = list(dict.fromkeys([*evaluation.worst_mistakes(EXPLAINED), *evaluation.least_sure(EXPLAINED)]))
    if not chosen:
        return
    paths = [evaluation.paths[place] for place in chosen]
    pixels = dataset.pixels[[rows[path] for path in paths]]
    maps = np.concatenate(
        [cam.maps(pixels[i : i + 8], evaluation.predicted[chosen[i : i + 8]]) for i in range(0, len(chosen), 8)]
    )
    with replacing(run.explanations_file(evaluation.split)) as stream:
        np.savez_compressed(stream, paths=np.array(paths), maps=np.rint(255 * maps).astype(np.uint8))
