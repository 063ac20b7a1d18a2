"""The classes that a config asks for, from the names of folders and labels: merged, included, excluded."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from imgrec_cli.dataset.walk import natural_order
from imgrec_cli.errors import DataError

if TYPE_CHECKING:  # config imports pydantic, and `imgrec evaluate` has to start without it
    from imgrec_cli.config.images import Classes


def class_of(names: Iterable[str], classes: "Classes") -> dict[str, str | None]:
    """Each name of a folder or label with the class it stands for, None where that is left out; all in NFC.

    Raises DataError, with the word that may have been meant, for a name in `classes` that no image has.
    """
    names = sorted(names, key=natural_order)
    merged = {member: target for target, members in classes.merge.items() for member in members}
    found = {name: merged.get(name, name) for name in names}
    after = set(found.values())
    for key, wanted, known in (
        ("merge", list(merged), set(names)),
        ("include", classes.include or (), after),
        ("exclude", classes.exclude, after),
    ):
        _check_known(f"data.classes.{key}", wanted, known)
    kept = {
        name for name in after if name not in classes.exclude and (classes.include is None or name in classes.include)
    }
    _check_known("data.classes.titles", classes.titles, kept)
    _check_known("data.classes.other", classes.other, kept)
    return {name: target if target in kept else None for name, target in found.items()}


def _check_known(key: str, wanted: Iterable[str], known: set[str]) -> None:
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            listed = ", ".join(sorted(known, key=natural_order)[:20])
            raise DataError(
                f"{key}: no class is named {name}",
                f"did you mean {near[0]}?" if near else f"the classes here are {listed}",
            )
