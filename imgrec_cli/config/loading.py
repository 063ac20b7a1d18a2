"""A YAML file and overrides → a Config with every value present, or all problems at once."""

import copy
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imgrec_cli.config.document import Document, KeyPath, Problem, override, read_document
from imgrec_cli.config.networks import BackboneModel
from imgrec_cli.config.problems import problems_of
from imgrec_cli.config.rules import RULES
from imgrec_cli.config.sections import Config
from imgrec_cli.config.values import FORMAT_VERSION
from imgrec_cli.config.writing import NO_PATHS, PATH_KEYS
from imgrec_cli.errors import ARCHIVES, ConfigError, quoted, unpack_command
from imgrec_cli.storage import is_url

MAX_BYTES = 200_000  # fifty times a long config; PyYAML reads 150 kB a second
MAX_PROBLEMS = 50  # told at once: a file with more is no config, or has one mistake many times


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file.

    `overrides` are `key=value` settings with dotted keys, applied in order before anything is checked. Paths in the
    file are relative to the file's folder, paths in overrides to the current directory; all come back absolute.
    Raises ConfigError with every problem, one a line, as `file:line:column: key: what is wrong`.
    """
    path = Path(path)
    return parse_config(read_text(path), str(path), path.parent, overrides)


def parse_config(text: str, name: str, base_folder: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config from text; `name` stands in messages, relative paths start at `base_folder`."""
    document = read_document(text, name)
    if document.value is None:
        raise ConfigError(f"{name} is empty", "write a starter config for your images: imgrec config init DATA_DIR")
    if not isinstance(document.value, dict):
        got = "a list" if isinstance(document.value, list) else f"only the word {document.value!r}"
        raise ConfigError(f"{document.place_of(())}: expected keys such as data: and model:, got {got}")
    for order, setting in enumerate(overrides, 1):
        override(document, setting, order)
    optimizer = document.value.get("optimizer")
    if isinstance(optimizer, dict) and document.place_of(("optimizer",)).order > 0:
        optimizer.setdefault("type", "adam")  # a section that an override makes starts from the default one
    _refuse_newer_format(document)
    config, problems = _validated(document)
    problems += document.problems
    problems += _broken_rules(config, document, problems)
    if problems:
        raise _all_of(problems)
    return _with_absolute_paths(config, document, base_folder)


def _all_of(problems: Sequence[Problem], more: int = 0) -> ConfigError:
    """One error of many problems, in the order of the file, and how many `more` there are."""
    lines = list(dict.fromkeys(str(problem) for problem in sorted(problems, key=lambda problem: problem.place)))
    more += max(0, len(lines) - MAX_PROBLEMS)
    return ConfigError("\n".join(lines[:MAX_PROBLEMS] + ([f"and {more:,} more problems"] if more else [])))


def check_weights(config: Config) -> None:
    """Raise ConfigError where `model.weights` of a loaded config names no file; what is in it shows when it is used."""
    model = config.model
    if not isinstance(model, BackboneModel) or model.weights in NO_PATHS:
        return
    if not Path(model.weights).is_file():
        hint = "keras.applications calls such files …_no_top.h5; or set model.weights=none and model.freeze=false"
        raise ConfigError(f"model.weights: {model.weights}: no such file", hint)
    if not model.weights.endswith((".h5", ".hdf5")):
        raise ConfigError(
            f"model.weights: {model.weights}: not a .h5 file",
            "other files of models can carry code and are not loaded; keras.applications has weights as …_no_top.h5",
        )


def check_class_names(config: Config, class_names: Sequence[str]) -> None:
    """Raise ConfigError where `decision` or `loss` speaks of a class that is not among the data's."""
    named = [("decision.thresholds", name) for name in config.decision.thresholds]
    named += [("decision.target", name) for _, name, _ in config.decision.targets]
    if isinstance(config.loss.class_weights, dict):
        named += [("loss.class_weights", name) for name in config.loss.class_weights]
    for key, name in named:
        if name not in class_names:
            near = difflib.get_close_matches(name, class_names, 1)
            hint = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(class_names[:20])}"
            raise ConfigError(f"{key}: no class {name}", hint)


