"""The configuration as typed, frozen sections: every key a user may write, with its unit, range and default."""

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Strict,
    Tag,
    WithJsonSchema,
)

from imgrec_cli.config.durations import Duration, Interval, Length, Saving

FORMAT_VERSION = 1

Padding = Literal["valid", "same"]
Activation = Literal["linear", "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu"]


def _percent(value: object) -> float:
    """Read `15%` as 0.15; a bare number is refused because 15 and 0.15 are too easily confused."""
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", value)):
        share = float(match[1]) / 100
        if share > 0.9:
            raise ValueError(f"must be at most 90%, got {value}")
        return share
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 90:
        meant = value * 100 if value < 1 else value
        raise ValueError(f"expected a percentage, got {value}; write {meant:.6g}%")
    raise ValueError(f"expected a percentage such as 15%, got {value!r}")


def _percent_text(share: float) -> str:
    return f"{share * 100:.15g}%"


def _word_or(kinds: type | tuple[type, ...], words: tuple[str, ...], expected: str) -> Discriminator:
    """Choose the branch of a union by the kind of the value, so that a mistake gives one message only."""

    def branch(value: object) -> str | None:
        if isinstance(value, str) and value in words:
            return "<word>"
        return "<value>" if isinstance(value, kinds) and not isinstance(value, bool) else None

    return Discriminator(branch, custom_error_type="neither", custom_error_message=expected)


def _text_or_list(expected: str) -> Discriminator:
    """The same for a text or a list of texts."""

    def branch(value: object) -> str | None:
        return "<word>" if isinstance(value, str) else "<value>" if isinstance(value, list | tuple) else None

    return Discriminator(branch, custom_error_type="neither", custom_error_message=expected)


