"""The shipped configs: each loads, and the articles' networks have exactly the articles' numbers of parameters."""

from pathlib import Path

import pytest

from imgrec_cli.config import layer_table, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
PARAMETERS = {  # with ten classes
    "document-000": 88_709_194,
    "document-001": 37_984_330,
    "document-002": 11_132_618,
    "document-003": 121_930,
    "document-004": 93_322,
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    assert load_config(path).version == 1


def test_the_set_of_configs() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {"quickstart", *PARAMETERS}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_without_tensorflow(name: str) -> None:
    table = layer_table(load_config(CONFIGS / f"{name}.yaml"), 10)
    assert sum(row.parameters for row in table) == PARAMETERS[name]


@pytest.mark.tf
@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_keras_models(name: str) -> None:
    from imgrec_cli.training.model import shipped_model, training_model

    config = load_config(CONFIGS / f"{name}.yaml", ["train.precision=float32"])  # as a run resolves `auto`
    assert training_model(config, 10).count_params() == PARAMETERS[name]
    assert shipped_model(config, 10).count_params() == PARAMETERS[name]
