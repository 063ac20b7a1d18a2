"""Which image trains, chooses the model or judges it: what the config says, applied to the images that were found."""

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from imgrec_cli.dataset.corrections import Corrected
from imgrec_cli.dataset.pack import Facts
from imgrec_cli.dataset.scan import Example, Listing
from imgrec_cli.dataset.split import assign, folds, groups_of
from imgrec_cli.dataset.walk import Split
from imgrec_cli.errors import DataError

if TYPE_CHECKING:
    from imgrec_cli.config.images import Data


def assigned_splits(
    corrected: Corrected, facts: list[Facts], data: "Data", seed: int, leaked: Set[int] = frozenset()
) -> dict[int, Split]:
    """The split of every image that can be read and is not left out, by its place in the listing; `leaked` are places
    that are left out, after the cut, because their pictures stand in a later split.

    Raises DataError where a class has no training image, or no image is left to choose the model.
    """
    listing = corrected.listing
    assigned = {
        place: example.split
        for place, example in enumerate(listing.examples)
        if not facts[place].reason and place not in corrected.excluded
    }
    training = [place for place, split in assigned.items() if split == "train"]
    labels = [listing.examples[place].label for place in training]
    present = set(labels)
    for label, name in enumerate(listing.class_names):
        if label not in present:
            row = next(
                (row for row, one in enumerate(listing.examples) if one.label == label and facts[row].reason), None
            )
            if row is None:
                raise DataError(
                    f"no training image of {name} is left: corrections take them all",
                    f"leave the class out: --set data.classes.exclude=[{name}]",
                )
            raise DataError(
                f"no training image of {name} can be read, such as {listing.examples[row].file}: {facts[row].reason}",
                "replace the damaged files, or remove the class",
            )
    seed = seed if data.split.seed is None else data.split.seed
    if data.split.fold is not None:
        for place in _fold(training, listing, facts, data, seed):
            assigned[place] = "test"
        training = [place for place in training if assigned[place] == "train"]
    splits = assign(
        *_what_decides(training, listing, facts),
        groups=groups_by_config([listing.examples[place] for place in training], data),
        seed=seed,
        validation=None if "validation" in listing.given else data.split.validation,
        test=None if "test" in listing.given or data.split.fold is not None else data.split.test,
    )
    assigned.update(zip(training, splits, strict=True))
    if "validation" not in assigned.values():
        raise _no_validation(listing, facts, data)
    return _without(leaked, assigned, listing) if leaked else assigned


def _without(leaked: Set[int], assigned: dict[int, Split], listing: Listing) -> dict[int, Split]:
    """The same without the copies. Raises DataError where they were all that a class or the validation had."""
    left = {place: split for place, split in assigned.items() if place not in leaked}
    trained = {listing.examples[place].label for place, split in left.items() if split == "train"}
    lacking = [f"training image of {name}" for label, name in enumerate(listing.class_names) if label not in trained]
    lacking += [] if "validation" in left.values() else ["validation image"]
    if lacking:
        raise DataError(
            f"no {lacking[0]} is left: all are copies of images of a later split, left out as data.on_leak says",
            "add images that are no copies; imgrec data check shows those that are",
        )
    return left


def _what_decides(places: list[int], listing: Listing, facts: list[Facts]) -> tuple[list[str], list[int], list[str]]:
    """Paths, labels and identities of images, from which their splits follow; an unseen image equals no other."""
    examples = [listing.examples[place] for place in places]
    identities = [facts[place].identity or example.file for place, example in zip(places, examples, strict=True)]
    return [e.path for e in examples], [e.label for e in examples], identities


def _fold(places: list[int], listing: Listing, facts: list[Facts], data: "Data", seed: int) -> list[int]:
    """The places of the images that judge in the round that `data.split.fold` names."""
    fold = data.split.fold
    assert fold is not None  # noqa: S101 - for the type checker; the caller asked
    if "test" in listing.given:
        raise DataError(
            "data.split.fold: the folder has test images of its own, and folds are cut from the training images",
            "name the training images alone, such as data.folder=DIR/train; the test images then stay untouched",
        )
    groups = groups_by_config([listing.examples[place] for place in places], data)
    numbers = folds(*_what_decides(places, listing, facts), groups=groups, seed=seed, number=fold.of)
    judging = [place for place, number in zip(places, numbers, strict=True) if number == fold.number - 1]
    if not judging:
        raise DataError(
            f"data.split.fold: nothing is left for part {fold.number} of {fold.of}",
            f"that many parts take a class with {fold.of} {_units(data)}: take fewer",
        )
    left = {listing.examples[place].label for place in places} - {
        listing.examples[place].label
        for place, number in zip(places, numbers, strict=True)
        if number != fold.number - 1
    }
    if left:
        name = listing.class_names[min(left)]
        raise DataError(
            f"data.split.fold: all images of {name} are in part {fold.number}, which leaves nothing of it to train on",
            f"a class needs two {_units(data)} at least: add images, or leave it out with data.classes.exclude",
        )
    return judging


def _no_validation(listing: Listing, facts: list[Facts], data: "Data") -> DataError:
    given = [place for place, example in enumerate(listing.examples) if example.split == "validation"]
    damaged = next((place for place in given if facts[place].reason), None)
    if damaged is not None:
        return DataError(
            f"no validation image can be read, such as {listing.examples[damaged].file}: {facts[damaged].reason}",
            "validation images choose the best weights: replace the damaged files",
        )
    if given:
        return DataError(
            "no validation image is left: corrections take them all",
            "validation images choose the best weights: add others",
        )
    return DataError(
        f"no validation images: no class could be divided, which takes three {_units(data)}",
        "they choose the best weights: add images, or name folders for both: data.train and data.validation",
    )


def thin_splits(listing: Listing, examples: tuple[Example, ...], data: "Data") -> list[str]:
    """Warnings about classes of which nothing was set aside, where something should have been."""
    warnings = []
    for split, share in (("validation", data.split.validation), ("test", data.split.test)):
        found = {example.label for example in examples if example.split == split}
        lacking = [name for label, name in enumerate(listing.class_names) if label not in found]
        if lacking and share and split not in listing.given:
            named, fold = ", ".join(lacking), data.split.fold
            if split == "test" and fold is not None:
                warnings.append(f"no {named} in part {fold.number}: that takes {fold.of} {_units(data)} of a class")
                continue
            warnings.append(f"no {split} images of {named}: a class needs three {_units(data)} to be divided")
    return warnings


def groups_by_config(examples: Sequence[Example], data: "Data") -> list[str] | None:
    """The manifest's group where it has one, else what `data.group` captures; that must match every image to be cut."""
    if data.group is None and not any(example.group for example in examples):
        return None
    by_name = [example.path for example in examples if not example.group]
    found = iter(by_name if data.group is None else groups_of(by_name, data.group))
    return [example.group or next(found) for example in examples]


def _units(data: "Data") -> str:
    return "images that differ" if data.group is None else "groups"