def regex_with_one_capture(pattern: str) -> str:
    """The pattern. Raises ValueError where it is no regular expression with exactly one capture."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if compiled.groups != 1:
        raise ValueError(f"needs exactly one capture, such as '^(\\w+)_'; got {compiled.groups}")
    return pattern


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the first number must not be larger than the second; got {list(pair)}")
    return pair


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] >= pair[1]:
        raise ValueError(f"the first number must be smaller than the second; got {list(pair)}")
    return pair


Percent = Annotated[
    float,
    BeforeValidator(_percent),
    PlainSerializer(_percent_text),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?%$", "examples": ["15%"]}),
]
Folder = Annotated[str, Field(min_length=1)]
# Unicode spells many letters in two ways that look alike: names are compared in one of them
Name = Annotated[str, Field(min_length=1), AfterValidator(_nfc)]
Names = Annotated[tuple[Name, ...], Strict(False)]
OneCapture = Annotated[str, AfterValidator(regex_with_one_capture)]
# strict mode would refuse YAML's lists where a tuple is wanted
Size = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]], Strict(False)]
Side = Annotated[int, Field(ge=1, le=256)]
Factors = Annotated[
    tuple[Annotated[float, Field(gt=0, le=10)], Annotated[float, Field(gt=0, le=10)]],
    Strict(False),
    AfterValidator(_ordered),
]
Channels = Annotated[tuple[float, ...], Strict(False), Field(min_length=1, max_length=3)]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --- data -------------------------------------------------------------------------------------------


class Fold(Section):
    """One round of a cross-validation: the images are dealt into parts, and one of them judges."""

    number: int = Field(ge=1, description="The part that judges, from 1 on.")
    of: int = Field(ge=2, le=1000, description="Number of parts.")


class Split(Section):
    """How much of each class is set aside where no folder is given for it."""

    validation: Percent = Field(
        default=0.15,
        json_schema_extra={"default": "15%"},
        description="Share of each class that chooses the model, such as 15%.",
    )
    test: Percent = Field(
        default=0.15,
        json_schema_extra={"default": "15%"},
        description="Share of each class that judges the finished model, such as 15%.",
    )
    fold: Fold | None = Field(
        default=None,
        description="In place of `test`: the part of the images that judges; imgrec train --folds sets it.",
        examples=[{"number": 1, "of": 5}],
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**32,
        description="What the split follows from, where it is to stay while `seed` changes; `seed` by default.",
    )


class Classes(Section):
    """Which classes there are, and what they are called; names stand in Unicode's NFC on both sides.

    `merge` comes first: the other keys speak of the classes after it.
    """

    merge: dict[Name, Annotated[Names, Field(min_length=1)]] = Field(
        default={},
        description="New class: the folders or labels that become it.",
        examples=[{"insect": ["bee", "wasp"]}],
    )
    include: Names | None = Field(
        default=None, description="The classes that are used, no others.", examples=[["cat", "dog"]]
    )
    exclude: Names = Field(default=(), description="The classes that are left out.", examples=[["unsorted"]])
    titles: dict[Name, Name] = Field(
        default={},
        description="What a class is called before people, in any script; files and programs keep its name.",
        examples=[{"ankle_boot": "Ankle boot"}],
    )
    other: Names = Field(
        default=(),
        description="Classes that stand for none of the others, such as pictures of something else.",
        examples=[["background"]],
    )


class Data(Section):
    """Where the images are. Paths are relative to the file that names them."""

    folder: (
        Annotated[
            Annotated[Folder, Tag("<word>")]
            | Annotated[tuple[Folder, ...], Strict(False), Field(min_length=1), Tag("<value>")],
            _text_or_list("expected a folder or a list of folders"),
        ]
        | None
    ) = Field(
        default=None,
        description="One folder per class, or train/, validation/ and test/ with one folder per class; or a list of "
        "such folders, whose classes are put together by name.",
        examples=["photos"],
    )
    train: Folder | None = Field(default=None, description="Training images, one folder per class.")
    validation: Folder | None = Field(default=None, description="Validation images, one folder per class.")
    test: Folder | None = Field(default=None, description="Test images, one folder per class.")
    manifest: Folder | None = Field(
        default=None,
        description="CSV or JSONL file with path and label of every image, and split and group where they are known; "
        "its paths are relative to it. Alone, or beside the folders.",
    )
    label_from: OneCapture | None = Field(
        default=None,
        description="Regular expression with one capture on the path below the folder: the class, in place of the "
        "name of its folder.",
        examples=["^([a-z]+)_"],
    )
    classes: Classes = Field(default=Classes(), description="Which classes there are, and what they are called.")
    corrections: Folder | None = Field(
        default=None,
        description="CSV file of images to leave out or to label otherwise, as the sheets of `imgrec data` save it.",
    )
    split: Split = Field(
        default=Split(),
        description="What is cut from the training images where no folder is given.",
        examples=[{"validation": "15%", "test": "15%"}],
    )
    group: OneCapture | None = Field(
        default=None,
        description="Regular expression with one capture on the path below the folder; images with the same "
        "capture (a patient, a slide, a video) stay on one side of the split.",
    )
    on_bad_image: Literal["skip", "stop"] = Field(
        default="skip", description="An image that cannot be read is left out and named, or ends the run."
    )
    on_leak: Literal["stop", "skip", "keep"] = Field(
        default="stop",
        description="A picture that stands in two given splits ends the run, or its copy among the images trained on "
        "is left out, or both are kept as they are.",
    )

    @property
    def folders(self) -> tuple[str, ...]:
        """What `folder` names, as a list."""
        if self.folder is None:
            return ()
        return (self.folder,) if isinstance(self.folder, str) else self.folder


# --- image ------------------------------------------------------------------------------------------


class Standardize(Section):
    """Per-channel statistics of the training pixels, in units of the 0 to 1 range."""

    mean: Channels = Field(description="Mean per channel.")
    deviation: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Strict(False)] = Field(
        min_length=1, max_length=3, description="Standard deviation per channel."
    )


class Image(Section):
    """What the model sees of a file: settled once, and the same in training, evaluation and prediction."""

    size: Size = Field(default=(224, 224), description="Height and width in pixels.", examples=[[224, 224]])
    color: Literal["rgb", "gray"] = Field(default="rgb", description="Three channels or one.")
    fit: Literal["stretch", "crop", "pad"] = Field(
        default="stretch",
        description="How a picture of another shape fits: stretched, its centre cut out, or padded with black.",
    )
    range: Annotated[
        Annotated[Literal["auto"], Tag("<word>")]
        | Annotated[tuple[float, float], Strict(False), AfterValidator(_rising), Tag("<value>")],
        _word_or((list, tuple), ("auto",), "expected auto or [low, high]"),
    ] = Field(
        default="auto",
        description="Raw values shown as black and white. auto: the smallest of 8, 10, 12, 14, 16 bits that holds "
        "the largest training value. A range above 255 speaks of images with more than 8 bits only.",
        examples=[[0, 4095]],
    )
    standardize: Annotated[
        Annotated[Literal["off", "auto"], Tag("<word>")] | Annotated[Standardize, Tag("<value>")],
        _word_or((dict, Standardize), ("off", "auto"), "expected off, auto or {mean: [...], deviation: [...]}"),
    ] = Field(
        default="off",
        description="off: pixels are scaled to 0..1. auto: then also to mean 0 and deviation 1 per channel over the "
        "training images. Or the statistics themselves.",
    )

    @property
    def channels(self) -> int:
        """Number of channels: 3 for rgb, 1 for gray."""
        return 3 if self.color == "rgb" else 1


# --- augment ----------------------------------------------------------------------------------------


class Rotate(Section):
    """Turn by a random angle about the centre."""

    type: Literal["rotate"]
    degrees: float = Field(ge=0, le=180, description="Largest angle to either side, in degrees.")


class Shift(Section):
    """Move by a random fraction of the side, or by whole pixels."""

    type: Literal["shift"]
    height: float = Field(
        default=0.0, ge=0, le=1, description="Largest vertical move to either side, as a fraction of the height."
    )
    width: float = Field(
        default=0.0, ge=0, le=1, description="Largest horizontal move to either side, as a fraction of the width."
    )
    pixels: int = Field(
        default=0,
        ge=0,
        description="Largest move to each of the four sides in whole pixels, in place of fractions: none is blurred.",
    )


class Shear(Section):
    """Slant by a random angle."""

    type: Literal["shear"]
    degrees: float = Field(ge=0, lt=90, description="Largest shear angle to either side, in degrees.")


class Zoom(Section):
    """Scale height and width by independent random factors; above 1 shows more of the surroundings."""

    type: Literal["zoom"]
    range: Factors = Field(description="Smallest and largest factor; below 1 enlarges the picture.")


class Crop(Section):
    """Cut out a random rectangle and scale it back to the full size (Szegedy et al. 2015, section 6)."""

    type: Literal["crop"]
    area: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
        Strict(False),
        AfterValidator(_ordered),
    ] = Field(description="Smallest and largest share of the picture's area that is kept.")
    aspect: Factors = Field(default=(0.75, 4 / 3), description="Smallest and largest width to height of the rectangle.")


class Flip(Section):
    """Mirror half of the pictures."""

    type: Literal["flip"]
    axis: Literal["horizontal", "vertical"] = Field(
        default="horizontal", description="horizontal swaps left and right, vertical swaps top and bottom."
    )


class Fill(Section):
    """What stands where a geometric step looks past the picture's edge; nearest where this is not given."""

    type: Literal["fill"]
    mode: Literal["nearest", "constant", "reflect"] = Field(description="Repeat the edge, one value, or mirror.")
    value: float = Field(default=0.0, ge=0, le=255, description="Pixel value for constant, 0 to 255.")


