"""imgrec in a race, from the functions that `imgrec train` uses: one `fit` call a round.

`--input pack` is end to end after the pack exists; `--input memory` is the ceiling: the same compiled step on one batch
that is already in memory, augmentation included.
"""

import argparse
from pathlib import Path
from typing import Any

import contestant
import numpy as np

from imgrec_cli.api.preparing import prepared
from imgrec_cli.config import load_config
from imgrec_cli.errors import ConfigError
from imgrec_cli.progress import ignore


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--input", choices=["pack", "memory"], required=True)
    parser.add_argument("--precision-file", type=Path, required=True, help="what `auto` chose, for the next to take")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    chosen: Path = arguments.precision_file
    same_precision = [f"train.precision={chosen.read_text()}"] if chosen.exists() else []
    try:
        config = load_config(arguments.config, [*arguments.set, *same_precision])
    except ConfigError as error:
        contestant.skip(f"imgrec refuses the config: {error}")
    dataset, config = prepared(config, ignore)
    chosen.write_text(config.train.precision)

    # what follows is `training.fit`, an epoch at a time
    import keras_models

    from imgrec_cli.training.fit import compiled, steps_per_execution
    from imgrec_cli.training.input import Source
    from imgrec_cli.training.model import training_model
    from imgrec_cli.training.speed import repeated

    classes, batch_size = len(dataset.class_names), config.train.images_per_step
    rows, labels = dataset.rows("train"), dataset.labels("train")
    block = steps_per_execution(config, classes)
    model = compiled(training_model(config, classes), config, block, block)

    def batches(steps: int, epoch: int) -> Any:
        if arguments.input == "memory":
            return repeated(dataset.pixels[rows[:batch_size]], labels[:batch_size], steps)
        taken = np.resize(np.random.default_rng(epoch).permutation(len(rows)), steps * batch_size)
        return Source(dataset.pixels, rows[taken], labels[taken], batch_size, config.seed).batches(epoch, 0, block)

    epoch = 0

    def run(steps: int) -> float:
        nonlocal epoch
        epoch += 1
        return keras_models.fit(model, batches(steps, epoch), shuffle=False)

    used = contestant.versions("keras", "tensorflow-cpu", "tensorflow", "numpy", "pillow")
    note = f"{config.train.precision}, {block} steps per execution"
    contestant.serve(run, images_per_step=batch_size, warm_up=2 * block, used=used, note=note)


if __name__ == "__main__":
    main()
