"""The sections `data` and `image`: which pictures, in which classes and splits, as which pixels."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict, Tag

from imgrec_cli.config.values import (
    Channels,
    Folder,
    Name,
    Names,
    OneCapture,
    Percent,
    Section,
    Size,
    rising,
    text_or_list,
    word_or,
)


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
            text_or_list("expected a folder or a list of folders"),
        ]
        | None
    ) = Field(
        default=None,
        description="One folder per class, or train/, validation/ and test/ with one folder per class; or a list of "
        "such folders, whose classes are put together by name. Here and for the splits it may be tar shards, such as "
        "photos-{000..146}.tar, and begin with a URL, such as s3://bucket/photos.",
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
        | Annotated[tuple[float, float], Strict(False), AfterValidator(rising), Tag("<value>")],
        word_or((list, tuple), ("auto",), "expected auto or [low, high]"),
    ] = Field(
        default="auto",
        description="Raw values shown as black and white. auto: the smallest of 8, 10, 12, 14, 16 bits that holds "
        "the largest training value. A range above 255 speaks of images with more than 8 bits only.",
        examples=[[0, 4095]],
    )
    standardize: Annotated[
        Annotated[Literal["off", "auto"], Tag("<word>")] | Annotated[Standardize, Tag("<value>")],
        word_or((dict, Standardize), ("off", "auto"), "expected off, auto or {mean: [...], deviation: [...]}"),
    ] = Field(
        default="off",
        description="off: pixels are scaled to 0..1. auto: then also to mean 0 and deviation 1 per channel over the "
        "training images. Or the statistics themselves.",
    )

    @property
    def channels(self) -> int:
        """Number of channels: 3 for rgb, 1 for gray."""
        return 3 if self.color == "rgb" else 1