class Brightness(Section):
    """Multiply all pixels by a random factor."""

    type: Literal["brightness"]
    range: Factors = Field(description="Smallest and largest factor.")


class Contrast(Section):
    """Scale the distance of all pixels from the picture's mean by a random factor."""

    type: Literal["contrast"]
    range: Factors = Field(description="Smallest and largest factor.")


class ChannelShift(Section):
    """Add a random value to each channel."""

    type: Literal["channel_shift"]
    amount: float = Field(
        ge=0, le=255, description="Largest value added to or taken from a channel, on the 0 to 255 scale."
    )


class RandAugment(Section):
    """Some changes of one strength, drawn anew for every picture (Cubuk et al. 2019).

    Of the paper's operations: identity, rotate, shear and translate along both axes, which join the other geometric
    steps; autocontrast, brightness, color, contrast, posterize, solarize. Equalize and sharpness are left out.
    """

    type: Literal["randaugment"]
    operations: int = Field(default=2, ge=1, le=8, description="How many changes a picture gets.")
    magnitude: float = Field(default=9.0, ge=0, le=10, description="How strong each of them is, 0 to 10.")


class Erase(Section):
    """Cover a random rectangle with a random color (Zhong et al. 2017)."""

    type: Literal["erase"]
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the pictures that lose a rectangle.")
    area: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
        Strict(False),
        AfterValidator(_ordered),
    ] = Field(default=(0.02, 0.33), description="Smallest and largest share of the picture's area that is covered.")
    aspect: Factors = Field(default=(0.3, 3.3), description="Smallest and largest width to height of the rectangle.")


