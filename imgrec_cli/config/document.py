"""Strict YAML 1.2 over PyYAML's parser: plain values, and the place where each key and value was written."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)
from yaml.reader import ReaderError

from imgrec_cli.errors import ConfigError

KeyPath = tuple[str | int, ...]

MAX_DEPTH = 20  # keeps a file of a million brackets from exhausting the stack; a config needs six levels
MAX_DIGITS = 100  # Python refuses to read integers of more than 4300 digits; such a "number" stays a text


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """Where something was written; the file (`order` 0) sorts before the overrides (1, 2, …) in the order given."""

    order: int
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it was written, the key it is about, and what to do."""

    place: Place
    path: KeyPath
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), dotted(self.path), self.message) if part)


@dataclass
class Document:
    """The plain value of a file (dict, list, str, int, float, bool, None) with the places of its parts."""

    value: Any = None
    values: dict[KeyPath, Place] = field(default_factory=dict)
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place_of(self, path: KeyPath) -> Place:
        """Place of the value at `path`, or of the nearest part around it that was written."""
        while path not in self.values:
            path = path[:-1]
        return self.values[path]


def dotted(path: KeyPath) -> str:
    """Key path as users read it: `augment[0].degrees`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_on_one_line(part)}" for part in path)
    return text.removeprefix(".")


def _on_one_line(text: str) -> str:
    text = _shortened(text)
    return text if text.isprintable() else repr(text)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_document(text: str, name: str) -> Document:
    """Read one YAML document; `name` is the file's name in messages.

    Duplicate keys are collected in `problems`. Raises ConfigError with a located message where the text is not YAML or
    uses what a config has no need of: aliases, tags, several documents, keys that are not words.
    """
    try:
        return _Reader(text, name).document()
    except ReaderError as error:
        line, column = text.count("\n", 0, error.position), error.position - text.rfind("\n", 0, error.position) - 1
        message = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML"
    except yaml.MarkedYAMLError as error:
        # a key without its colon is noticed only later: the mark of the context is where it stands
        unfinished = error.context_mark is not None and error.problem == "could not find expected ':'"
        mark = error.context_mark if unfinished else error.problem_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        message = f"not valid YAML: {_explained(error.problem or 'cannot be read')}"
    raise ConfigError(f"{name}:{line + 1}:{column + 1}: {message}")


def plain_scalar(text: str) -> str | int | float | bool | None:
    """Meaning of an unquoted word by YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3.2).

    Unlike YAML 1.1, `1e-3` is a number, `012` is twelve, and `no`, `on`, `12:30` are texts.
    """
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text[0] in "tT"
    if len(text) > MAX_DIGITS:
        return text
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"0o[0-7]+|0x[0-9a-fA-F]+", text):
        return int(text, base=0)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    if re.fullmatch(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", text):
        return float(text.replace(".", ""))
    return text


class _Reader:
    """Builds a document from PyYAML's events, which carry the marks that its constructed values lose."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.events = yaml.parse(text, Loader=yaml.SafeLoader)
        self.read = Document()

    def document(self) -> Document:
        next(self.events)
        event = next(self.events)
        if isinstance(event, StreamEndEvent):
            self.read.values[()] = self.place(event)
            return self.read
        self.read.value = self.node(next(self.events), ())
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                raise self.refusal(event, "a second document begins here; a config is one document")
            if not isinstance(event, DocumentEndEvent | StreamEndEvent):
                raise self.refusal(event, "more follows after the document's end")
        return self.read

    def node(self, event: Event, path: KeyPath) -> Any:
        if isinstance(event, AliasEvent):
            raise self.refusal(
                event, f"aliases such as *{_shortened(str(event.anchor))} are not supported; write the value out"
            )
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self.refusal(event, f"tags such as {_shortened(tag)} are not supported; leave it out")
        if len(path) > MAX_DEPTH:
            raise self.refusal(event, f"nested more than {MAX_DEPTH} levels deep")
        self.read.values[path] = self.place(event)
        if isinstance(event, MappingStartEvent):
            return self.mapping(path)
        if isinstance(event, ScalarEvent):
            return plain_scalar(event.value) if event.style is None else event.value
        items: list[Any] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            items.append(self.node(event, (*path, len(items))))
        return items

    def mapping(self, path: KeyPath) -> dict[str, Any]:
        content: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.tag is not None:
                raise self.refusal(event, "expected a key, a plain word")
            key, first = (*path, event.value), self.read.keys.get((*path, event.value))
            if first is None:
                self.read.keys[key] = self.place(event)
                content[event.value] = self.node(next(self.events), key)
            else:
                message = f"is written twice; the first is on line {first.line}, keep one of them"
                self.read.problems.append(Problem(self.place(event), key, message))
                # read apart, so that the places of the first are kept
                kept, self.read = self.read, Document()
                self.node(next(self.events), key)
                kept.problems += self.read.problems
                self.read = kept
        return content

    def place(self, event: Event) -> Place:
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return Place(0, line, column, f"{self.name}:{line}:{column}")

    def refusal(self, event: Event, message: str) -> ConfigError:
        return ConfigError(f"{self.place(event)}: {message}")


