"""The configuration as typed, frozen sections: what stands in none of the other rooms, and all of it together."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Strict, Tag

from imgrec_cli.config.augmentation import Augmentation
from imgrec_cli.config.images import Data, Image
from imgrec_cli.config.learning import Adam, CrossEntropy, Loss, Optimizer, Teacher, Train
from imgrec_cli.config.networks import Model
from imgrec_cli.config.values import Name, Section, word_or


class Runtime(Section):
    """The machine that trains."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")] = Field(
        default="auto",
        description="auto (a GPU where there is one), cpu, gpu, or gpu:1 for the second.",
        examples=["auto", "cpu", "gpu", "gpu:1"],
    )
    threads: Annotated[
        Annotated[Literal["auto"], Tag("<word>")] | Annotated[int, Field(ge=1, le=1024), Tag("<value>")],
        word_or(int, ("auto",), "expected auto or a whole number"),
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


class Distribute(Section):
    """Training on several devices, and on several hosts where the environment names peers; on the JAX backend."""

    strategy: Literal["auto", "none", "data", "model"] = Field(
        default="auto",
        description="none: one device. data: each device takes a part of every batch. model: large weights are split "
        "over devices as well. auto: data where JAX sees several accelerators or hosts, else none.",
    )
    mesh: Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], Strict(False)] | None = Field(
        default=None,
        description="For model: devices along the batch, and devices that one copy of the weights is split over; "
        "their product is the number of all devices. By default one copy of the weights for each host.",
        examples=[[2, 4]],
    )
    layout: dict[Annotated[str, Field(min_length=1)], Annotated[tuple[Literal["model"] | None, ...], Strict(False)]] = (
        Field(
            default={},
            description="For model: weight, by a regular expression on its path, and the axis of it that is split, "
            "before the automatic choice, which splits large kernels along their outputs.",
            examples=[{"dense_1/kernel": [None, "model"]}],
        )
    )
    shards: Literal[2, 4, 8, 16, 32, 64, 128] | None = Field(
        default=None,
        description="Parts that every batch is computed in, whatever the devices, and their gradients added in one "
        "order: the same bits on 1, 2, 4 … devices, up to half of it. Not with batch norm. With strategy model, "
        "weights are gathered for each step, and lie in parts between the steps.",
    )
    pack_parts: Literal[2, 4, 8, 16, 32, 64, 128] | None = Field(
        default=None,
        description="Parts that the images are dealt to, as many of each in every batch. Each host then decodes and "
        "keeps its own parts alone; the number of processes has to divide it. The order of the images follows from it, "
        "whatever the processes.",
    )
    heartbeat: int = Field(
        default=20, ge=5, le=300, description="Seconds of silence after which another host counts as lost."
    )


def _targets(targets: dict[Name, float]) -> dict[Name, float]:
    for key in targets:
        if not re.fullmatch(r"(recall|precision)\..+", key):
            raise ValueError(f"expected recall.CLASS or precision.CLASS, got {key}")
    return targets


class Decision(Section):
    """Which class is answered, where the most probable one is not always the right thing to say."""

    thresholds: dict[Name, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={},
        description="By class, the probability from which on it is answered, even where another class is more "
        "probable; below it another class is answered.",
        examples=[{"cat": 0.3}],
    )
    target: Annotated[dict[Name, Annotated[float, Field(gt=0, lt=1)]], AfterValidator(_targets)] = Field(
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
    distribute: Distribute = Field(default=Distribute(), description="Training on several devices and hosts.")
    export: Export = Field(default=Export(), description="What is shipped.")
    search: dict[str, Searched] = Field(
        default={},
        description="For `imgrec tune`: by dotted key, list items counted from 0, what to try in place of the value.",
        examples=[{"optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}],
    )
