"""The layer table against sizes worked out by hand, and against Keras."""

from pathlib import Path

import pytest

from imgrec_cli.config import Config, LayerRow, layer_table, parse_config, values_of_layers
from imgrec_cli.errors import ConfigError

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


BRANCHES = """\
data: {folder: x}
image: {size: [37, 50], color: rgb}
model:
  type: layers
  layers:
    - {type: conv, filters: 6, kernel: 3, dilation: 5, bias: false}
    - {type: pool, size: 3, stride: 2, padding: same}
    - type: residual
      layers:
        - {type: conv, filters: 7, stride: 2, padding: same, bias: false}
        - {type: batch_norm}
    - {type: residual, repeat: 2, layers: [{type: conv, filters: 7, padding: same}]}
    - {type: global_pool}
"""


def test_dilated_strided_and_residual_layers() -> None:
    config = parse_config(BRANCHES, "f", Path("/base"))
    rows = layer_table(config, 4)
    assert rows == [
        LayerRow("scaling", (37, 50, 3), 0, 0),
        LayerRow("conv_1", (27, 40, 6), 162, 162 * 27 * 40),
        LayerRow("pool_2", (14, 20, 6), 0, 0),
        # its convolution and normalisation, and the projection of one pixel with its own
        LayerRow("residual_3", (7, 10, 7), 378 + 28 + 42 + 28, (378 + 42) * 70),
        LayerRow("residual_4_1", (7, 10, 7), 448, 441 * 70),
        LayerRow("residual_4_2", (7, 10, 7), 448, 441 * 70),
        LayerRow("global_pool_5", (7,), 0, 0),
        LayerRow("softmax", (4,), 32, 28),
    ]
    whole = 37 * 50 * 3 + 27 * 40 * 6 + 14 * 20 * 6
    assert values_of_layers(config) == whole + 5 * 490 + 2 * 2 * 490 + 7


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (
            "{type: conv, filters: 2, kernel: 9, dilation: 7}",
            "layers[0]: a kernel of 9 by 9 with a dilation of 7 is larger",
        ),
        ("{type: conv, filters: 2, stride: 2, dilation: 2}", "layers[0]: a dilation of 2 needs a stride of 1, got 2"),
        (
            "{type: residual, layers: [{type: dropout, rate: 0.1}, {type: conv, filters: 2, kernel: 99}]}",
            "layers[0].layers[1]: a kernel of 99 by 99 is larger than the 37 by 50 map",
        ),
        (
            "{type: residual, layers: [{type: conv, filters: 2}]}",
            "layers[0]: the layers make 35 by 48 of the 37 by 50 map, which no stride explains; use padding: same",
        ),
        ("{type: residual, layers: [{type: flatten}]}", "layers[0].layers[0].type: must be one of conv, pool, dropout"),
    ],
)
def test_layers_that_do_not_fit_are_told_at_their_place(layer: str, told: str) -> None:
    text = f"data: {{folder: x}}\nimage: {{size: [37, 50]}}\nmodel:\n  type: layers\n  layers:\n    - {layer}\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text + "    - {type: global_pool}\n", "f", Path("/base"))
    assert told in caught.value.message
