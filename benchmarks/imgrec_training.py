"""imgrec in a race, from the functions that `imgrec train` uses: one `fit` call a round.

`--input pack` is end to end after the pack exists; `--input memory` is the ceiling: the same compiled step on one batch
that is already in memory, augmentation included.
"""

import argparse
from pathlib import Path
from typing import Any

import contestant
import numpy as np

from imgrec_cli import api
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
    _, dataset, config = api._prepare(config, ignore)
    chosen.write_text(config.train.precision)

    # what follows is `training.fit`, an epoch at a time
    import keras_models
    import tensorflow as tf

    from imgrec_cli.training.fit import compiled_model, steps_per_execution
    from imgrec_cli.training.input import tensorflow_batches

    classes, batch_size = len(dataset.class_names), config.train.batch_size
    rows, labels = dataset.rows("train"), dataset.labels("train")
    block = steps_per_execution(config, classes)
    model = compiled_model(config, classes, block)

    def batches(steps: int, epoch: int) -> Any:
        taken = np.random.default_rng(epoch).permutation(np.resize(np.arange(len(rows)), steps * batch_size))
        if arguments.input == "memory":
            batch = dataset.pixels[rows[taken[:batch_size]]], labels[taken[:batch_size]].astype(np.int32)
            return tf.data.Dataset.from_tensors(batch).repeat(steps).prefetch(block)
        return tensorflow_batches(
            dataset.pixels,
            rows[taken],
            labels[taken],
            seed=config.seed,
            epoch=epoch,
            first_step=0,
            batch_size=batch_size,
            block=block,
        )

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
