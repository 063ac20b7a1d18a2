"""A frozen backbone gives every image the same features in every epoch: they are computed once, and only what stands
behind it is trained."""

import math

import keras
import numpy as np
from numpy.typing import NDArray

from imgrec_cli.config import BackboneModel, Config
from imgrec_cli.dataset import Dataset
from imgrec_cli.progress import Advance, Listener
from imgrec_cli.training import distribute
from imgrec_cli.training.augment import Augment
from imgrec_cli.training.backbone import backbone, load_pretrained
from imgrec_cli.training.families import family_scaling
from imgrec_cli.training.input import dealt
from imgrec_cli.training.model import before_logits, behind_backbone, training_model

BATCH_SIZE = 32


def head_is_enough(config: Config) -> bool:
    """Whether every image gives the same features in every epoch: a frozen backbone, and nothing random before it.

    False with `start_from`: the backbone's weights must be stored in the new run.
    """
    model = config.model
    frozen = isinstance(model, BackboneModel) and model.freeze and model.unfreeze is None
    return frozen and not config.augment and model.start_from is None


def frozen_features(config: Config, dataset: Dataset, on_event: Listener) -> NDArray[np.float32]:
    """Features float32 [images, channels] by row of the pack, of the training and validation images.

    Computed once in float32, as what is shipped computes them; the other rows are zero.
    """
    assert isinstance(config.model, BackboneModel)  # noqa: S101 - for the type checker
    network = backbone(config.model, config.image, "float32", fused=False)
    load_pretrained(network, config.model, config.image)
    images = keras.Input((*config.image.size, 3), dtype="uint8")
    floats = Augment((), seed=0, dtype="float32")(images)
    model = keras.Model(images, network(family_scaling(config.model)(floats)))
    features = np.zeros((len(dataset.pixels), network.output_shape[-1]), np.float32)
    rows = np.concatenate([dataset.rows("train"), dataset.rows("validation")])
    answer, deal = distribute.forward(model), dealt(config, dataset)
    batch_size = math.lcm(BATCH_SIZE, distribute.parts_of_batch(), deal.count)
    part, (batches, slots) = distribute.own_part(batch_size), deal.batches(rows, batch_size)
    wanted, done = np.zeros(batches.shape, bool), 0
    wanted.ravel()[slots] = True
    for batch, of_it in zip(batches, wanted, strict=True):
        features[batch[of_it]] = answer(dataset.pixels[batch[part]])[of_it]
        done += int(of_it.sum())
        on_event(Advance("features", done, len(rows)))
    return features


def head_model(config: Config, classes: int, features: int) -> keras.Model:
    """What is trained of a frozen backbone: the layers behind it, on float32 features [B, features] → logits
    [B, classes].

    Its layers have the names and weights of those in `training_model`.
    """
    assert isinstance(config.model, BackboneModel)  # noqa: S101 - for the type checker
    inputs = keras.Input((features,), name="features")
    x = before_logits(config.model, inputs, "float32")
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits", dtype="float32")(x), name="head_alone")


def with_head(config: Config, classes: int, head: keras.Model) -> keras.Model:
    """The whole training model with the trained layers behind the backbone."""
    model = training_model(config, classes)
    for layer, trained in zip(behind_backbone(model), behind_backbone(head), strict=True):
        layer.set_weights(trained.get_weights())
    return model
