"""Imports point down: a line in the wrong room is found here, before it becomes a habit (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "imgrec_cli"

# Rooms from top to bottom; a room may import from lower rows, and from its own row as long as no circle arises.
ROWS = (
    ("__main__",),
    ("cli",),
    ("api",),
    (
        *("training", "reporting", "serving", "sheets", "evaluation", "stress", "explanation", "origin", "answers"),
        *("tracking", "comparison", "judged", "repeats", "study"),
    ),
    ("classifier", "dataset"),
    ("engines",),
    ("imaging", "storage", "metrics", "bundle", "rundir", "config"),
    ("errors", "progress", "machine", "atomic", "wording"),
)
HEIGHT = {room: -height for height, row in enumerate(ROWS) for room in row}

# Reading a config loads pydantic and PyYAML, which a predict must not wait for.
ONLY_FROM = {"config": {"cli", "api", "training", "dataset", "origin", "study"}}

# Third-party packages and the rooms that answer for them.
HOMES = {
    "keras": {"training"},
    "tensorflow": {"training"},
    "jax": {"training"},
    "mlflow": {"tracking"},
    "pydantic": {"config", "serving"},
    "yaml": {"config"},
    "typer": {"cli"},
    "rich": {"cli"},
    "ai_edge_litert": {"engines"},
    "onnxruntime": {"engines"},
    "tflite_micro": {"training"},
    "matplotlib": {"reporting"},
    "optuna": {"study"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "prometheus_client": {"serving"},
    "fsspec": {"storage"},
    "xxhash": {"imaging"},
    "threadpoolctl": {"dataset"},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a file, wherever it stands in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def arrows() -> Iterator[tuple[str, str, str]]:
    """(where, room, imported room) of every import between two rooms."""
    for path in sources():
        if path == PACKAGE / "__init__.py":
            continue  # hands out the public names when they are asked for
        for line, name in imported(path):
            parts = name.split(".")
            if parts[0] == "imgrec_cli" and parts[1] in HEIGHT and parts[1] != room_of(path):
                yield f"{path.relative_to(PACKAGE.parent)}:{line}", room_of(path), parts[1]


def test_every_source_file_belongs_to_a_room() -> None:
    unknown = {room_of(path) for path in sources()} - HEIGHT.keys() - {"__init__"}
    assert not unknown, f"give {sorted(unknown)} a row in ROWS and in docs/architecture.md"


def test_no_import_points_up() -> None:
    wrong = [f"{where}: {room} imports {other}" for where, room, other in arrows() if HEIGHT[room] < HEIGHT[other]]
    assert not wrong, "\n".join(wrong)


def test_no_circle_between_rooms() -> None:
    graph: dict[str, set[str]] = {}
    for _, room, other in arrows():
        graph.setdefault(room, set()).add(other)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_rooms_with_a_closed_door() -> None:
    wrong = [
        f"{where}: {room} imports {other}"
        for where, room, other in arrows()
        if other in ONLY_FROM and room not in ONLY_FROM[other]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", HOMES)
def test_third_party_packages_stay_in_their_room(package: str) -> None:
    users = {room_of(path) for path in sources() for _, name in imported(path) if name.split(".")[0] == package}
    assert users <= HOMES[package]


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
        for path in sources()
        if room_of(path) != "cli"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.stdout.write", "sys.stderr.write"}
    ]
    assert not wrong, "the library reports through progress.Listener: " + ", ".join(wrong)
