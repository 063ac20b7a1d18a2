"""The models of the benchmarks in plain Keras for the Keras peers, and the clock around everyone's `fit`."""

import time
from typing import Any

import keras
from keras import layers


def document_001(classes: int) -> list[keras.layers.Layer]:
    """The 150×150 stack: three convolutions, dense 1024, softmax."""
    return [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(128, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(1024, activation="relu"),
        layers.Dense(classes, activation="softmax", dtype="float32"),
    ]


def document_004(classes: int) -> list[keras.layers.Layer]:
    """The 28×28 stack: three convolutions, dense 64, softmax."""
    return [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(classes, activation="softmax"),
    ]


def backbone(name: str, classes: int, size: int) -> list[keras.layers.Layer]:
    """MobileNetV2 or ResNet50 of keras.applications with random weights, pooled, and a softmax."""
    build = {"mobilenet_v2": keras.applications.MobileNetV2, "resnet50": keras.applications.ResNet50}[name]
    return [
        build(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)),
        layers.Dense(classes, activation="softmax", dtype="float32"),
    ]


class _Clock(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.last_step = time.perf_counter()


def fit(model: keras.Model, *data: Any, **settings: Any) -> float:
    """`model.fit`; returns the time of the last step.

    What comes after it does not count: TensorFlow 2.21 now and then waits seconds for a tf.data autotuning thread to
    wake up before `fit` returns, which would be a quirk measured and not a speed.
    """
    clock = _Clock()
    model.fit(*data, callbacks=[clock], verbose=0, **settings)
    return clock.last_step
