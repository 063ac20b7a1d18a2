"""Which images train, which choose the model and which judge it: a pure function of names, labels and pixels."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from imgrec_cli.dataset.walk import Split
from imgrec_cli.errors import DataError


@dataclass(frozen=True, slots=True)
class _Units:
    """Images that must stay together, by their order: in columns, because there may be a million of them.

    `of_image` is the unit of every image; `main` the class with the most images of a unit, the first of equal ones;
    `images` their number, in all classes. `mixed` has the images by class of units with several.
    """

    of_image: list[int]
    main: list[int]
    images: list[int]
    mixed: dict[int, dict[int, int]]

    def __len__(self) -> int:
        return len(self.main)

    def sizes(self, unit: int) -> dict[int, int]:
        """Images of a unit by class."""
        return self.mixed.get(unit) or {self.main[unit]: self.images[unit]}


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
    units = _units(labels, identities, paths if groups is None else groups, groups is not None, seed)
    splits: list[Split] = ["train"] * len(units)
    images = Counter(labels)
    spread = Counter(label for unit in range(len(units)) for label in units.sizes(unit))
    if test:
        # A class with three units keeps one for validation beside the one for training.
        kept = {label: 2 if validation and spread[label] >= 3 else 1 for label in images}
        _take("test", test, units, splits, images, spread, kept)
    if validation:
        _take("validation", validation, units, splits, images, spread, dict.fromkeys(images, 1))
    return [splits[unit] for unit in units.of_image]


def _take(
    split: Split,
    share: float,
    units: _Units,
    splits: list[Split],
    images: Counter[int],
    spread: Counter[int],
    kept: dict[int, int],
) -> None:
    """Move units from training to `split`, in their order, up to each class's quota; `kept` units per class stay."""
    left = Counter(label for unit in range(len(units)) if splits[unit] == "train" for label in units.sizes(unit))
    taken: Counter[int] = Counter()
    quota = {
        label: max(math.floor(share * number + 0.5), 1 if spread[label] >= 3 else 0) for label, number in images.items()
    }

    def may_go(unit: int) -> bool:
        return splits[unit] == "train" and all(left[label] > kept[label] for label in units.sizes(unit))

    def take(unit: int) -> None:
        splits[unit] = split
        for label, number in units.sizes(unit).items():
            taken[label] += number
            left[label] -= 1

    for unit, main in enumerate(units.main):
        if taken[main] + units.sizes(unit)[main] / 2 <= quota[main] and may_go(unit):
            take(unit)
    for label in sorted(images):
        if not taken[label] and spread[label] >= 3:
            fitting = [unit for unit in range(len(units)) if label in units.sizes(unit) and may_go(unit)]
            if fitting:
                take(min(fitting, key=lambda unit: units.images[unit]))


def _units(
    labels: Sequence[int], identities: Sequence[Hashable], names: Sequence[str], grouped: bool, seed: int
) -> _Units:
    """Connected components of images by identity, and by name where names are those of groups.

    They are ordered by the least hash of (seed, name) in each, those of one hash by their first image.
    """
    parent = list(range(len(labels)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for shared in (identities, names) if grouped else (identities,):
        first: dict[Hashable, int] = {}
        for index, value in enumerate(shared):
            parent[root(index)] = root(first.setdefault(value, index))
        del first
    _, begins, unit_of = np.unique(
        [root(index) for index in range(len(labels))], return_index=True, return_inverse=True
    )
    hashes = (hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest() for name in names)
    high, low = np.frombuffer(b"".join(hashes), ">u8").reshape(-1, 2).T
    by_hash = np.lexsort((low, high))
    differs = (high[by_hash[1:]] != high[by_hash[:-1]]) | (low[by_hash[1:]] != low[by_hash[:-1]])
    rank = np.empty(len(labels), np.int64)
    rank[by_hash] = np.cumsum(np.concatenate([[False], differs]))[: len(labels)]
    least = np.full(len(begins), len(labels))
    np.minimum.at(least, unit_of, rank)
    order = np.lexsort((begins, least))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    of_image = place[unit_of]
    main = np.empty(len(order), np.int64)
    main[of_image] = labels
    mixed: dict[int, dict[int, int]] = {}
    for image in np.flatnonzero(np.isin(of_image, of_image[main[of_image] != labels])).tolist():
        sizes = mixed.setdefault(int(of_image[image]), {})
        sizes[labels[image]] = sizes.get(labels[image], 0) + 1
    for unit, sizes in mixed.items():
        main[unit] = max(sizes, key=lambda label: (sizes[label], -label))
    return _Units(of_image.tolist(), main.tolist(), np.bincount(of_image, minlength=len(order)).tolist(), mixed)


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
    units = _units(labels, identities, paths if groups is None else groups, groups is not None, seed)
    dealt: Counter[int] = Counter()
    fold_of = []
    for main in units.main:
        fold_of.append(dealt[main] % number)
        dealt[main] += 1
    return [fold_of[unit] for unit in units.of_image]
