"""A finished run → its network with the best weights, in float32."""

import keras

from imgrec_cli.config import BackboneModel, Config
from imgrec_cli.rundir import Run
from imgrec_cli.training import checkpoint
from imgrec_cli.training.backbone import load_pretrained
from imgrec_cli.training.features import head_is_enough
from imgrec_cli.training.model import behind_backbone, shipped_model


def restored(config: Config, classes: int, run: Run, *, unfamiliarity: bool = False) -> keras.Model:
    """The model to ship of a finished run; its unfamiliarity knows no images.

    Of a frozen backbone the run keeps the last layer alone, the rest comes from the file of weights: InputError where
    that is gone. Raises TrainingError where the checkpoint is damaged.
    """
    shipped = shipped_model(config, classes, unfamiliarity=unfamiliarity)
    groups, _ = checkpoint.read(run.best_checkpoint)
    arrays = groups["weights"]
    weights = shipped.weights[: len(arrays)]
    if head_is_enough(config):
        assert isinstance(config.model, BackboneModel)  # noqa: S101 - for the type checker
        load_pretrained(shipped.get_layer(config.model.name), config.model, config.image)
        weights = [weight for layer in behind_backbone(shipped) for weight in layer.weights]
    checkpoint.restore(weights, arrays, run.best_checkpoint)
    return shipped