class Mixup(Section):
    """Average a picture with another one of the batch, and their labels in the same shares (Zhang et al. 2017)."""

    type: Literal["mixup"]
    alpha: float = Field(default=0.2, ge=0.1, le=10, description="The share kept is drawn from Beta(alpha, alpha).")
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the pictures that are mixed.")


class Cutmix(Section):
    """Put a rectangle of another picture of the batch in its place, and mix the labels by area (Yun et al. 2019)."""

    type: Literal["cutmix"]
    alpha: float = Field(default=1.0, ge=0.1, le=10, description="The area kept is drawn from Beta(alpha, alpha).")
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the pictures that are mixed.")


Augmentation = Annotated[
    Rotate
    | Shift
    | Shear
    | Zoom
    | Crop
    | Flip
    | Fill
    | Brightness
    | Contrast
    | ChannelShift
    | RandAugment
    | Erase
    | Mixup
    | Cutmix,
    Field(discriminator="type"),
]


# --- model ------------------------------------------------------------------------------------------


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


# --- loss -------------------------------------------------------------------------------------------


class _Loss(Section):
    """What all losses have."""

    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of a label that is spread evenly over all classes (Szegedy et al. 2015).",
    )
    class_weights: Annotated[
        Annotated[Literal["equal", "balanced"], Tag("<word>")]
        | Annotated[dict[Name, Annotated[float, Field(gt=0, le=1e6)]], Tag("<value>")],
        _word_or(dict, ("equal", "balanced"), "expected equal, balanced or a weight by class such as {cat: 2}"),
    ] = Field(
        default="equal",
        description="What an image of a class counts. balanced: images / (classes · images of the class); or by class, "
        "1 for those that are not named.",
    )


class CrossEntropy(_Loss):
    """Negative logarithm of the probability of the true class."""

    type: Literal["cross_entropy"]


class MeanAbsoluteError(_Loss):
    """Mean distance of all probabilities from 0 and 1: bears wrong labels better, learns slower (Ghosh et al. 2017)."""

    type: Literal["mean_absolute_error"]


class Focal(_Loss):
    """Cross entropy that cares less for what is answered right (Lin et al. 2017); its alpha are class_weights."""

    type: Literal["focal"]
    gamma: float = Field(default=2.0, ge=0, le=10, description="How much less; 0 is cross entropy.")


Loss = Annotated[CrossEntropy | MeanAbsoluteError | Focal, Field(discriminator="type")]


class Teacher(Section):
    """A finished run with the same classes, whose answers to the training images are learnt beside their labels.

    Its probabilities and the network's are both softened, and their Kullback-Leibler divergence times temperature² is
    added to the loss (Hinton, Vinyals and Dean 2015, section 2).
    """

    run: Folder = Field(description="Folder of the run; its images may be of another size or color.")
    temperature: float = Field(
        default=3.0,
        ge=1,
        le=100,
        description="What logits are divided by: 1 as they are, more shows what comes second.",
    )
    share: float = Field(
        default=0.7, gt=0, le=1, description="Of the loss, the share of the answers; the rest is that of the labels."
    )