def read_text(path: Path) -> str:
    """The text of a config file, with `\\n` line ends. Raises ConfigError for what is none."""
    if path.is_dir():
        file = f"{path.resolve().name}.yaml"
        lines = f"imgrec config init {quoted(path)}\n  imgrec train {quoted(file)}"
        raise ConfigError(f"{path} is a folder, not a config", f"write one for its images, then train:\n  {lines}")
    if path.suffix.lower() in ARCHIVES and path.is_file():
        unpack, folder = unpack_command(path)
        lines = "\n  ".join(
            [unpack, f"imgrec config init {quoted(folder)}", f"imgrec train {quoted(f'{folder.name}.yaml')}"]
        )
        raise ConfigError(f"{path} is an archive, not a config", f"unpack it, write a config, then train:\n  {lines}")
    try:
        with path.open("rb") as stream:  # not by its size: a device or a pipe has none
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES // 1000} kB, so it is no config")
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", _similar_file(path)) from None
    except UnicodeDecodeError as error:
        kind = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        byte = f"byte {error.start} is 0x{error.object[error.start]:02x}"
        raise ConfigError(f"{path} cannot be read as text: it is {kind} ({byte})", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _similar_file(path: Path) -> str:
    beside = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"did you mean {path.with_name(near[0])}?" if near else "imgrec config init DATA_DIR writes a config"


def _refuse_newer_format(document: Document) -> None:
    version = document.value.get("version")
    # alone, because the unknown keys of a newer format would only hide it
    if type(version) is int and version > FORMAT_VERSION:
        message = f"this config has format {version}, this imgrec reads format {FORMAT_VERSION}"
        problem = Problem(document.place_of(("version",)), ("version",), message)
        raise ConfigError(str(problem), "upgrade imgrec: get its newer folder, then install from there as README says")


def _validated(document: Document) -> tuple[Config, list[Problem]]:
    """The config and no problems; or the problems, and a config in which defaults stand for what was wrong."""
    content = copy.deepcopy(document.value)
    problems: list[Problem] | None = None
    while True:
        try:
            return Config.model_validate(content), problems or []
        except ValidationError as error:
            found = problems_of(error.errors(include_url=False)[:MAX_PROBLEMS], document)
            if (more := error.error_count() - MAX_PROBLEMS) > 0:
                raise _all_of(found + document.problems, more) from None
        if problems is None:
            problems = found
        for problem in found:
            _remove(content, problem.path)


def _remove(content: dict[str, Any], path: KeyPath) -> None:
    """Take away the key at `path`, or the nearest one around it; a list goes as a whole, so that no index moves."""
    steps: list[tuple[dict[str, Any], str]] = []
    here: Any = content
    for part in path:
        if not isinstance(part, str) or not isinstance(here, dict) or part not in here:
            break
        steps.append((here, part))
        here = here[part]
    if steps:
        owner, key = steps[-1]
        del owner[key]
    elif path[0] == "model":  # the one section without a default
        content["model"] = {"type": "layers", "layers": [{"type": "flatten"}]}


def _broken_rules(config: Config, document: Document, problems: Sequence[Problem]) -> list[Problem]:
    """Problems between sections, from the rules whose keys are all free of problems of their own."""
    wrong = [problem.path for problem in problems]
    return [
        Problem(document.place_of(path), path, message)
        for keys, rule in RULES
        if not any(_overlap(tuple(key.split(".")), path) for key in keys for path in wrong)
        for path, message in rule(config)
    ]


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _with_absolute_paths(config: Config, document: Document, base_folder: Path) -> Config:
    for section, key in (name.split(".") for name in PATH_KEYS):
        owner = getattr(config, section)
        given = getattr(owner, key, None)
        if given is not None and given not in NO_PATHS:
            overridden = document.place_of((section, key)).order > 0
            base = Path.cwd() if overridden else base_folder
            absolute = (
                _absolute(base, given) if isinstance(given, str) else tuple(_absolute(base, one) for one in given)
            )
            config = config.model_copy(update={section: owner.model_copy(update={key: absolute})})
    return config


def _absolute(base: Path, given: str) -> str:
    if is_url(given):
        return given
    # abspath, not resolve: a link stays the name that the user gave it
    return os.path.abspath(base / os.path.expanduser(given))  # noqa: PTH100, PTH111
