"""Lengths of time as people write them, `5%`, `3 epochs`, `500 steps`, `10 minutes`: the one place where they become
steps or seconds."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS = {"second": 1, "minute": 60, "hour": 3600}
_UNITS = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour"}
_TRAINING = ("%", "epoch", "step")


@dataclass(frozen=True, slots=True)
class Duration:
    """An amount of `%` (of the whole training), `epoch`, `step`, `second`, `minute` or `hour`."""

    amount: float
    unit: str

    def __str__(self) -> str:
        plural = "s" if self.unit != "%" and self.amount != 1 else ""
        return f"{self.amount:.15g}{'' if self.unit == '%' else ' '}{self.unit}{plural}"

    def steps(self, steps_per_epoch: int, epochs: int) -> int:
        """The duration in whole training steps, rounded; one of training's own units only."""
        match self.unit:
            case "%":
                return round(self.amount / 100 * steps_per_epoch * epochs)
            case "epoch":
                return round(self.amount * steps_per_epoch)
            case "step":
                return round(self.amount)
        raise AssertionError(f"{self} is no number of steps")

    @property
    def seconds(self) -> float | None:
        """The duration in seconds; None where its unit is not one of time."""
        return self.amount * _SECONDS[self.unit] if self.unit in _SECONDS else None


def parsed(text: str) -> Duration | None:
    """The duration that a text such as `10m` or `3 epochs` means; None where it means none."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(%|[a-z]+)", text)
    if match is None:
        return None
    word = _UNITS.get(match[2], match[2].removesuffix("s"))
    return Duration(float(match[1]), word) if word in (*_TRAINING, *_SECONDS) else None


def _of(units: tuple[str, ...], sample: str, least: float) -> BeforeValidator:
    def read(value: object) -> Duration:
        if isinstance(value, Duration):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"expected a duration such as {sample}, got {value}; say of what")
        found = parsed(value) if isinstance(value, str) else None
        if found is None or found.unit not in units:
            raise ValueError(f"expected a duration such as {sample}, got {value!r}")
        if found.unit == "%" and found.amount > 100:
            raise ValueError(f"must be at most 100%, got {value}")
        if found.amount < least:
            raise ValueError(f"must be above 0, got {value}" if least else f"must be at least 0, got {value}")
        if found.unit == "step" and found.amount % 1:
            raise ValueError(f"steps are whole, got {value}")
        return found

    return BeforeValidator(read)


def _written(pattern: str, samples: list[str]) -> tuple[PlainSerializer, WithJsonSchema]:
    return PlainSerializer(str), WithJsonSchema({"type": "string", "pattern": pattern, "examples": samples})


_AMOUNT = r"^[0-9]+(\.[0-9]+)? ?"
_IN_TRAINING = _written(_AMOUNT + "(%|epochs?|steps?)$", ["5%", "3 epochs", "500 steps"])
_IN_TIME = _written(_AMOUNT + "(s|sec|seconds?|m|min|minutes?|h|hours?|steps?)$", ["10 minutes", "500 steps"])

# how long a part of training is; how far it is from one part to the next; how often something is saved
Length = Annotated[Duration, _of(_TRAINING, "5%, 3 epochs or 500 steps", 0), *_IN_TRAINING]
Interval = Annotated[Duration, _of(_TRAINING, "10%, 3 epochs or 500 steps", 1e-9), *_IN_TRAINING]
Saving = Annotated[Duration, _of((*_SECONDS, "step"), "10 minutes, 90s or 500 steps", 1e-9), *_IN_TIME]
