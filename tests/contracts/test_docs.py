"""What the documents promise is there: files, commands, keys, versions."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [path for path in ROOT.rglob("*.md") if not {".venv", "runs", "node_modules"} & set(path.parts)]


def blocks(language: str) -> list[str]:
    """The fenced blocks of README in one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)


def test_readme_has_one_line_per_source_file() -> None:
    told = re.findall(r"^(imgrec_cli/\S+\.py) +\S", README, re.MULTILINE)
    there = [path.relative_to(ROOT).as_posix() for path in (ROOT / "imgrec_cli").rglob("*.py") if path.stat().st_size]
    assert sorted(told) == sorted(there)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_two_commands_are_one_line_each() -> None:
    first, second = blocks("sh")[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert first.startswith("python3 -m venv .venv && ")
    assert first.rstrip().endswith("imgrec train configs/quickstart.yaml")
    assert second.rstrip().endswith("pytest")


def test_commands_in_readme_exist() -> None:
    from imgrec_cli.cli import app

    lines = [
        line.strip() for block in blocks("sh") for line in block.splitlines() if line.strip().startswith("imgrec ")
    ]
    assert lines
    for line in lines + re.findall(r"`(imgrec [^`]+)`", README):
        command: Any = typer.main.get_command(app)
        words = line.split()[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not getattr(command, "commands", None) or not words, f"no such command: {line}"
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if re.match("--?[a-z]", word)} <= options, line


def test_the_config_in_one_page_is_a_config(tmp_path: Path) -> None:
    from imgrec_cli.config import load_config

    (page,) = blocks("yaml")
    file = tmp_path / "page.yaml"
    file.write_text(page, encoding="utf-8")
    assert load_config(file).train.early_stopping


def test_the_config_in_one_page_names_every_section() -> None:
    from imgrec_cli.config import Config

    (page,) = blocks("yaml")
    assert set(re.findall(r"^(\w+):", page, re.MULTILINE)) == set(Config.model_fields)


def test_constraints_pin_what_pyproject_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {
        canonicalize_name(name): version
        for name, version in re.findall(
            r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    extras = project["optional-dependencies"]
    for text in project["dependencies"] + extras["train"] + extras["serve"] + extras["dev"]:
        wanted = Requirement(text)
        if wanted.name != "imgrec":
            assert pins[canonicalize_name(wanted.name)] in wanted.specifier, text


def test_every_command_of_the_articles_page_is_a_config() -> None:
    from imgrec_cli.config import load_config

    page = (ROOT / "docs" / "from-the-articles.md").read_text(encoding="utf-8")
    base = "imgrec train configs/document-003.yaml"
    commands = [
        found.replace("A ", f"{base} ", 1) if found.startswith("A ") else found
        for found in re.findall(r"`((?:A|imgrec train) [^`]+)`", page)
    ]
    with_a_change = [
        words for words in map(shlex.split, commands) if "--set" in words and words[2].startswith("configs/")
    ]
    assert len(with_a_change) >= 28
    plain = load_config(ROOT / "configs" / "document-003.yaml")
    for words in with_a_change:
        config = load_config(ROOT / words[2], [words[i + 1] for i, word in enumerate(words) if word == "--set"])
        assert config != plain, words
