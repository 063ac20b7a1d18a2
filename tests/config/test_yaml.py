"""The strict reader: YAML 1.2's words, places, and what is refused."""

import pytest

from imgrec_cli.config.document import dotted, plain_scalar, read_document
from imgrec_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", float("-inf")),
        ("012", 12),
        ("+7", 7),
        ("0o14", 12),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("0b11", "0b11"),
        ("=", "="),
        ("15%", "15%"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    read = plain_scalar(text)
    assert (read, type(read)) == (value, type(value))


def test_quoted_words_are_texts() -> None:
    assert read_document("a: '1e-3'\nb: \"true\"\nc: |\n  1\n", "f").value == {"a": "1e-3", "b": "true", "c": "1\n"}


def test_keys_are_texts_as_they_are_written() -> None:
    assert read_document("on: 1\n012: 2\n", "f").value == {"on": 1, "012": 2}


def test_places_count_from_one() -> None:
    document = read_document("a:\n  - {b: [1,\n     2]}\n", "f.yaml")
    assert str(document.place_of(("a", 0, "b", 1))) == "f.yaml:3:6"
    assert str(document.keys["a", 0, "b"]) == "f.yaml:2:6"
    assert str(document.place_of(("a", 0, "missing", 7))) == "f.yaml:2:5"


def test_paths_read_as_users_write_them() -> None:
    assert dotted(("augment", 0, "degrees")) == "augment[0].degrees"
    assert dotted(("train", "two\nlines")) == "train.'two\\nlines'"


def test_duplicate_keys_are_collected_and_the_first_is_kept() -> None:
    document = read_document("a: {x: 1}\nb: 2\na: {x: [3], y: 4, y: 5}\n", "f.yaml")
    assert document.value == {"a": {"x": 1}, "b": 2}
    assert str(document.place_of(("a", "x"))) == "f.yaml:1:8"
    assert [str(problem) for problem in document.problems] == [
        "f.yaml:3:1: a: is written twice; the first is on line 1, keep one of them",
        "f.yaml:3:19: a.y: is written twice; the first is on line 3, keep one of them",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x\n", "f:2:4: aliases such as *x are not supported; write the value out"),
        (
            "a: !!python/object:os.system x\n",
            "f:1:4: tags such as !!python/object:os.system are not supported; leave it out",
        ),
        ("a: 1\n---\nb: 2\n", "f:2:1: a second document begins here; a config is one document"),
        ("a: 1\n? [b]\n: c\n", "f:2:3: expected a key, a plain word"),
        ("a: " + "[" * 100_000, "f:1:24: nested more than 20 levels deep"),
        ("a:\n\tb: 1\n", "f:2:1: not valid YAML: a tab stands where YAML wants spaces"),
        ("a: [1, 2\n", "f:2:1: not valid YAML: expected ',' or ']', but got '<stream end>'; a [ is never closed"),
        (
            "a:\n  b: 1\n   c: 2\n",
            "f:3:5: not valid YAML: mapping values are not allowed here; check the indentation, the space after each "
            "colon, or quotes around a text that holds ': '",
        ),
        (
            "a:\n  b: 1\n  c:2\n",
            "f:3:3: not valid YAML: could not find expected ':'; a key needs a colon and a space after it, "
            "as in epochs: 10",
        ),
        ("a: 1\nb: \x07\n", "f:2:4: the character U+0007 is not allowed in YAML"),
    ],
)
def test_refusals_are_located(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_document(text, "f")
    assert caught.value.message == message