# --- schedules, published networks ------------------------------------------------------------------

Rate = Annotated[float, Field(gt=0, le=100)]
MonitoredMetric = Literal["val/loss", "val/accuracy", "val/precision", "val/recall", "val/f1"]


class CosineSchedule(Section):
    """Rise in a straight line, then fall along half a cosine over the rest of training (Loshchilov and Hutter 2016)."""

    type: Literal["cosine"]
    peak: Rate = Field(description="Largest step size.")
    warmup: Length = Field(
        default=Duration(0, "%"),
        json_schema_extra={"default": "0%"},
        description="How long the rate rises from 0 to the peak.",
        examples=["5%"],
    )
    end: float = Field(default=0.0, ge=0, le=100, description="Step size at the end of the last epoch.")


class StepSchedule(Section):
    """Multiply the step size by a factor, again and again."""

    type: Literal["step"]
    start: Rate = Field(description="First step size.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="What it is multiplied by.")
    every: Interval = Field(description="How long one step size is kept.", examples=["30%"])


class ExponentialSchedule(Section):
    """Shrink the step size a little after every step."""

    type: Literal["exponential"]
    start: Rate = Field(description="First step size.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="What it has been multiplied by after `every`.")
    every: Interval = Field(description="How long it takes to shrink by the factor.", examples=["30%"])


class PlateauSchedule(Section):
    """Multiply the step size by a factor when a validation metric no longer improves."""

    type: Literal["plateau"]
    start: Rate = Field(description="First step size.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="What it is multiplied by.")
    metric: MonitoredMetric = Field(default="val/loss", description="What is watched.")
    patience: int = Field(default=2, ge=1, description="Epochs without improvement before the rate shrinks.")
    min_delta: float = Field(default=0.0, ge=0, description="Smallest change that counts as an improvement.")
    end: float = Field(default=0.0, ge=0, le=100, description="Smallest step size.")


Schedule = Annotated[CosineSchedule | StepSchedule | ExponentialSchedule | PlateauSchedule, Field(discriminator="type")]
LearningRate = Annotated[
    Annotated[Rate, Tag("<number>")] | Annotated[Schedule, Tag("<schedule>")],
    Discriminator(
        lambda value: (
            "<schedule>"
            if isinstance(value, dict | Section)
            else "<number>"
            if isinstance(value, int | float) and not isinstance(value, bool)
            else None
        ),
        custom_error_type="neither",
        custom_error_message="expected a number such as 1e-3, or a schedule such as {type: cosine, peak: 1e-3}",
    ),
]


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


# --- optimizer, train, runtime, export --------------------------------------------------------------


class _Optimizer(Section):
    """What all optimizers have."""

    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="Largest length of the gradient of all weights together; a longer one is shortened to it.",
        examples=[1.0],
    )


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2014)."""

    type: Literal["adam"]
    learning_rate: LearningRate = Field(default=1e-3, description="Step size, constant or by a schedule.")
    beta_1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean of the gradients.")
    beta_2: float = Field(default=0.999, ge=0, lt=1, description="Decay of the mean of their squares.")


class Sgd(_Optimizer):
    """Stochastic gradient descent, with momentum if asked for."""

    type: Literal["sgd"]
    learning_rate: LearningRate = Field(default=1e-2, description="Step size, constant or by a schedule.")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Share of the last step that is kept.")
    nesterov: bool = Field(default=False, description="Look ahead along the momentum.")


class AdamW(_Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017)."""

    type: Literal["adamw"]
    learning_rate: LearningRate = Field(default=1e-3, description="Step size, constant or by a schedule.")
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="Share of a weight taken away per unit of step.")
    beta_1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean of the gradients.")
    beta_2: float = Field(default=0.999, ge=0, lt=1, description="Decay of the mean of their squares.")


class RMSprop(_Optimizer):
    """Steps divided by a running root mean square of the gradients (Hinton 2012, lecture 6e)."""

    type: Literal["rmsprop"]
    learning_rate: LearningRate = Field(default=1e-3, description="Step size, constant or by a schedule.")
    rho: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean of the squared gradients.")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Share of the last step that is kept.")


