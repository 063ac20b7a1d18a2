"""Which images train, which choose the model and which judge it: a pure function of names, labels and pixels."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from imgrec_cli.dataset.walk import Split
from imgrec_cli.errors import DataError


@dataclass(slots=True)
class _Unit:
    """Images that must stay together; `sizes` counts them by class."""

    order: bytes
    members: list[int]
    sizes: dict[int, int]  # a Counter for each of a million images takes twenty seconds
    split: Split = "train"

    @property
    def main(self) -> int:
        """The class with the most images, the first of equal ones."""
        if len(self.sizes) == 1:
            return next(iter(self.sizes))
        return max(self.sizes, key=lambda label: (self.sizes[label], -label))


def groups_of(paths: Sequence[str], pattern: str) -> list[str]:
    """What the pattern's one capture finds in each path. Raises DataError where it finds nothing."""
    search = re.compile(pattern).search
    groups = [match[1] if (match := search(path)) else None for path in paths]
    unmatched = [path for path, group in zip(paths, groups, strict=True) if group is None]
    if unmatched:
        raise DataError(
            f"data.group: {pattern} does not match {len(unmatched):,} of {len(paths):,} paths, such as {unmatched[0]}",
            "every image needs a group: widen the expression, which is searched for anywhere in such a path",
        )
    return [group for group in groups if group is not None]


def assign(
    paths: Sequence[str],
    labels: Sequence[int],
    identities: Sequence[Hashable],
    *,
    groups: Sequence[str] | None,
    seed: int,
    validation: float | None,
    test: float | None,
) -> list[Split]:
    """The split of each image. All sequences are of one length.

    Within a class, images are ordered by the BLAKE2b hash of (seed, group or else path). The first `test` of them (a
    share of the class, rounded half up) judge, the next `validation` choose the model, at least one each where the
    class has three units; None means that no images are to be taken. A unit is what stays together: all images of a
    group, and all images with the same `identities`, also where one leads to the other. A larger unit is
    taken where at least half of it fits. Training keeps a unit of every class.
    """
    units = sorted(
        _units(paths, labels, identities, groups, seed), key=lambda unit: (unit.order, paths[unit.members[0]])
    )
    images = Counter(labels)
    spread = Counter(label for unit in units for label in unit.sizes)
    if test:
        # A class with three units keeps one for validation beside the one for training.
        kept = {label: 2 if validation and spread[label] >= 3 else 1 for label in images}
        _take("test", test, units, images, spread, kept)
    if validation:
        _take("validation", validation, units, images, spread, dict.fromkeys(images, 1))
    splits: list[Split] = ["train"] * len(paths)
    for unit in units:
        for member in unit.members:
            splits[member] = unit.split
    return splits


def _take(
    split: Split, share: float, units: list[_Unit], images: Counter[int], spread: Counter[int], kept: dict[int, int]
) -> None:
    """Move units from training to `split`, in their order, up to each class's quota; `kept` units per class stay."""
    left = Counter(label for unit in units if unit.split == "train" for label in unit.sizes)
    taken: Counter[int] = Counter()
    quota = {
        label: max(math.floor(share * number + 0.5), 1 if spread[label] >= 3 else 0) for label, number in images.items()
    }

    def may_go(unit: _Unit) -> bool:
        return unit.split == "train" and all(left[label] > kept[label] for label in unit.sizes)

    def take(unit: _Unit) -> None:
        unit.split = split
        for label, number in unit.sizes.items():
            taken[label] += number
            left[label] -= 1

    for unit in units:
        main = unit.main
        if taken[main] + unit.sizes[main] / 2 <= quota[main] and may_go(unit):
            take(unit)
    for label in sorted(images):
        if not taken[label] and spread[label] >= 3:
            fitting = [unit for unit in units if label in unit.sizes and may_go(unit)]
            if fitting:
                take(min(fitting, key=lambda unit: len(unit.members)))


def _units(
    paths: Sequence[str], labels: Sequence[int], identities: Sequence[Hashable], groups: Sequence[str] | None, seed: int
) -> list[_Unit]:
    """Connected components of images by group and by identity."""
    parent = list(range(len(paths)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[Hashable, int] = {}
    for index, identity in enumerate(identities):
        parent[root(index)] = root(first.setdefault(identity, index))
    if groups is not None:
        first = {}
        for index, group in enumerate(groups):
            parent[root(index)] = root(first.setdefault(group, index))
    units: dict[int, _Unit] = {}
    for index, name in enumerate(paths if groups is None else groups):
        order = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
        unit = units.get(root(index))
        if unit is None:
            units[root(index)] = _Unit(order, [index], {labels[index]: 1})
        else:
            unit.order = min(unit.order, order)
            unit.members.append(index)
            unit.sizes[labels[index]] = unit.sizes.get(labels[index], 0) + 1
    return list(units.values())


def folds(
    paths: Sequence[str],
    labels: Sequence[int],
    identities: Sequence[Hashable],
    *,
    groups: Sequence[str] | None,
    seed: int,
    number: int,
) -> list[int]:
    """One of `number` folds for each image: within a class, units are dealt out in the order that `assign` has."""
    units = sorted(
        _units(paths, labels, identities, groups, seed), key=lambda unit: (unit.order, paths[unit.members[0]])
    )
    dealt: Counter[int] = Counter()
    result = [0] * len(paths)
    for unit in units:
        for member in unit.members:
            result[member] = dealt[unit.main] % number
        dealt[unit.main] += 1
    return result
