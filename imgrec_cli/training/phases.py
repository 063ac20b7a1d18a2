"""The phases of a training, each as a config of its own: most have one, a backbone that is unfrozen has two."""

from imgrec_cli.config import BackboneModel, Config, Unfreeze


def unfreezing(config: Config) -> Unfreeze | None:
    """The second phase that the config asks for."""
    return config.model.unfreeze if isinstance(config.model, BackboneModel) else None


def phases(config: Config) -> tuple[Config, ...]:
    """What is trained, one after the other.

    Of a backbone that is unfrozen first the last layer on features of the images as they are, which are computed once;
    then the network from a layer on, with the augmentation, epochs and rate of that phase.
    """
    second = unfreezing(config)
    if second is None:
        return (config,)
    head = config.model_copy(update={"augment": (), "model": config.model.model_copy(update={"unfreeze": None})})
    optimizer = config.optimizer.model_copy(update={"learning_rate": second.learning_rate})
    train = config.train.model_copy(update={"epochs": second.epochs})
    return head, config.model_copy(update={"optimizer": optimizer, "train": train})
