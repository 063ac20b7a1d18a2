"""The layer table against sizes worked out by hand, and against Keras."""

from pathlib import Path

import pytest

from imgrec_cli.config import Config, LayerRow, layer_table, parse_config

STACK = """\
data: {folder: x}
image: {size: [37, 50], color: rgb}
model:
  type: layers
  layers:
    - {type: conv, filters: 6, kernel: 5, stride: 2}
    - {type: batch_norm, activation: relu}
    - {type: conv, filters: 7, kernel: 4, stride: 3, padding: same}
    - {type: pool, kind: average, size: 2}
    - {type: dropout, rate: 0.1}
    - {type: conv, filters: 5, kernel: 2}
END
    - {type: dense, units: 9}
    - {type: batch_norm}
"""


def config_with(end: str) -> Config:
    return parse_config(STACK.replace("END", f"    - {{type: {end}}}"), "f", Path("/base"))


def test_the_table() -> None:
    assert layer_table(config_with("flatten"), 4) == [
        LayerRow("scaling", (37, 50, 3), 0, 0),
        LayerRow("conv_1", (17, 23, 6), 456, 175950),
        LayerRow("batch_norm_2", (17, 23, 6), 24, 0),
        LayerRow("conv_3", (6, 8, 7), 679, 32256),
        LayerRow("pool_4", (3, 4, 7), 0, 0),
        LayerRow("dropout_5", (3, 4, 7), 0, 0),
        LayerRow("conv_6", (2, 3, 5), 145, 840),
        LayerRow("flatten_7", (30,), 0, 0),
        LayerRow("dense_8", (9,), 279, 270),
        LayerRow("batch_norm_9", (9,), 36, 0),
        LayerRow("softmax", (4,), 40, 36),
    ]


@pytest.mark.tf
@pytest.mark.parametrize("end", ["flatten", "global_pool"])
def test_keras_counts_and_shapes_are_the_same(end: str) -> None:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((37, 50, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(6, 5, strides=2),
            layers.BatchNormalization(),
            layers.Conv2D(7, 4, strides=3, padding="same"),
            layers.AveragePooling2D(2),
            layers.Dropout(0.1),
            layers.Conv2D(5, 2),
            layers.Flatten() if end == "flatten" else layers.GlobalAveragePooling2D(),
            layers.Dense(9),
            layers.BatchNormalization(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    table = layer_table(config_with(end), 4)
    assert [row.output_shape for row in table] == [layer.output.shape[1:] for layer in model.layers]
    assert [row.parameters for row in table] == [layer.count_params() for layer in model.layers]
