"""Classes by name: merged, included, excluded; and the word that may have been meant."""

import pytest

from imgrec_cli.config.images import Classes
from imgrec_cli.dataset.classes import class_of
from imgrec_cli.errors import DataError

NAMES = ("ant", "bee", "unsorted", "wasp")


def asked(**keys: object) -> Classes:
    return Classes.model_validate(keys)


def test_merge_comes_before_include_and_exclude() -> None:
    assert class_of(NAMES, asked()) == {name: name for name in NAMES}
    merged = asked(merge={"insect": ["bee", "wasp"]}, exclude=["unsorted"])
    assert class_of(NAMES, merged) == {"ant": "ant", "bee": "insect", "unsorted": None, "wasp": "insect"}
    included = asked(merge={"insect": ["bee", "wasp"]}, include=["insect", "ant"])
    assert class_of(NAMES, included) == class_of(NAMES, merged)
    into_another = asked(merge={"ant": ["bee"]})
    assert class_of(NAMES, into_another)["bee"] == "ant"


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ({"exclude": ["unsorte"]}, "data.classes.exclude: no class is named unsorte", "did you mean unsorted?"),
        ({"merge": {"x": ["bees"]}}, "data.classes.merge: no class is named bees", "did you mean bee?"),
        (
            {"include": ["hornet"]},
            "data.classes.include: no class is named hornet",
            "the classes here are ant, bee, unsorted, wasp",
        ),
        (
            {"exclude": ["ant"], "titles": {"ant": "Ant"}},
            "data.classes.titles: no class is named ant",
            "the classes here are bee, unsorted, wasp",
        ),
        (
            {"merge": {"insect": ["bee"]}, "other": ["bee"]},
            "data.classes.other: no class is named bee",
            "the classes here are ant, insect, unsorted, wasp",
        ),
    ],
)
def test_names_that_nothing_has(keys: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        class_of(NAMES, asked(**keys))
    assert (caught.value.message, caught.value.hint) == (message, hint)
