"""Config → data set: scan, pack and split in order, with every image that had to be left out."""

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgrec_cli.dataset.digests import Files
from imgrec_cli.dataset.pack import DeepImageMet, Facts, Pack, find_survey, open_pack, take_survey
from imgrec_cli.dataset.scan import Example, Listing, scan
from imgrec_cli.dataset.split import assign, groups_of
from imgrec_cli.dataset.walk import SPLITS, Split
from imgrec_cli.errors import DataError
from imgrec_cli.imaging import PixelSpec
from imgrec_cli.progress import Listener, Note, Warn, ignore

if TYPE_CHECKING:
    from imgrec_cli.config.sections import Data, Image

AUTO_BITS = (8, 10, 12, 14, 16)
_NAMED = 10  # skipped images named in a warning
_BLOCK = 256  # images read at once from the pack


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image file that cannot be read, and why."""

    file: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """All images of a run, with their classes and splits.

    `pixels` is uint8 [images, height, width, channels], 0 to 255, memory-mapped and read-only; `examples` name its
    rows. `digests` are the BLAKE2b of the files' bytes, by row. `fingerprint` is equal for equal splits of equal files.
    """

    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    pixels: NDArray[np.uint8]
    spec: PixelSpec
    skipped: tuple[Skipped, ...]
    digests: tuple[str, ...]
    fingerprint: str

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows int64 [images] of a split's images in `pixels`."""
        return np.array([example.row for example in self.examples if example.split == split], np.int64)

    def labels(self, split: str) -> NDArray[np.int64]:
        """Class indices int64 [images] of a split's images, in the order of `rows`."""
        return np.array([example.label for example in self.examples if example.split == split], np.int64)

    def digest(self, example: Example) -> str:
        """The BLAKE2b of an example's file, 32 hexadecimal digits."""
        return self.digests[example.row]

    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel over the training pixels, in units of the 0 to 1 range."""
        counts = np.zeros((self.spec.channels, 256), np.int64)
        rows = self.rows("train")
        for start in range(0, len(rows), _BLOCK):
            block = self.pixels[rows[start : start + _BLOCK]]
            for channel, histogram in enumerate(counts):
                histogram += np.bincount(block[..., channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        shares = counts / counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
        # Pictures of one flat value have no deviation to divide by; one gray level stands for it.
        return tuple(mean.tolist()), tuple(np.maximum(deviation, 1 / 255).tolist())


def plan(listing: Listing, data: "Data", seed: int) -> tuple[tuple[Example, ...], list[str]]:
    """The examples with their splits as far as names tell, and warnings about classes that could not be divided.

    `load_dataset` divides otherwise where images are equal or cannot be read. Raises its DataErrors.
    """
    unseen = [Facts("", example.path, "", None) for example in listing.examples]
    examples = _split(listing, unseen, data, seed)
    return examples, _thin_splits(listing, examples, data)


def load_dataset(
    data: "Data", image: "Image", seed: int, on_event: Listener = ignore, listing: Listing | None = None
) -> Dataset:
    """Find, decode and split the images that a config names; the paths in `data` are absolute.

    `listing` is what `scan` gives for `data`, where it is known already. Images that cannot be read are left out,
    listed in `skipped` and told as a warning. Raises DataError for folders that cannot be trained on, DiskSpaceError
    where the pack does not fit.
    """
    listing = scan(data) if listing is None else listing
    for warning in listing.warnings:
        on_event(Warn(warning))
    if data.group is not None:  # a wrong expression is told before anything is decoded
        groups_of([example.path for example in listing.examples if example.split == "train"], data.group)
    pack, spec = _packed(listing, data, image, seed, on_event)
    skipped = tuple(
        Skipped(example.file, example.path, fact.reason)
        for example, fact in zip(listing.examples, pack.facts, strict=True)
        if fact.reason
    )
    if skipped:
        on_event(Warn(_skipped_text(skipped)))
    examples = _split(listing, pack.facts, data, seed)
    for warning in _thin_splits(listing, examples, data):
        on_event(Warn(warning))
    digests = tuple(fact.digest for fact in pack.facts if not fact.reason)
    dataset = Dataset(
        class_names=listing.class_names,
        examples=examples,
        pixels=pack.pixels,
        spec=spec,
        skipped=skipped,
        digests=digests,
        fingerprint=_fingerprint(listing.class_names, examples, digests),
    )
    counts = ", ".join(f"{len(dataset.rows(split)):,} {split}" for split in SPLITS)
    on_event(Note(f"{len(examples):,} images in {len(listing.class_names)} classes: {counts}"))
    return dataset


def _packed(listing: Listing, data: "Data", image: "Image", seed: int, on_event: Listener) -> tuple[Pack, PixelSpec]:
    """The pack, and what its pixels are, with the range resolved.

    Under `auto` the images are taken for 8-bit ones until a deep image is met: then all are surveyed, because the range
    follows from the training images, and which these are follows from all.
    """
    files = Files([example.file for example in listing.examples], "; ".join(map(str, listing.folders)))
    low_high = (0.0, 255.0) if image.range == "auto" else (float(image.range[0]), float(image.range[1]))
    facts = find_survey(files) if image.range == "auto" else None
    if facts is None:
        spec = PixelSpec(image.size, image.color, image.fit, low_high)
        try:
            return open_pack(files, spec, on_event, eight_bit_only=image.range == "auto"), spec
        except DeepImageMet:
            facts = take_survey(files, on_event)
    spec = PixelSpec(image.size, image.color, image.fit, _auto_range(listing, facts, data, seed))
    high = spec.range[1]
    on_event(Note(f"image.range: auto is [0, {high:.0f}], from the largest training value"))
    clipped = sum(fact.largest is not None and fact.largest > high for fact in facts)
    if clipped:
        on_event(Warn(f"{clipped:,} images outside of training hold values above {high:.0f}, which are shown as white"))
    return open_pack(files, spec, on_event), spec


def _auto_range(listing: Listing, facts: list[Facts], data: "Data", seed: int) -> tuple[float, float]:
    """Zero and the highest value of the smallest of 8, 10, 12, 14, 16 bits that holds the largest training value."""
    hint = 'say which values are black and white, such as --set "image.range=[0, 1]"'
    training = [facts[row] for row, split in _assigned(listing, facts, data, seed).items() if split == "train"]
    for example, fact in zip(listing.examples, facts, strict=True):
        if isinstance(fact.largest, float):
            raise DataError(f"image.range: auto has no rule for floating-point values, as in {example.file}", hint)
    largest = max((fact.largest for fact in training if fact.largest is not None), default=255)
    for bits in AUTO_BITS:
        if largest < 2**bits:
            return 0.0, float(2**bits - 1)
    raise DataError(f"image.range: auto ends at 16 bits, and the largest training value is {largest:,}", hint)


def _assigned(listing: Listing, facts: list[Facts], data: "Data", seed: int) -> dict[int, Split]:
    """The split of every image that can be read, by its place in the listing.

    Raises DataError where a class has no training image, or no image is left to choose the model.
    """
    assigned = {row: example.split for row, example in enumerate(listing.examples) if not facts[row].reason}
    training = [row for row, split in assigned.items() if split == "train"]
    labels = [listing.examples[row].label for row in training]
    present = set(labels)
    for label, name in enumerate(listing.class_names):
        if label not in present:
            row = next(row for row, example in enumerate(listing.examples) if example.label == label)
            raise DataError(
                f"no training image of {name} can be read, such as {listing.examples[row].file}: {facts[row].reason}",
                "replace the damaged files, or remove the class",
            )
    paths = [listing.examples[row].path for row in training]
    splits = assign(
        paths,
        labels,
        [facts[row].identity for row in training],
        groups=None if data.group is None else groups_of(paths, data.group),
        seed=seed,
        validation=None if "validation" in listing.given else data.split.validation,
        test=None if "test" in listing.given else data.split.test,
    )
    assigned.update(zip(training, splits, strict=True))
    if "validation" not in assigned.values():
        raise _no_validation(listing, facts, data)
    return assigned


def _no_validation(listing: Listing, facts: list[Facts], data: "Data") -> DataError:
    given = next((row for row, example in enumerate(listing.examples) if example.split == "validation"), None)
    if given is not None:
        return DataError(
            f"no validation image can be read, such as {listing.examples[given].file}: {facts[given].reason}",
            "validation images choose the best weights: replace the damaged files",
        )
    return DataError(
        f"no validation images: no class could be divided, which takes three {_units(data)}",
        "they choose the best weights: add images, or name folders for both: data.train and data.validation",
    )


def _split(listing: Listing, facts: list[Facts], data: "Data", seed: int) -> tuple[Example, ...]:
    """The examples that can be read, with their splits and their rows in the pack, in the order of the listing."""
    assigned = _assigned(listing, facts, data, seed)
    return tuple(
        replace(listing.examples[place], split=split, row=row) for row, (place, split) in enumerate(assigned.items())
    )


def _thin_splits(listing: Listing, examples: tuple[Example, ...], data: "Data") -> list[str]:
    """Warnings about classes of which nothing was set aside, where something should have been."""
    warnings = []
    for split, share in (("validation", data.split.validation), ("test", data.split.test)):
        found = {example.label for example in examples if example.split == split}
        lacking = [name for label, name in enumerate(listing.class_names) if label not in found]
        if lacking and share and split not in listing.given:
            named = ", ".join(lacking)
            warnings.append(f"no {split} images of {named}: a class needs three {_units(data)} to be divided")
    return warnings


def _units(data: "Data") -> str:
    return "images that differ" if data.group is None else "groups"


def _skipped_text(skipped: tuple[Skipped, ...]) -> str:
    count = (
        "1 image cannot be read and was" if len(skipped) == 1 else f"{len(skipped):,} images cannot be read and were"
    )
    named = "; ".join(f"{image.file} ({image.reason})" for image in skipped[:_NAMED])
    more = f" and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    return f"{count} left out: {named}{more}"


def _fingerprint(class_names: tuple[str, ...], examples: tuple[Example, ...], digests: tuple[str, ...]) -> str:
    lines = sorted((e.split, class_names[e.label], e.path, digests[e.row]) for e in examples)
    return hashlib.blake2b(repr(lines).encode(), digest_size=16).hexdigest()
