"""What pydantic found wrong, in the user's words and at the place where it was written."""

import re
from collections.abc import Sequence

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from imgrec_cli.config.document import Document, KeyPath, Problem, plain_scalar
from imgrec_cli.config.hints import about_key, about_word, sections_in, tag_of
from imgrec_cli.config.sections import Config, SearchChoices, SearchRange
from imgrec_cli.config.values import Section
from imgrec_cli.config.writing import written

_BRANCHES: dict[str, type[Section]] = {"<range>": SearchRange, "<choices>": SearchChoices}


def problems_of(errors: Sequence[ErrorDetails], document: Document) -> list[Problem]:
    """One problem per mistake that pydantic tells, at the value; of an unknown key at the key, of a missing one at its
    section."""
    problems = []
    for details in errors:
        if details["type"] == "too_short" and details["input"]:
            continue  # pydantic counts only the items that are right; the wrong ones are told by themselves
        path, section, tags = _locate(details["loc"])
        message = _message(details, path, section, tags)
        if details["type"].startswith("union_tag"):
            path = (*path, "type")
        place = document.place_of(path)
        if details["type"] == "extra_forbidden":
            place = document.keys.get(path, place)
        problems.append(Problem(place, path, message))
    # a misspelt key is one mistake, though pydantic also misses the right one
    told = {(*problem.path[:-1], problem.message) for problem in problems}
    return [
        problem
        for problem in problems
        if (*problem.path[:-1], f"unknown key; did you mean {problem.path[-1]}?") not in told
    ]


def _locate(loc: tuple[str | int, ...]) -> tuple[KeyPath, type[Section] | None, list[str]]:
    """Split pydantic's location: the path without the names of union branches, the section that the last key belongs
    to, and the words that may stand behind `type:` there."""
    path: KeyPath = ()
    owner: type[Section] | None = None
    here: list[type[Section]] = [Config]
    for part in loc:
        if isinstance(part, int):
            path = (*path, part)
        elif part.startswith("<"):  # a branch that values.word_or or its like has named
            here = [_BRANCHES[part]] if part in _BRANCHES else here
        elif path == ("search",):  # by key, each with one of two sections
            path = (*path, part)
        elif len(here) > 1:
            here = [member for member in here if tag_of(member) == part]
        else:
            path = (*path, part)
            owner = here[0] if here else None
            known = owner.model_fields.get(part) if owner else None
            here = sections_in(known.annotation) if known else []
    tagged = len(here) > 1 and path[:1] != ("search",)
    return path, owner, [tag_of(member) for member in here] if tagged else []


def _message(details: ErrorDetails, path: KeyPath, section: type[Section] | None, tags: list[str]) -> str:
    got, limits = details["input"], details.get("ctx", {})
    field = section.model_fields.get(str(path[-1])) if section and isinstance(path[-1], str) else None
    samples = field.examples or [] if field else []
    match details["type"]:
        case "extra_forbidden":
            return _joined("unknown key", about_key(path, section))
        case "missing" if isinstance(path[-1], int):
            return f"is missing; the list has only {len(got)}"
        case "missing":
            return f"is missing{_described(field)}"
        case "union_tag_not_found":
            advice = next((text for key in got if (text := about_word(str(key), tags))), "")
            advice = advice.replace("did you mean", "did you mean type:")
            return _joined("is missing", advice or f"write one of {', '.join(tags)}")
        case "union_tag_invalid":
            return _none_of(tags, got["type"])
        case "literal_error":
            return _none_of(re.findall(r"'([^']*)'", str(limits["expected"])) or [str(limits["expected"])], got)
        case "model_attributes_type" | "model_type":
            tag = got if got in tags else next(iter(tags), None)
            return f"expected a section{_such_as([{'type': tag}] if tag else samples)}, got {_shown(got)}"
        case "dict_type":
            return f"expected a section{_such_as(samples)}, got {_shown(got)}"
        case "tuple_type":
            return f"expected a list{_such_as(samples)}, got {_shown(got)}"
        case "too_long":
            return f"must have at most {limits['max_length']} items, got {len(got)}"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "int_type":
            return _joined(f"expected a whole number, got {_shown(got)}", _as_number(got, int))
        case "float_type":
            return _joined(f"expected a number, got {_shown(got)}", _as_number(got, float))
        case "finite_number":
            return f"expected a finite number, got {_shown(got)}"
        case "bool_type":
            meant = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
            word = meant.get(got.lower()) if isinstance(got, str) else None
            return _joined(f"expected true or false, got {_shown(got)}", f"write {word}" if word else "")
        case "string_type":
            quotes = "put ./ before it" if path[0] == "data" and "classes" not in path else "put it in quotes"
            advice = quotes if isinstance(got, int | float) and not isinstance(got, bool) else ""
            return _joined(f"expected a text, got {_shown(got)}", advice)
        case "string_pattern_mismatch":
            return _joined(f"expected a word{_such_as(samples)}, got {_shown(got)}", about_word(got, samples))
        case "greater_than_equal":
            return f"must be at least {_limit(limits['ge'])}, got {_shown(got)}"
        case "less_than_equal":
            return f"must be at most {_limit(limits['le'])}, got {_shown(got)}"
        case "greater_than":
            return f"must be above {_limit(limits['gt'])}, got {_shown(got)}"
        case "less_than":
            return f"must be below {_limit(limits['lt'])}, got {_shown(got)}"
        case "neither":
            return f"{details['msg']}, got {_shown(got)}"
        case "value_error":
            return str(limits["error"])
        case _:
            return f"{details['msg']}, got {_shown(got)}"


def _none_of(words: Sequence[str], got: object) -> str:
    choices = f"one of {', '.join(words)}" if len(words) > 2 else " or ".join(words)
    advice = about_word(got, words) if isinstance(got, str) else ""
    if got in words:  # the text '1' where the number is wanted
        advice = "drop the quotes"
    return _joined(f"must be {choices}, got {repr(got) if isinstance(got, str) else _shown(got)}", advice)


def _as_number(got: object, kind: type[int] | type[float]) -> str:
    """What to write where a number was meant but a text or a float was read."""
    if isinstance(got, float) and got.is_integer():
        return f"write {got:.0f}"
    if isinstance(got, str) and isinstance(plain_scalar(got), int | kind):
        return "drop the quotes"
    return ""


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {value if len(value) <= 40 else value[:37] + '...'!r}"
        case int() | float():
            return str(value)
        case dict():
            return "a section"
        case _:
            return "a list"


def _limit(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _described(field: FieldInfo | None) -> str:
    text = field.description if field else None
    return f" ({text[0].lower()}{text[1:].removesuffix('.')})" if text else ""


def _such_as(samples: Sequence[object]) -> str:
    return f" such as {', '.join(written(sample) for sample in samples)}" if samples else ""


def _joined(message: str, advice: str) -> str:
    return f"{message}; {advice}" if advice else message
