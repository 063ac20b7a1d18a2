"""The shipped configs: each loads, and the articles' networks have exactly the articles' numbers of parameters."""

import math
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
RECIPES = ("fashion-mnist", "cifar10", "photos-from-scratch", "photos-transfer")
# Trainable parameters with as many classes as published: torchvision's pages of its models, which have those of the
# papers; ResNet-20 by the formula of He et al. 2015, section 4.2 (0.27 million), and option B's projections
NETWORKS = {
    "alexnet": (1000, 61_100_840),
    "resnet-18": (1000, 11_689_512),
    "resnet-34": (1000, 21_797_672),
    "resnet-50": (1000, 25_557_032),
    "resnet-20": (10, 269_722 + 2_752),
}


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    assert load_config(path).version == 1


def test_the_set_of_configs() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {"quickstart", *PARAMETERS, *RECIPES}
    assert {path.stem for path in CONFIGS.glob("networks/*.yaml")} == set(NETWORKS)


def test_the_recipe_of_fashion_mnist_has_fewer_than_100_000_parameters() -> None:
    config = load_config(CONFIGS / "fashion-mnist.yaml")
    assert sum(row.parameters for row in layer_table(config, 10)) < 100_000


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


@pytest.mark.tf
@pytest.mark.parametrize("name", NETWORKS)
def test_cited_networks_have_the_published_number_of_parameters(name: str) -> None:
    from imgrec_cli.training.model import shipped_model

    config = load_config(CONFIGS / "networks" / f"{name}.yaml", ["train.precision=float32", "image.standardize=off"])
    classes, published = NETWORKS[name]
    model = shipped_model(config, classes)
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == published
    assert model.count_params() == sum(row.parameters for row in layer_table(config, classes))
