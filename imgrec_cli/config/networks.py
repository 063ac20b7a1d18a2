"""The section `model`: layers of one's own, or a published network."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Strict, Tag

from imgrec_cli.config.learning import LearningRate
from imgrec_cli.config.values import Activation, Folder, Name, Padding, Percent, Section, Side


class Conv(Section):
    """Two-dimensional convolution."""

    type: Literal["conv"]
    filters: int = Field(ge=1, le=65536, description="Number of output channels.")
    kernel: Side = Field(default=3, description="Side of the kernel in pixels.")
    stride: Side = Field(default=1, description="Step of the kernel in pixels.")
    dilation: Side = Field(default=1, description="Distance in pixels between neighbouring weights of the kernel.")
    padding: Padding = Field(default="valid", description="valid: no padding; same: zeros around.")
    bias: bool = Field(
        default=True, description="Add a number per channel; batch_norm behind it takes that away again."
    )
    activation: Activation = Field(default="linear", description="Function applied to the result.")


class Pool(Section):
    """Keep the largest or the mean value of each window."""

    type: Literal["pool"]
    kind: Literal["max", "average"] = Field(default="max", description="What is kept of a window.")
    size: Side = Field(default=2, description="Side of the window in pixels.")
    stride: Side | None = Field(default=None, description="Step of the window in pixels; its side by default.")
    padding: Padding = Field(default="valid", description="valid: whole windows only; same: also those over the edge.")


class GlobalPool(Section):
    """Keep one value per channel of the whole map."""

    type: Literal["global_pool"]
    kind: Literal["max", "average"] = Field(default="average", description="What is kept of the map.")


class Flatten(Section):
    """Turn the map into one row of numbers."""

    type: Literal["flatten"]


class Dense(Section):
    """Fully connected layer."""

    type: Literal["dense"]
    units: int = Field(ge=1, le=1_000_000, description="Number of outputs.")
    activation: Activation = Field(default="linear", description="Function applied to the result.")


class Dropout(Section):
    """Set a random share of the values to zero while training (Srivastava et al. 2014)."""

    type: Literal["dropout"]
    rate: float = Field(ge=0, lt=1, description="Share that is dropped.")


class BatchNorm(Section):
    """Normalise each channel over the batch (Ioffe and Szegedy 2015)."""

    type: Literal["batch_norm"]
    activation: Activation = Field(default="linear", description="Function applied to the result.")
    momentum: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="Share of the running mean and variance that each step keeps; 0.9 where training has few steps.",
    )


InnerLayer = Annotated[Conv | Pool | Dropout | BatchNorm, Field(discriminator="type")]


class Residual(Section):
    """Add to a map what some layers make of it (He et al. 2015).

    Where they change its shape, a convolution of one pixel brings the map to theirs, with a batch_norm where they
    have one.
    """

    type: Literal["residual"]
    layers: Annotated[tuple[InnerLayer, ...], Strict(False)] = Field(
        min_length=1, description="What is added, first to last."
    )
    repeat: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="How many such blocks follow another.")
    activation: Activation = Field(default="relu", description="Function applied to the sum.")


Layer = Annotated[
    Conv | Pool | GlobalPool | Flatten | Dense | Dropout | BatchNorm | Residual, Field(discriminator="type")
]


class _Model(Section):
    """What all networks have."""

    start_from: Folder | None = Field(
        default=None,
        description="Folder of a finished run: layers of the same name and shape begin with its weights, and of the "
        "last layer what belongs to a class of the same name.",
    )


class LayersModel(_Model):
    """A stack of layers; a dense softmax layer with one output per class is added at its end."""

    type: Literal["layers"]
    layers: Annotated[tuple[Layer, ...], Strict(False)] = Field(min_length=1, description="The stack, first to last.")
    init: Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal"] = Field(
        default="glorot_uniform",
        description="How kernels begin: Glorot (also called Xavier) for sigmoid and tanh, He for relu.",
    )
    l1: float = Field(default=0.0, ge=0, le=1, description="Added to the loss: this times the sum of all |kernel|.")
    l2: float = Field(default=0.0, ge=0, le=1, description="Added to the loss: this times the sum of all kernel².")


class Unfreeze(Section):
    """A second phase: after `train.epochs` epochs of the last layer alone, the top of the backbone is trained with it.

    Its batch normalisations stay as they are, statistics and all. The first phase sees the images as they are, the
    second with `augment`; early stopping and plateau begin anew, the best weights are the best of both.
    """

    from_layer: (
        Annotated[
            Annotated[Percent, Tag("<share>")] | Annotated[Name, Tag("<name>")],
            Discriminator(lambda value: "<share>" if not isinstance(value, str) or value.endswith("%") else "<name>"),
        ]
        | None
    ) = Field(
        default=None,
        description="The first layer that is trained, by the begin of its name such as block_13; or the share of the "
        "layers at the end such as 30%; all of them by default.",
        examples=["block_13", "30%"],
    )
    epochs: int = Field(default=10, ge=1, le=100_000, description="Passes over the training images.")
    learning_rate: LearningRate = Field(
        default=1e-4, description="Step size of this phase; percentages of a schedule are of its epochs."
    )


class Head(Section):
    """A dense layer between what a backbone sees and the last layer."""

    units: int = Field(ge=1, le=65536, description="Number of outputs.")
    activation: Activation = Field(default="relu", description="Function applied to the output.")


BackboneName = Literal[
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_v2_b0",
    "efficientnet_v2_b1",
    "efficientnet_v2_b2",
    "efficientnet_v2_b3",
    "efficientnet_v2_s",
    "resnet50",
    "resnet101",
    "resnet50_v2",
    "resnet101_v2",
    "convnext_tiny",
    "convnext_small",
    "densenet121",
    "xception",
]


class BackboneModel(_Model):
    """A published network without its last layers; global average pooling and a dense softmax layer are added.

    Pixels are scaled inside the graph as the family's own weights expect.
    """

    type: Literal["backbone"]
    name: BackboneName = Field(description="The network, by its name in keras.applications.")
    width: float = Field(
        default=1.0,
        gt=0,
        description="Share of the channels of every layer, alpha in keras.applications: for mobilenet_v2 one of 0.35, "
        "0.5, 0.75, 1, 1.3, 1.4, for mobilenet_v3 0.75 or 1.",
    )
    weights: Annotated[str, Field(min_length=1)] = Field(
        default="none",
        description="none: from scratch. imagenet: those of keras.applications, which Keras downloads once. Or a .h5 "
        "file of them without its top.",
    )
    freeze: bool = Field(
        default=False, description="Keep the backbone as it is and train the last layer alone; needs weights."
    )
    unfreeze: Unfreeze | None = Field(
        default=None,
        description="A second phase after the frozen one, in which the backbone is trained as well.",
        examples=[{"from_layer": "30%", "epochs": 10, "learning_rate": 1e-4}],
    )
    head: Head | None = Field(
        default=None,
        description="A hidden layer before the last one, which is trained with it; none by default.",
        examples=[{"units": 256, "activation": "relu"}],
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of what goes into the last layer that is dropped while training."
    )


Model = Annotated[LayersModel | BackboneModel, Field(discriminator="type")]
