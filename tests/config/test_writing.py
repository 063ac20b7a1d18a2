"""Written configs read back equal: resolved, shipped, and made for a user's folder."""

import json
from pathlib import Path

import pytest

from imgrec_cli.config import json_schema, load_config, parse_config, resolved_yaml
from imgrec_cli.config.document import read_document
from imgrec_cli.config.writing import written

CONFIGS = Path(__file__).parents[2] / "configs"
EVERYTHING = """\
version: 1
seed: 7
data:
  {train: "1e-3/no #1: é", validation: ../v, test: /elsewhere/t, split: {validation: 12.5%, test: 0%}, group: '^(a+)_'}
image: {size: [20, 30], fit: pad, range: [0, 4095], standardize: {mean: [0.1, 0.2, 0.3], deviation: [1, 2, 3e-5]}}
augment:
  - {type: rotate, degrees: 1}
  - {type: shift, height: 0.1}
  - {type: shear, degrees: 2}
  - {type: zoom, range: [0.5, 1.5]}
  - {type: crop, area: [0.1, 1]}
  - {type: flip, axis: vertical}
  - {type: fill, mode: nearest}
  - {type: brightness, range: [1, 1]}
  - {type: contrast, range: [1, 1]}
  - {type: channel_shift, amount: 3}
model:
  type: layers
  layers: [{type: conv, filters: 2}, {type: pool}, {type: global_pool, kind: max}, {type: dropout, rate: 0}]
optimizer: {type: sgd, learning_rate: 1e-5, nesterov: true, momentum: 0.9}
train: {early_stopping: {metric: val/accuracy, min_delta: 1e-4}, precision: bfloat16}
runtime: {device: "gpu:1", threads: 3, backend: jax}
"""


def test_a_resolved_config_reads_back_equal_from_its_folder(tmp_path: Path) -> None:
    config = parse_config(EVERYTHING, "f", tmp_path / "configs")
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(resolved_yaml(config, folder), encoding="utf-8")
    assert load_config(folder / "config.yaml") == config


def test_a_resolved_config_holds_every_value_and_short_paths(tmp_path: Path) -> None:
    config = parse_config(EVERYTHING, "f", tmp_path / "configs")
    lines = resolved_yaml(config, tmp_path / "runs" / "one").splitlines()
    assert "  train: '../../configs/1e-3/no #1: é'" in lines
    assert f"  test: {Path('/elsewhere/t').absolute().as_posix()}" in lines
    assert "  split: {validation: 12.5%, test: 0%, fold: null, seed: null}" in lines
    assert "  batch_size: 32" in lines
    assert "- {type: shift, height: 0.1, width: 0.0, pixels: 0}" in lines


@pytest.mark.parametrize(
    "text", ["1e-3", "0o14", "012", "no", "~", "", "true", "- a", "a: b", "a #b", "é", "15%", "*a"]
)
def test_texts_stay_texts(text: str) -> None:
    assert read_document(f"a: {written(text)}", "f").value == {"a": text}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_point_to_the_schema_and_the_sample_data(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=./schema.json\n# Purpose  ")
    assert all(f"\n# {word}" in text for word in ("Cost", "Expect", f"Command  imgrec train configs/{path.name}"))
    assert load_config(path).data.folder == str(CONFIGS.parent / "data" / "fashion-mini")


def test_the_committed_schema_is_fresh() -> None:
    committed = json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8"))
    assert committed == json_schema(), "write it anew: imgrec config schema > configs/schema.json"
