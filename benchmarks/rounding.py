"""How far trainings of document-004's network drift apart that differ in nothing but rounding, on Keras and JAX alone.

python benchmarks/rounding.py [--optimizer adam|sgd] [--activation relu|tanh] [--dtype float32|float64] [--steps 200]

Prints ‖difference of all weights‖ ÷ ‖weights‖ after some steps, against one device: trained again, on two and four
virtual devices by Keras's DataParallel, with one weight changed by its last bit, and with every batch in reverse order.
"""

import argparse
import os
from pathlib import Path

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
arguments.add_argument("--rate", type=float, help="of learning; 1e-3 for adam, 0.05 for sgd")
arguments.add_argument("--activation", choices=["relu", "tanh"], default="relu", help="tanh takes mean pools as well")
arguments.add_argument("--dtype", choices=["float32", "float64"], default="float32")
arguments.add_argument("--steps", type=int, default=200)
arguments.add_argument("--only", nargs="*", help="names of rows")
asked = arguments.parse_args()
os.environ |= {"KERAS_BACKEND": "jax", "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
os.environ["JAX_ENABLE_X64"] = str(asked.dtype == "float64")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402
from PIL import Image  # noqa: E402

keras.config.set_floatx(asked.dtype)
SAMPLE = Path(__file__).parents[1] / "data" / "fashion-mini"
FILES = sorted(SAMPLE.rglob("*.png"))
CLASSES = sorted({file.parent.name for file in FILES})
PIXELS = np.stack([np.asarray(Image.open(file).convert("L")) for file in FILES])[..., None]
LABELS = np.array([CLASSES.index(file.parent.name) for file in FILES], np.int32)
BATCH = 32
TOLD = [step for step in (1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200) if step <= asked.steps]


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    smooth = asked.activation == "tanh"
    pool = layers.AveragePooling2D if smooth else layers.MaxPooling2D
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Rescaling(1 / 255)])
    for filters, pooled in ((32, True), (64, True), (64, False)):
        model.add(layers.Conv2D(filters, 3, activation=asked.activation))
        if pooled:
            model.add(pool(2))
    model.add(layers.Flatten())
    model.add(layers.Dense(64, activation=asked.activation))
    model.add(layers.Dense(len(CLASSES)))
    optimizer = keras.optimizers.SGD(asked.rate or 0.05)
    if asked.optimizer == "adam":
        optimizer = keras.optimizers.Adam(asked.rate or 1e-3)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def trained(devices: int = 1, *, last_bit: bool = False, reverse: bool = False) -> tuple[dict[int, np.ndarray], float]:
    """All weights float64 [P] after the steps in TOLD, and the loss of the last step."""
    several = keras.distribution.DataParallel(devices=[f"cpu:{i}" for i in range(devices)], auto_shard_dataset=False)
    keras.distribution.set_distribution(several if devices > 1 else None)
    model = network()
    if last_bit:
        weights = model.get_weights()
        weights[0].flat[0] = np.nextafter(weights[0].flat[0], weights[0].dtype.type(1))
        model.set_weights(weights)
    random, found, loss, step = np.random.default_rng(0), {}, 0.0, 0
    while step < asked.steps:
        order = random.permutation(len(PIXELS))
        for start in range(0, len(PIXELS) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH][:: -1 if reverse else 1]
            model.reset_metrics()
            loss = float(model.train_on_batch(PIXELS[chosen], LABELS[chosen]))
            step += 1
            if step in TOLD:
                found[step] = np.concatenate([array.ravel() for array in model.get_weights()]).astype(np.float64)
            if step == asked.steps:
                break
    keras.distribution.set_distribution(None)
    return found, loss


ROWS = {
    "one device again": {},
    "2 devices": {"devices": 2},
    "4 devices": {"devices": 4},
    "last bit of one weight": {"last_bit": True},
    "batches reversed": {"reverse": True},
}


def main() -> None:
    one, loss = trained()
    print(f"{asked.dtype}, {asked.optimizer}, {asked.activation}; loss of step {asked.steps}: {loss:.6f}\n")
    print(f"| after step | {' | '.join(map(str, TOLD))} | loss |\n|{' --- |' * (len(TOLD) + 2)}")
    for name, options in ROWS.items():
        if asked.only is None or name in asked.only:
            other, other_loss = trained(**options)
            gaps = [np.linalg.norm(one[step] - other[step]) / np.linalg.norm(one[step]) for step in TOLD]
            print(f"| {name} | {' | '.join(f'{gap:.0e}' for gap in gaps)} | {abs(other_loss - loss) / loss:.0e} |")


if __name__ == "__main__":
    main()
