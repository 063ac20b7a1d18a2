"""Started by test_distribute.py in a process with four virtual devices: trains a config on some of them, several times.

python on_devices.py OUT TRAININGS.json; TRAININGS maps a name to the config's path, its settings and `devices`.
"""

import json
import sys
from pathlib import Path

import numpy as np


def main(out: Path, trainings: dict[str, dict]) -> None:
    from imgrec_cli.config import load_config
    from imgrec_cli.training import runtime

    first = next(iter(trainings.values()))
    runtime.start(load_config(Path(first["config"]), first["settings"]).runtime)
    import keras

    from imgrec_cli.dataset import load_dataset
    from imgrec_cli.rundir import Run
    from imgrec_cli.training import checkpoint, distribute
    from imgrec_cli.training import fit as story
    from imgrec_cli.training.stop import Stop

    every_device = keras.distribution.list_devices("cpu")
    train_epochs = story.train_epochs

    def and_bytes(config, dataset, source, block, saver, stop, on_event):
        """What one device holds of each weight, once an epoch has been trained."""
        train_epochs(config, dataset, source, block, saver, stop, on_event)
        kept = [saver.model.trainable_variables, saver.model.optimizer.variables]
        for kind, variables in zip(("weights", "optimizer"), kept, strict=True):
            held[kind] = sum(v.value.addressable_shards[0].data.nbytes for v in variables)

    story.train_epochs = and_bytes
    for name, asked in trainings.items():
        keras.distribution.list_devices = lambda platform, n=asked["devices"]: every_device[:n]
        config = load_config(Path(asked["config"]), asked["settings"])
        if config.distribute.strategy == "auto":
            config = config.model_copy(update={"distribute": config.distribute.model_copy(update={"strategy": "none"})})
        dataset = load_dataset(config.data, config.image, config.seed)
        run, held = Run.create(out, name), {}
        story.fit(config, dataset, run, Stop(), lambda event: None)
        groups, _ = checkpoint.read(run.best_checkpoint)
        np.savez(out / f"{name}.npz", *groups["weights"])
        told = {"metrics": run.read_metrics(), "bytes": held, "divided": distribute.weights_are_split()}
        (out / f"{name}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
