"""What a command loads: answering must not wait for the packages that only training needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"tensorflow", "keras", "jax", "torch", "pydantic", "yaml", "matplotlib", "jinja2"}


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Top-level names of the modules that a new process holds after running `code` (sys.argv[1:] = arguments)."""
    script = (
        "import sys, json\n"
        "try:\n" + "".join(f"    {line}\n" for line in code.splitlines()) + "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


COMMAND = "from imgrec_cli.cli import main\nmain()"


def test_the_package_itself_loads_nothing_heavy() -> None:
    assert not loaded_by("import imgrec_cli") & (HEAVY | {"numpy", "PIL", "rich", "typer"})


def test_a_config_is_checked_without_the_training_packages() -> None:
    assert not loaded_by("from imgrec_cli import load_config") & (HEAVY - {"pydantic", "yaml"})


def test_the_classifier_loads_nothing_heavy() -> None:
    assert not loaded_by("from imgrec_cli import Classifier") & HEAVY


@pytest.mark.parametrize(
    "command", [[], ["train"], ["evaluate"], ["predict"], ["serve"], ["report"], ["explain"], ["config"], ["runs"]]
)
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    assert not loaded_by(COMMAND, *command, "--help") & (HEAVY | {"ai_edge_litert"})


@pytest.mark.tf  # only to train what is then used without TensorFlow
@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_predict_loads_nothing_heavy(tiny_run: Path, tiny_config: Path, form: str) -> None:
    image = tiny_config.parent / "shapes" / "circle" / "00.png"
    options = [] if form == "table" else ["--format", form]
    # and none of what the standard library takes long for: `email` comes with importlib.metadata
    assert not loaded_by(COMMAND, "predict", "-m", str(tiny_run), str(image), *options) & (HEAVY | {"email", "http"})


@pytest.mark.tf
def test_evaluate_loads_nothing_heavy(tiny_run: Path, tiny_config: Path) -> None:
    assert (
        not loaded_by(COMMAND, "evaluate", "-m", str(tiny_run / "bundle"), "--data", str(tiny_config.parent / "shapes"))
        & HEAVY
    )
