"""What others build on: public names, commands, options, exit codes. Change it here on purpose, and in CHANGELOG.md."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import imgrec_cli
from imgrec_cli import errors
from imgrec_cli.cli import app

GOLDEN = Path(__file__).with_name("commands.txt")

EXIT_CODES = {
    "ImgrecError": 1,
    "InputError": 2,
    "ConfigError": 2,
    "DataError": 2,
    "BadImageError": 3,
    "ParityError": 4,
    "ExportError": 4,
    "TrainingError": 5,
    "MissingExtraError": 6,
    "DiskSpaceError": 7,
    "GateError": 8,
    "ReproductionError": 9,
    "PeerLostError": 10,
    "UnreachableError": 11,
    "Interrupted": 75,
}


def test_public_names() -> None:
    assert imgrec_cli.__all__ == ["Classifier", "__version__", "evaluate", "load_config", "train"]
    for name in imgrec_cli.__all__:
        assert getattr(imgrec_cli, name)


def test_parameters_of_the_public_functions() -> None:
    def parameters(function: Any) -> list[str]:
        kinds = {inspect.Parameter.KEYWORD_ONLY: "{}="}
        return [kinds.get(p.kind, "{}").format(p.name) for p in inspect.signature(function).parameters.values()]

    assert parameters(imgrec_cli.load_config) == ["path", "overrides"]
    assert parameters(imgrec_cli.train) == [
        *("config", "overrides", "resume=", "runs=", "folds=", "seeds="),
        *("tensorboard=", "mlflow=", "on_event="),
    ]
    assert parameters(imgrec_cli.evaluate) == ["model", "split=", "data=", "tta=", "on_event="]
    assert parameters(imgrec_cli.Classifier.load) == ["path", "min_confidence=", "coverage=", "tta=", "threads="]
    assert parameters(imgrec_cli.Classifier.predict) == ["self", "image"]
    assert parameters(imgrec_cli.Classifier.predict_many) == ["self", "images"]


def lines_of(command: Any, path: str) -> Iterator[str]:
    """One line per command, argument and option below `command`."""
    if not getattr(command, "commands", None) or command.invoke_without_command:
        yield path
    for parameter in command.params:
        words = ", ".join([*parameter.opts, *parameter.secondary_opts])
        yield f"{path}  {words if parameter.param_type_name == 'option' else parameter.name.upper()}"
    for name, below in getattr(command, "commands", {}).items():
        yield from lines_of(below, f"{path} {name}")


def test_commands_and_options() -> None:
    found = "".join(f"{line}\n" for line in lines_of(typer.main.get_command(app), "imgrec"))
    assert found == GOLDEN.read_text(encoding="utf-8"), f"where this is meant, write it to {GOLDEN.name}:\n{found}"


def test_exit_codes() -> None:
    kinds = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ImgrecError)
    }
    assert kinds == EXIT_CODES


def test_the_page_of_exit_codes_tells_the_same(root: Path) -> None:
    page = (root / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|[^|]*\|([^|]*)\|", page, re.MULTILINE)
    told = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert told == EXIT_CODES
