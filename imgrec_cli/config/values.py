"""Kinds of values that sections share: shares, names, sizes, pairs; and what all sections are."""

import re
import unicodedata
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)

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


def word_or(kinds: type | tuple[type, ...], words: tuple[str, ...], expected: str) -> Discriminator:
    """Choose the branch of a union by the kind of the value, so that a mistake gives one message only."""

    def branch(value: object) -> str | None:
        if isinstance(value, str) and value in words:
            return "<word>"
        return "<value>" if isinstance(value, kinds) and not isinstance(value, bool) else None

    return Discriminator(branch, custom_error_type="neither", custom_error_message=expected)


def text_or_list(expected: str) -> Discriminator:
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


def ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the first number must not be larger than the second; got {list(pair)}")
    return pair


def rising(pair: tuple[float, float]) -> tuple[float, float]:
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
    AfterValidator(ordered),
]


Channels = Annotated[tuple[float, ...], Strict(False), Field(min_length=1, max_length=3)]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