def _explained(problem: str) -> str:
    if "'\\t'" in problem:
        return "a tab stands where YAML wants spaces"
    advice = {
        "could not find expected ':'": "a key needs a colon and a space after it, as in epochs: 10",
        "mapping values are not allowed here": "check the indentation, the space after each colon, or "
        "quotes around a text that holds ': '",
        "expected <block end>, but found '<block mapping start>'": "this line's indentation fits no line above it",
        "expected <block end>, but found '<block sequence start>'": "this line's indentation fits no line above it",
        "expected ',' or '}', but got '<stream end>'": "a { is never closed",
        "expected ',' or ']', but got '<stream end>'": "a [ is never closed",
    }
    return f"{problem}; {advice[problem]}" if problem in advice else problem


def override(document: Document, setting: str, order: int) -> None:
    """Put a `key=value` into a document; `order` counts the settings from 1.

    The key is dotted and counts list items from 0 (`augment.1.degrees`); missing sections on its way are made. What
    cannot be done becomes a problem of the document.
    """
    place = Place(order, 0, 0, f"--set {_on_one_line(setting)}")
    name, equals, text = setting.partition("=")
    words = name.strip().split(".")
    if not equals or not all(words):
        document.problems.append(Problem(place, (), "expected key=value, such as train.epochs=20"))
        return
    if re.search(r"\[\d+\]", name):
        dots = re.sub(r"\[(\d+)\]", r".\1", name)
        document.problems.append(Problem(place, (), f"write list items with dots, as in {dots}={text}"))
        return
    try:
        read = read_document(text, "value")
    except ConfigError as error:
        document.problems.append(Problem(place, (), error.message))
        return
    document.problems += [Problem(place, tuple(words), problem.message) for problem in read.problems]
    try:
        path = _assign(document, words, read.value, place)
    except LookupError as error:
        document.problems.append(Problem(place, tuple(words), str(error.args[0])))
        return
    for places in (document.values, document.keys):
        for inner in [known for known in places if known[: len(path)] == path]:
            del places[inner]
        places[path] = place


def _assign(document: Document, words: list[str], value: Any, place: Place) -> KeyPath:
    """Store `value` under `words`; returns the path. Raises LookupError with a message for the user."""
    target: Any = document.value
    path: KeyPath = ()
    for word, following in zip(words, [*words[1:], None], strict=True):
        if isinstance(target, list):
            index = _index(target, word, path)
            path = (*path, index)
            if following is None:
                target[index] = value
        elif isinstance(target, dict):
            path = (*path, word)
            if following is None:
                target[word] = value
            elif target.get(word) is None:
                if following.isdecimal():
                    raise LookupError(f"the file has no list {dotted(path)}; set the whole list")
                target[word] = {}
                document.values[path] = document.keys[path] = place
        else:
            raise LookupError(f"{dotted(path)} is no section, so it has no {word}")
        if following is not None:
            target = target[path[-1]]
    return path


def _index(items: list[Any], word: str, path: KeyPath) -> int:
    if not word.isdecimal():
        raise LookupError(f"{dotted(path)} is a list; name an item by its number, from 0")
    if int(word) >= len(items):
        count = "1 item" if len(items) == 1 else f"{len(items)} items"
        raise LookupError(f"there is no item {word}; {dotted(path)} has {count}, counted from 0")
    return int(word)
