"""What a search may try is checked value by value, before anything starts."""

from pathlib import Path

import pytest

from imgrec_cli.config import Space, load_config
from imgrec_cli.errors import ConfigError

BASE = """\
data: {folder: x}
model:
  type: layers
  layers:
    - {type: conv, filters: 8, kernel: 3}
    - {type: flatten}
optimizer: {type: adam}
"""


def space(tmp_path: Path, search: str, overrides: tuple[str, ...] = ()) -> Space:
    file = tmp_path / "c.yaml"
    file.write_text(f"{BASE}search:\n{search}", encoding="utf-8")
    return Space.read(file, overrides)


def problem(tmp_path: Path, search: str) -> str:
    with pytest.raises(ConfigError) as error:
        space(tmp_path, search)
    return error.value.message.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("search", "told"),
    [
        (
            "  optimizer.learnin_rate: {low: 1, high: 2}\n",
            "/c.yaml:9:33: search.optimizer.learnin_rate.low: unknown key; did you mean learning_rate?",
        ),
        (
            "  model.layers.4.filters: {choices: [3, 4]}\n",
            "there is no item 4; model.layers has 2 items, counted from 0",
        ),
        (
            "  optimizer.type: {choices: [adam, sdg]}\n",
            "/c.yaml:9:36: search.optimizer.type.choices[1]: must be one of",
        ),
        (
            "  train.epochs: {low: 5, high: 2}\n",
            "/c.yaml:9:32: search.train.epochs.high: must be above low, which is 5; got 2",
        ),
        (
            "  train.ema: {low: 0, high: 0.5, log: true}\n",
            "search.train.ema.low: must be above 0 with log: true, got 0",
        ),
        (
            "  train.ema: 0.5\n",
            "search.train.ema: expected {low: 1e-4, high: 1e-1, log: true} or {choices: [...]}, got 0.5",
        ),
        ("  train.ema: {low: 0.1}\n", "search.train.ema.high: is missing"),
        ("  data.split.validation: {choices: [10%, 20%]}\n", "cannot be searched: all trials are compared on the same"),
        (
            "  train.epochs: {low: 1, high: 9, step: 2}\n",
            "search.train.epochs.step: unknown key; known here: low, high, log",
        ),
    ],
)
def test_a_value_that_cannot_be_tried_is_told_at_its_place(tmp_path, search, told):
    assert told in problem(tmp_path, search)


def test_all_problems_at_once(tmp_path):
    found = problem(tmp_path, "  train.batch_size: {low: 0, high: 8}\n  image.size: {choices: [[8, 8], [8]]}\n")
    assert [line.split(": ")[1] for line in found.splitlines()] == [
        "search.train.batch_size.low",
        "search.image.size.choices[1]",
    ]


def test_a_config_without_a_search_is_told_how_to_begin(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(BASE, encoding="utf-8")
    with pytest.raises(ConfigError, match="has no search section") as error:
        Space.read(file)
    assert "search: {optimizer.learning_rate: {low: 1e-4, high: 1e-1, log: true}}" in error.value.hint


def test_a_trial_is_the_config_with_other_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = space(
        tmp_path,
        "  optimizer: {choices: [{type: adam}, {type: sgd, momentum: 0.9}]}\n"
        "  model.layers.0.filters: {low: 4, high: 64, log: true}\n",
        ("data.folder=elsewhere", "train.epochs=3"),
    )
    trial = found.of_trial({"optimizer": {"type": "sgd", "momentum": 0.9}, "model.layers.0.filters": 20})
    assert (trial.optimizer.type, trial.model.layers[0].filters, trial.train.epochs) == ("sgd", 20, 3)
    assert trial.search == {}
    assert trial.data.folder == str(tmp_path / "elsewhere")
    monkeypatch.chdir("/")
    assert found.of_trial({}).data.folder == str(tmp_path / "elsewhere")
    assert found.written_value("model.layers.0.filters") == 8
    assert found.written_value("model.layers.7") is None


def test_the_same_file_trains_as_it_is_written(tmp_path):
    space(tmp_path, "  train.epochs: {low: 1, high: 9}\n")
    assert load_config(tmp_path / "c.yaml").train.epochs == 10