class Lion(_Optimizer):
    """Steps of one length, by the sign of the momentum (Chen et al. 2023); wants a tenth of Adam's step size."""

    type: Literal["lion"]
    learning_rate: LearningRate = Field(default=1e-4, description="Step size, constant or by a schedule.")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="Share of a weight taken away per unit of step.")
    beta_1: float = Field(default=0.9, ge=0, lt=1, description="Share of the momentum in a step.")
    beta_2: float = Field(default=0.99, ge=0, lt=1, description="Decay of the mean of the gradients.")


class Muon(_Optimizer):
    """Orthogonal steps for the kernels of dense layers, AdamW for all else (Jordan 2024, Liu et al. 2025).

    The last layer is among all else.
    """

    type: Literal["muon"]
    learning_rate: LearningRate = Field(default=1e-3, description="Step size, constant or by a schedule.")
    weight_decay: float = Field(default=4e-3, ge=0, le=1, description="Share of a weight taken away per unit of step.")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Share of the last step that is kept.")


Optimizer = Annotated[Adam | AdamW | Sgd | RMSprop | Lion | Muon, Field(discriminator="type")]


class EarlyStopping(Section):
    """Stop when a validation metric no longer improves; the best weights are kept in any case."""

    metric: MonitoredMetric = Field(default="val/loss", description="What is watched.")
    patience: int = Field(default=3, ge=1, description="Epochs without improvement before training stops.")
    min_delta: float = Field(default=0.0, ge=0, description="Smallest change that counts as an improvement.")


class Train(Section):
    """The length and the batches of training."""

    batch_size: Annotated[
        Annotated[Literal["auto"], Tag("<word>")] | Annotated[int, Field(ge=1, le=65536), Tag("<value>")],
        _word_or((int, float), ("auto",), "expected a whole number or auto"),
    ] = Field(default=32, description="Images per step; auto: the fastest here that fits into memory, by a probe.")
    epochs: int = Field(default=10, ge=1, le=100_000, description="Passes over the training images.")
    sampling: Literal["natural", "balanced"] = Field(
        default="natural",
        description="natural: every image once an epoch. balanced: as many images, equally many of each class; "
        "those of rare classes come several times.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="When to stop before the last epoch.",
        examples=[{"metric": "val/loss", "patience": 3}],
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Arithmetic of the step; weights are float32 in any case."
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the average of the weights that each step keeps; the averaged weights are then "
        "validated, chosen and shipped.",
        examples=[0.999],
    )
    checkpoint_every: Saving = Field(
        default=Duration(10, "minute"),
        json_schema_extra={"default": "10 minutes"},
        description="How often all state is saved inside an epoch; it is saved after every epoch in any case.",
        examples=["10 minutes"],
    )
    keep_optimizer: bool = Field(
        default=False, description="Keep the last state of a finished run, so that it can be given more epochs."
    )

    @property
    def images_per_step(self) -> int:
        """The batch size of a resolved config, in which no `auto` is left."""
        if self.batch_size == "auto":
            raise ValueError("train.batch_size is not resolved")
        return self.batch_size


