"""Combinations that cannot work are refused, and only those."""

from pathlib import Path

import pytest

from imgrec_cli.config import parse_config
from imgrec_cli.errors import ConfigError

DATA = "data: {folder: x}\n"
MODEL = "model: {type: layers, layers: [{type: flatten}]}\n"


def problems(text: str) -> list[str]:
    """Messages without the file's name and place."""
    try:
        parse_config(text, "f", Path("/base"))
    except ConfigError as error:
        return [line.split(": ", 1)[1] for line in error.message.splitlines()]
    return []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("{folder: x}", []),
        ("{train: x}", []),
        ("{train: x, validation: y, test: z}", []),
        ("{folder: x, split: {validation: 0%}}", []),
        ("{train: x, validation: y, split: {validation: 0%}}", []),
        ("{train: x, test: z, split: {validation: 60%, test: 60%}}", []),
        ("{split: {test: 10%}}", ["data: names no images; set data.folder to a folder with one folder per class"]),
        ("{test: x}", ["data.test: needs data.train beside it"]),
        (
            "{folder: x, test: y}",
            ["data.test: cannot stand beside data.folder; keep either folder, or train with validation and test"],
        ),
        (
            "{folder: x, split: {validation: 50%, test: 50%}}",
            ["data.split: validation and test take 100%, which leaves nothing to train on"],
        ),
        (
            "{train: x, split: {validation: 0%}}",
            [
                "data.split.validation: must be above 0% unless data.validation is given; "
                "validation images choose the best weights"
            ],
        ),
        ("{foldr: x}", ["data.foldr: unknown key; did you mean folder?"]),
    ],
)
def test_sources_of_images(data: str, told: list[str]) -> None:
    assert problems(f"data: {data}\n{MODEL}") == told


@pytest.mark.parametrize(
    ("augment", "told"),
    [
        ("[{type: rotate, degrees: 9}, {type: fill, mode: constant, value: 255}]", []),
        ("[{type: fill, mode: reflect}, {type: zoom, range: [1, 1]}]", []),
        (
            "[{type: flip}, {type: fill, mode: nearest}]",
            ["augment[1]: fill has nothing to do without rotate, shift, shear, zoom or randaugment"],
        ),
        (
            "[{type: shift}, {type: fill, mode: nearest}, {type: fill, mode: reflect}]",
            ["augment[2]: fill stands here a second time; augment[1] says it already"],
        ),
        (
            "[{type: shift, pixels: 9999, height: 0.1}]",
            [
                "augment[0]: says pixels and height or width; keep one of the two",
                "augment[0].pixels: must be below the 224 pixels of image.size, got 9999",
            ],
        ),
        (
            "[{type: shift}, {type: fill, mode: nearest, value: 9}]",
            ["augment[1].value: is used with mode: constant only, got mode: nearest"],
        ),
        ("[{type: mixup}, {type: cutmix}, {type: randaugment}, {type: fill, mode: reflect}]", []),
        (
            "[{type: mixup, share: 0.6}, {type: cutmix, share: 0.5}]",
            ["augment[1].share: mixup and cutmix change different pictures: their shares are at most 1 together"],
        ),
        ("[{type: erase}, {type: erase}]", ["augment[1]: erase stands here a second time; keep augment[0] or this"]),
    ],
)
def test_fill(augment: str, told: list[str]) -> None:
    assert problems(f"{DATA}{MODEL}augment: {augment}") == told


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("{color: gray, standardize: {mean: [0.5], deviation: [0.2]}}", []),
        ("{standardize: {mean: [0, 0, 0], deviation: [1, 1, 1]}}", []),
        (
            "{standardize: {mean: [0.5], deviation: [1, 1, 1]}}",
            ["image.standardize.mean: needs 3 numbers for image.color: rgb, got 1"],
        ),
        (
            "{color: gray, standardize: {mean: [0.5], deviation: [1, 1]}}",
            ["image.standardize.deviation: needs 1 number for image.color: gray, got 2"],
        ),
    ],
)
def test_statistics_per_channel(image: str, told: list[str]) -> None:
    assert problems(f"{DATA}{MODEL}image: {image}") == told


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ("{type: conv, filters: 2, kernel: 9}, {type: global_pool}", []),
        ("{type: conv, filters: 2, kernel: 11, padding: same}, {type: flatten}", []),
        ("{type: flatten}, {type: dropout, rate: 0.5}, {type: batch_norm}", []),
        (
            "{type: conv, filters: 2, kernel: 10}, {type: flatten}",
            ["model.layers[0]: a kernel of 10 by 10 is larger than the 9 by 12 map"],
        ),
        (
            "{type: pool, size: 4}, {type: pool, size: 3}, {type: flatten}",
            ["model.layers[1]: a window of 3 by 3 is larger than the 2 by 3 map"],
        ),
        (
            "{type: dense, units: 3}, {type: flatten}",
            [
                "model.layers[0]: dense wants one row of numbers, not a map; "
                "put {type: flatten} or {type: global_pool} before it"
            ],
        ),
        (
            "{type: flatten}, {type: conv, filters: 3}",
            ["model.layers[1]: conv wants a map, but flatten, global_pool or dense before it left none"],
        ),
        (
            "{type: global_pool}, {type: flatten}",
            ["model.layers[1]: flatten wants a map, but flatten, global_pool or dense before it left none"],
        ),
        (
            "{type: conv, filters: 3}",
            ["model.layers: end in a map; put {type: flatten} or {type: global_pool} after the last one"],
        ),
    ],
)
def test_layers(layers: str, told: list[str]) -> None:
    assert problems(f"{DATA}image: {{size: [9, 12]}}\nmodel: {{type: layers, layers: [{layers}]}}") == told


def test_rules_are_asked_wherever_their_own_keys_are_right() -> None:
    text = """\
data: {folder: x, train: y, group: 5, split: {validation: 50%, test: 60%}}
image: {size: [8, 8], fit: 5, color: gray, standardize: {mean: [0, 0], deviation: [1]}}
augment: [{type: fill, mode: nearest}]
model: {type: layers, layers: [{type: pool, size: 9}, {type: flatten}]}
optimizer: {type: sgd, momentum: 1}
train: {early_stopping: {patience: x}}
"""
    assert problems(text) == [
        "data.train: cannot stand beside data.folder; keep either folder, or train with validation and test",
        "data.group: expected a text, got 5; put ./ before it",
        "data.split: validation and test take 110%, which leaves nothing to train on",
        "image.fit: must be one of stretch, crop, pad, got 5",
        "image.standardize.mean: needs 1 number for image.color: gray, got 2",
        "augment[0]: fill has nothing to do without rotate, shift, shear, zoom or randaugment",
        "model.layers[0]: a window of 9 by 9 is larger than the 8 by 8 map",
        "optimizer.momentum: must be below 1, got 1",
        "train.early_stopping.patience: expected a whole number, got the text 'x'",
    ]


def test_rules_are_silent_about_keys_that_are_wrong_themselves() -> None:
    model = "model: {type: layers, layers: [{type: pool, size: 9}, {type: flatten}]}"
    assert problems(f"{DATA}image: {{size: [4, a]}}\n{model}") == [
        "image.size[1]: expected a whole number, got the text 'a'"
    ]
