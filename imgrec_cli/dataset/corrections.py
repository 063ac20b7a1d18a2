"""Corrections: a CSV file of images to leave out or to label otherwise; the images themselves are never touched.

Its columns are path, action (exclude or relabel), label, note, hash. A path is the end of the image's path, as long as
the sheets show it; the hash (BLAKE2b of the file's bytes, 32 hexadecimal digits) says which picture was looked at, so a
correction follows its picture when folders are moved, and is not applied to another picture. A relabel to the label
that the image has says that somebody looked and found it right.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.dataset.manifest import table
from imgrec_cli.dataset.scan import Listing
from imgrec_cli.dataset.walk import nfc
from imgrec_cli.errors import DataError

if TYPE_CHECKING:  # config imports pydantic, and `imgrec evaluate` has to start without it
    from imgrec_cli.config.images import Data

COLUMNS = ("path", "action", "label", "note", "hash")
ACTIONS = ("exclude", "relabel")


@dataclass(frozen=True, slots=True)
class Correction:
    """One line of the file; `label` and `hash` may be empty."""

    line: int
    path: str
    action: str
    label: str
    note: str
    hash: str


@dataclass(frozen=True, slots=True)
class Corrected:
    """What corrections made of a listing: labels are changed in `listing`, `excluded` are places of its examples.

    `decided` are the places that any correction speaks of. `changed` are the paths of corrections whose picture is
    another one now, `missing` of those that no image fits.
    """

    listing: Listing
    excluded: frozenset[int]
    decided: frozenset[int]
    relabelled: int
    changed: tuple[str, ...]
    missing: tuple[str, ...]


def read_corrections(file: Path) -> list[Correction]:
    """The lines of a file of corrections. Raises DataError with the line for whatever is wrong in it."""
    corrections: list[Correction] = []
    seen: dict[tuple[str, str], int] = {}
    for line, values in table(file, "data.corrections"):
        unknown = [key for key in values if key not in COLUMNS]
        lacking = [key for key in ("path", "action") if key not in values]
        if unknown or lacking:
            raise DataError(
                f"{file}:1: its columns are {', '.join(values)}", f"those of corrections are {', '.join(COLUMNS)}"
            )
        cells = {key: nfc(values.get(key, "").strip()) for key in COLUMNS}
        one = Correction(line, **{**cells, "path": cells["path"].replace("\\", "/").removeprefix("./")})
        if one.action not in ACTIONS:
            raise DataError(f"{file}:{line}: action is {one.action!r}", "write exclude or relabel")
        if not one.path:
            raise DataError(f"{file}:{line}: path is empty", "it is the end of the image's path, such as cat/1.png")
        if (one.action == "relabel") != bool(one.label):
            raise DataError(f"{file}:{line}: {one.action} with label {one.label!r}", "relabel needs one, exclude none")
        first = seen.setdefault((one.path, one.hash), line)
        if first != line:
            raise DataError(f"{file}:{line}: {one.path} stands on line {first} already", "keep one of the lines")
        corrections.append(one)
    return corrections


def correct(listing: Listing, digests: Sequence[str], data: "Data") -> Corrected:
    """Apply the config's corrections; `digests` are those of the examples' files, empty where they are not known.

    Raises DataError for a label that is no class, and for a path without a hash that fits several images.
    """
    if data.corrections is None:
        return Corrected(listing, frozenset(), frozenset(), 0, (), ())
    file = Path(data.corrections)
    merged = {member: target for target, members in data.classes.merge.items() for member in members}
    labels = {name: label for label, name in enumerate(listing.class_names)}
    by_name: dict[str, list[int]] = {}
    by_digest: dict[str, list[int]] = {}
    ends = [nfc("/" + example.file.replace("\\", "/")) for example in listing.examples]
    for place, (end, digest) in enumerate(zip(ends, digests, strict=True)):
        by_name.setdefault(end.rpartition("/")[2], []).append(place)
        by_digest.setdefault(digest, []).append(place)
    examples = list(listing.examples)
    excluded: set[int] = set()
    decided: dict[int, Correction] = {}
    changed, missing = [], []
    for one in read_corrections(file):
        fitting = [
            place for place in by_name.get(one.path.rpartition("/")[2], []) if ends[place].endswith(f"/{one.path}")
        ]
        same = by_digest.get(one.hash, []) if one.hash else []
        known = [place for place in fitting if digests[place]]
        if not one.hash or (fitting and not known):
            places = fitting
        else:
            # moved pictures have another path: any of the same content then
            places = [place for place in fitting if place in same] or same
        if one.hash and fitting and not places:
            changed.append(one.path)
            continue
        if not places:
            missing.append(one.path)
            continue
        if len(places) > 1 and not one.hash:
            raise DataError(
                f"{file}:{one.line}: {one.path} fits {len(places)} images, such as {examples[places[0]].file}",
                "write more of the path, or the picture's hash",
            )
        label = labels.get(merged.get(one.label, one.label))
        if one.action == "relabel" and label is None:
            near = difflib.get_close_matches(one.label, labels, 1)
            advice = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(list(labels)[:20])}"
            raise DataError(f"{file}:{one.line}: no class is named {one.label}", advice)
        for place in places:
            before = decided.setdefault(place, one)
            if (before.action, before.label) != (one.action, one.label):
                raise DataError(f"{file}:{one.line}: line {before.line} says otherwise of the same picture, {one.path}")
            if label is None:
                excluded.add(place)
            else:
                examples[place] = replace(examples[place], label=label)
    relabelled = sum(new.label != old.label for new, old in zip(examples, listing.examples, strict=True))
    return Corrected(
        replace(listing, examples=tuple(examples)),
        frozenset(excluded),
        frozenset(decided),
        relabelled,
        tuple(changed),
        tuple(missing),
    )