class Runtime(Section):
    """The machine that trains."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")] = Field(
        default="auto",
        description="auto (a GPU where there is one), cpu, gpu, or gpu:1 for the second.",
        examples=["auto", "cpu", "gpu", "gpu:1"],
    )
    threads: Annotated[
        Annotated[Literal["auto"], Tag("<word>")] | Annotated[int, Field(ge=1, le=1024), Tag("<value>")],
        _word_or(int, ("auto",), "expected auto or a whole number"),
    ] = Field(default="auto", description="CPU threads; auto follows the process's affinity and the container's quota.")
    backend: Literal["auto", "tensorflow", "jax"] = Field(
        default="auto", description="Keras backend; auto is tensorflow."
    )
    deterministic: Annotated[
        Annotated[Literal["auto"], Tag("<word>")] | Annotated[bool, Tag("<flag>")],
        Discriminator(
            lambda value: "<word>" if value == "auto" else "<flag>" if isinstance(value, bool) else None,
            custom_error_type="neither",
            custom_error_message="expected auto, true or false",
        ),
    ] = Field(
        default="auto",
        description="Use only operations that give the same bits each time; auto: on CPUs, where it costs nothing.",
    )


def _targets(targets: dict[str, float]) -> dict[str, float]:
    for key in targets:
        if not re.fullmatch(r"(recall|precision)\..+", key):
            raise ValueError(f"expected recall.CLASS or precision.CLASS, got {key}")
    return targets


class Decision(Section):
    """Which class is answered, where the most probable one is not always the right thing to say."""

    thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={},
        description="By class, the probability from which on it is answered, even where another class is more "
        "probable; below it another class is answered.",
        examples=[{"cat": 0.3}],
    )
    target: Annotated[dict[str, Annotated[float, Field(gt=0, lt=1)]], AfterValidator(_targets)] = Field(
        default={},
        description="Thresholds to find on the validation images: the recall or precision that a class has to reach.",
        examples=[{"recall.cat": 0.95}],
    )

    @property
    def targets(self) -> list[tuple[str, str, float]]:
        """What `target` asks for: (`recall` or `precision`, class, share)."""
        return [(*key.split(".", 1), share) for key, share in self.target.items()]  # type: ignore[misc]


class Export(Section):
    """What is shipped."""

    formats: Annotated[tuple[Literal["litert"], ...], Strict(False)] = Field(
        default=("litert",), min_length=1, description="Formats of the exported model.", examples=[["litert"]]
    )


class SearchRange(Section):
    """Numbers to search between: whole ones where both ends are whole."""

    low: int | float = Field(description="Smallest number.")
    high: int | float = Field(description="Largest number.")
    log: bool = Field(default=False, description="Try every order of magnitude as often as the others.")


class SearchChoices(Section):
    """Values to choose from."""

    choices: Annotated[tuple[Any, ...], Strict(False)] = Field(
        min_length=2, description="What the key may be set to: numbers, words, sections or lists."
    )


def _range_or_choices(value: object) -> str | None:
    if isinstance(value, SearchChoices) or (isinstance(value, dict) and "choices" in value):
        return "<choices>"
    return "<range>" if isinstance(value, dict | SearchRange) else None


Searched = Annotated[
    Annotated[SearchRange, Tag("<range>")] | Annotated[SearchChoices, Tag("<choices>")],
    Discriminator(
        _range_or_choices,
        custom_error_type="neither",
        custom_error_message="expected {low: 1e-4, high: 1e-1, log: true} or {choices: [...]}",
    ),
]


class Config(Section):
    """One experiment: what was asked."""

    version: Literal[1] = Field(default=1, description="Format of this file.")
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Source of all random choices: split, order, weights, augmentation."
    )
    data: Data = Field(default=Data(), description="Where the images are.")
    image: Image = Field(default=Image(), description="What the model sees of a file.")
    augment: Annotated[tuple[Augmentation, ...], Strict(False)] = Field(
        default=(),
        description="Random changes of the training images; geometric steps are composed in this order into one.",
        examples=[[{"type": "flip", "axis": "horizontal"}]],
    )
    model: Model = Field(description="The network.")
    loss: Loss = Field(default=CrossEntropy(type="cross_entropy"), description="What training makes small.")
    teacher: Teacher | None = Field(default=None, description="An earlier run to learn from, beside the labels.")
    optimizer: Optimizer = Field(default=Adam(type="adam"), description="How weights follow gradients.")
    train: Train = Field(default=Train(), description="The length and the batches of training.")
    decision: Decision = Field(default=Decision(), description="How probabilities become answers.")
    runtime: Runtime = Field(default=Runtime(), description="The machine that trains.")
    export: Export = Field(default=Export(), description="What is shipped.")
    search: dict[str, Searched] = Field(
        default={},
        description="For `imgrec tune`: by dotted key, list items counted from 0, what to try in place of the value.",
        examples=[{"optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}],
    )
